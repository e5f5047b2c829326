"""What `/openapi.json` says beyond the code: bodies, an answer, refusals."""

EXAMPLE = {
    "model": "bccd",
    "digest": "5f0c6a1b9d3e7a42",
    "images": [
        {
            "width": 640,
            "height": 480,
            "boxes": [
                {
                    "class": "RBC",
                    "category_id": 1,
                    "score": 0.93,
                    "x": 62.5,
                    "y": 218.0,
                    "w": 104.1,
                    "h": 99.7,
                }
            ],
            "at_limit": False,
        }
    ],
}
REFUSALS = {
    401: "a token is wanted",
    403: "images can't be named, or not this one",
    404: "no such model, or no such image",
    408: "the body or the answer took too long",
    413: "a body, or a number of images, beyond the limit",
    415: "neither an image, a form nor JSON",
    422: "no image, or one that can't be decoded or has too many pixels",
    429: "too much is waiting; Retry-After says when to come back",
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "byte"}}
                    },
                    "required": ["images"],
                }
            },
        },
    }
}
