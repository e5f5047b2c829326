"""The service: pictures in, boxes out, within limits that hold against strangers."""

import asyncio
import base64
import binascii
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from boxwright.data.drawing import Annotator
from boxwright.data.images import decode_upload, open_upload
from boxwright.errors import DataError
from boxwright.serving.batching import QueueFullError
from boxwright.serving.limits import Limits
from boxwright.serving.served import Served, boxes_of, coco_of

PAGE = Path(__file__).with_name("page")
OPEN = ("/health", "/ready")  # to everyone, for whoever watches over the service
POLICY = "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'"
FIELDS = 16  # of a form, beside its files
Kind = Literal["boxes", "coco", "picture"]
logger = logging.getLogger("boxwright.serving")
EXAMPLE = {
    "model": "bccd",
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


@dataclass(frozen=True)
class _Meters:
    """What Prometheus reads."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    images: Counter
    waiting: Gauge


def create_app(
    models: Mapping[str, Served],
    limits: Limits,
    token: str | None = None,
    hosts: tuple[str, ...] = ("*",),
) -> FastAPI:
    """The application.

    Args:
        models: by the name that requests give; the first is taken where they give none.
        limits: of requests.
        token: that every request must bring, as `Authorization: Bearer ...`; None: none.
        hosts: names by which the service may be asked for, so that no page elsewhere has one of its own.
    """
    app = FastAPI(title="boxwright", docs_url=None, redoc_url=None, version="1")
    meters, hold = _make_meters(models), _holding(limits.held)

    @app.middleware("http")
    async def watch(request: Request, call_next: Any) -> Response:
        number, start = secrets.token_hex(8), time.perf_counter()
        if token is not None and request.url.path not in OPEN and not _allowed(request, token):
            response: Response = JSONResponse(
                {"error": "a token is wanted"}, 401, {"WWW-Authenticate": "Bearer"}
            )
        else:
            try:
                response = await call_next(request)
            except Exception:
                logger.exception("request %s", number)
                response = JSONResponse({"error": "something went wrong here", "request": number}, 500)
        seconds = time.perf_counter() - start
        response.headers["X-Request-Id"] = number
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        path = request.url.path if request.url.path in PATHS else "other"
        meters.requests.labels(path, str(response.status_code)).inc()
        meters.seconds.labels(path).observe(seconds)
        told = {"request": number, "method": request.method, "path": path, "status": response.status_code}
        logger.info(json.dumps(told | {"ms": round(1000 * seconds, 2)}))
        return response

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/health", summary="The process answers.")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="The models are loaded.")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}  # nobody listens before they are

    @app.get("/models", summary="Names, classes, thresholds and input sizes.")
    async def describe() -> dict[str, dict[str, Any]]:
        return {name: served.describe() for name, served in models.items()}

    @app.get("/metrics", include_in_schema=False)
    async def measure() -> Response:
        for name, served in models.items():
            meters.waiting.labels(name).set(served.batcher.waiting)
        return Response(generate_latest(meters.registry), media_type="text/plain; version=0.0.4")

    answers: dict[int | str, dict[str, Any]] = {
        200: {"content": {"application/json": {"example": EXAMPLE}, "image/jpeg": {}}},
        **{code: {"description": text} for code, text in REFUSALS.items()},
    }

    @app.post("/predict", summary="Boxes of one or several images.", responses=answers, openapi_extra=BODY)
    async def predict(
        request: Request, model: str | None = None, score: float | None = None, format: Kind = "boxes"
    ) -> Response:
        name = next(iter(models)) if model is None else model
        served = models.get(name)
        if served is None:
            raise HTTPException(404, f"no such model; there are {', '.join(models)}")
        if score is not None and not 0 <= score <= 1:
            raise HTTPException(422, "score must be 0 to 1")
        try:
            async with asyncio.timeout(limits.seconds):
                images = [open_upload(c, limits.pixels) for c in await _images_of(request, limits)]
                with hold(sum(image.width * image.height for image in images)):
                    found = await asyncio.gather(*(_find(served, image) for image in images))
                    meters.images.labels(name).inc(len(found))
                    return await run_in_threadpool(_answer, served, name, found, score, format)
        except TimeoutError as error:
            raise HTTPException(408, f"not done within {limits.seconds:g} s") from error
        except DataError as error:
            raise HTTPException(422, str(error)) from error
        except QueueFullError as error:
            raise HTTPException(429, REFUSALS[429], {"Retry-After": "1"}) from error

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.mount("/static", StaticFiles(directory=PAGE))
    return app


PATHS = ("/", "/health", "/ready", "/models", "/metrics", "/predict", "/openapi.json")
REFUSALS = {
    401: "a token is wanted",
    404: "no such model",
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


async def _images_of(request: Request, limits: Limits) -> list[bytes]:
    """The files of a request: a raw body, a form's, or base64 in JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await _body(request, limits.bytes)
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
    elif kind.startswith("image/") or kind in ("application/octet-stream", ""):
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


async def _body(request: Request, most: int) -> bytes:
    """The body, unless it is larger than allowed."""
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told[:18]) > most:
        raise HTTPException(413, f"more than {most:,} bytes")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise HTTPException(413, f"more than {most:,} bytes")
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


