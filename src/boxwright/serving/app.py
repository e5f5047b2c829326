"""The service: pictures in, boxes out, within limits that hold against strangers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from boxwright.data.drawing import Annotator
from boxwright.data.images import open_upload
from boxwright.errors import DataError
from boxwright.prediction.predictor import Found
from boxwright.serving.fetching import Sources
from boxwright.serving.limits import Budget, BusyError, Held, Limits, TooLargeError
from boxwright.serving.reading import images_of
from boxwright.serving.reloading import Reloader
from boxwright.serving.schema import BODY, EXAMPLE, REFUSALS
from boxwright.serving.served import Served, coco_of
from boxwright.serving.watching import Meters, Watch

PAGE = Path(__file__).with_name("page")
FEW = 1000  # boxes of an answer, which take a millisecond or two to write, where a thread would only cost
Looked = tuple[np.ndarray, Found]  # pixels, and what is in them
Format = Literal["boxes", "coco", "picture"]


@dataclass(frozen=True)
class Wanted:
    """What a request asks for beside its images."""

    model: str | None
    score: float | None
    tiles: bool
    format: Format


async def wanted_of(
    model: str | None = None, score: float | None = None, tiles: bool = False, format: Format = "boxes"
) -> Wanted:
    """As a coroutine: what isn't one, FastAPI calls in a thread of its pool."""
    return Wanted(model, score, tiles, format)


def create_app(
    models: Mapping[str, Served],
    limits: Limits,
    token: str | None = None,
    hosts: tuple[str, ...] = ("*",),
    sources: Sources | None = None,
    reloader: Reloader | None = None,
) -> FastAPI:
    """The application.

    Args:
        models: by the name that requests give; the first is taken where they give none.
        limits: of requests.
        token: that every request must bring, as `Authorization: Bearer ...`; None: none.
        hosts: names by which the service may be asked for, so that no page elsewhere has one of its own.
        sources: of images that requests name; None: they bring them.
        reloader: of models, while the application runs; None: they stay.
    """
    sources = sources or Sources()

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        looking = None if reloader is None else asyncio.create_task(reloader.run())
        yield
        if looking is not None:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
        await sources.close()

    app = FastAPI(title="boxwright", docs_url=None, redoc_url=None, version="1", lifespan=run)
    meters, budget = Meters.of(models), Budget(limits.memory)

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
            meters.waiting.labels(name).set(served.waiting)
        return Response(generate_latest(meters.registry), media_type="text/plain; version=0.0.4")

    answers: dict[int | str, dict[str, Any]] = {
        200: {"content": {"application/json": {"example": EXAMPLE}, "image/jpeg": {}}},
        **{code: {"description": text} for code, text in REFUSALS.items()},
    }

    @app.post("/predict", summary="Boxes of images.", responses=answers, openapi_extra=BODY)
    async def predict(request: Request, wanted: Annotated[Wanted, Depends(wanted_of)]) -> Response:
        return await answer(lambda held: images_of(request, limits, held), wanted)

    @app.get("/predict", summary="Boxes of a named image, where that is allowed.", responses=answers)
    async def predict_named(image: str, wanted: Annotated[Wanted, Depends(wanted_of)]) -> Response:
        async def read(held: Held) -> list[bytes]:
            return [await sources.read(image, held)]

        return await answer(read, wanted)

    async def answer(read: Callable[[Held], Awaitable[list[bytes]]], wanted: Wanted) -> Response:
        name = next(iter(models)) if wanted.model is None else wanted.model
        if name not in models:
            raise HTTPException(404, f"no such model; there are {', '.join(models)}")
        if wanted.score is not None and not 0 <= wanted.score <= 1:
            raise HTTPException(422, "score must be 0 to 1")
        try:
            with budget.held() as held, models[name].leased() as served:
                async with asyncio.timeout(limits.seconds):
                    contents = await read(held)
                    looked = await _all([_find(served, c, limits, wanted.tiles, held) for c in contents])
                    meters.images.labels(name).inc(len(looked))
                    if wanted.format == "picture" or sum(len(found.rows) for _, found in looked) > FEW:
                        return await asyncio.to_thread(_answer, served, name, looked, wanted)
                    return _answer(served, name, looked, wanted)
        except ClientDisconnect as error:
            raise HTTPException(400, "a body that ends early") from error
        except TimeoutError as error:
            raise HTTPException(408, f"not done within {limits.seconds:g} s") from error
        except DataError as error:
            raise HTTPException(422, str(error)) from error
        except TooLargeError as error:
            raise HTTPException(413, str(error)) from error
        except BusyError as error:
            raise HTTPException(429, REFUSALS[429], {"Retry-After": "1"}) from error

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(Watch, meters=meters, token=token)
    app.mount("/static", StaticFiles(directory=PAGE))
    return app


async def _all(works: list[Coroutine[Any, Any, Looked]]) -> list[Looked]:
    """Results of all; where one fails, the others end."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _find(served: Served, content: bytes, limits: Limits, tiles: bool, held: Held) -> Looked:
    """One image."""
    if served.full(tiles):  # before anything is decoded
        raise BusyError
    image = open_upload(content, limits.pixels)
    held.take(3 * image.width * image.height)
    return await served.find(image, tiles)


def _answer(served: Served, name: str, looked: list[Looked], wanted: Wanted) -> Response:
    sizes = [(pixels.shape[1], pixels.shape[0]) for pixels, _ in looked]
    if wanted.format == "picture":
        buffer, (pixels, found) = BytesIO(), looked[0]
        tables = served.tables(found.rows, sizes[0], wanted.score)
        drawn = Annotator(wanted.score).draw(pixels, tables)
        Image.fromarray(drawn).save(buffer, "JPEG", quality=90)
        return Response(buffer.getvalue(), media_type="image/jpeg")
    boxes = [served.boxes(found.rows, size, wanted.score) for (_, found), size in zip(looked, sizes)]
    if wanted.format == "coco":
        return _json([row for n, own in enumerate(boxes) for row in coco_of(own, n)])
    images = [
        {"width": w, "height": h, "boxes": own, "at_limit": found.full}
        for (w, h), own, (_, found) in zip(sizes, boxes, looked)
    ]
    return _json({"model": name, "digest": served.digest, "images": images})


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
