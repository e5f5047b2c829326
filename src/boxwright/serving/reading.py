"""The images that a request brings, however they come."""

import base64
import binascii
import json

from starlette.exceptions import HTTPException
from starlette.requests import Request

from boxwright.serving.limits import Held, Limits

RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")  # the last one is curl's own
FIELDS = 16  # of a form, beside its files


async def images_of(request: Request, limits: Limits, held: Held) -> list[bytes]:
    """The files of a request: a raw body, a form's, or base64 in JSON.

    Raises:
        HTTPException: there is none, too many or too much of it, or it can't be read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await _body(request, limits.bytes, held)
    if kind == "multipart/form-data":
        request._body = body  # read already, within the limit; the form is parsed from it
        try:
            form = await request.form(max_files=limits.images, max_fields=FIELDS)
        except HTTPException as error:
            many = "Maximum number of files" in str(error.detail)
            refusal = (413, _many(limits)) if many else (422, "a form that can't be read")
            raise HTTPException(*refusal) from error
        contents = [await part.read() for _, part in form.multi_items() if not isinstance(part, str)]
    elif kind == "application/json":
        contents = _from_json(body)
    elif kind.startswith("image/") or kind in RAW:
        contents = [body]
    else:
        raise HTTPException(415, "expected an image, multipart/form-data or application/json")
    if not any(contents):
        raise HTTPException(422, "no image in it")
    if len(contents) > limits.images:
        raise HTTPException(413, _many(limits))
    return contents


def _many(limits: Limits) -> str:
    return f"more than {limits.images} images"


async def _body(request: Request, most: int, held: Held) -> bytes:
    """The body, unless it is larger than allowed."""
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told[:18]) > most:
        raise HTTPException(413, f"more than {most:,} bytes")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise HTTPException(413, f"more than {most:,} bytes")
        held.take(len(part))
        parts.append(part)
    return b"".join(parts)


def _from_json(body: bytes) -> list[bytes]:
    try:
        texts = json.loads(body)["images"]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise TypeError
        return [base64.b64decode(text.rpartition("base64,")[2], validate=True) for text in texts]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise HTTPException(422, 'expected {"images": [base64, ...]}') from error