def _holding(most: int) -> Callable[[int], AbstractContextManager[None]]:
    """What keeps the pixels that are decoded at a time within `most`; used from the event loop alone."""
    held = 0

    @contextmanager
    def hold(pixels: int) -> Iterator[None]:
        nonlocal held
        if pixels > most:
            raise HTTPException(413, f"{pixels:,} pixels, expected at most {most:,} in a request")
        if held + pixels > most:
            raise QueueFullError
        held += pixels
        try:
            yield
        finally:
            held -= pixels

    return hold


async def _find(served: Served, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and rows of one image."""
    if served.batcher.full:  # before anything is decoded
        raise QueueFullError
    pixels = await run_in_threadpool(decode_upload, image)
    sample = await run_in_threadpool(served.predictor.fitted, pixels)
    return pixels, await asyncio.wrap_future(served.batcher.submit(sample))


def _answer(
    served: Served, name: str, found: list[tuple[np.ndarray, np.ndarray]], score: float | None, kind: Kind
) -> Response:
    sizes = [(pixels.shape[1], pixels.shape[0]) for pixels, _ in found]
    tables = [served.tables(rows, size, score) for (_, rows), size in zip(found, sizes)]
    if kind == "coco":
        return JSONResponse([row for n, own in enumerate(tables) for row in coco_of(own, n)])
    if kind == "picture":
        buffer = BytesIO()
        Image.fromarray(Annotator(score).draw(found[0][0], tables[0])).save(buffer, "JPEG", quality=90)
        return Response(buffer.getvalue(), media_type="image/jpeg")
    limit = served.predictor.limit
    images = [
        {"width": w, "height": h, "boxes": boxes_of(own), "at_limit": len(rows) >= limit}
        for (w, h), own, (_, rows) in zip(sizes, tables, found)
    ]
    return JSONResponse({"model": name, "images": images})


def _allowed(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "")
    return secrets.compare_digest(given.encode(), f"Bearer {token}".encode())


def _make_meters(models: Mapping[str, Served]) -> _Meters:
    registry = CollectorRegistry()
    meters = _Meters(
        registry,
        Counter("boxwright_requests", "Requests answered.", ["path", "status"], registry=registry),
        Histogram("boxwright_request_seconds", "Time to the answer.", ["path"], registry=registry),
        Counter("boxwright_images", "Images predicted.", ["model"], registry=registry),
        Gauge("boxwright_waiting", "Images that wait for a batch.", ["model"], registry=registry),
    )
    for name in models:
        meters.images.labels(name)
    return meters
