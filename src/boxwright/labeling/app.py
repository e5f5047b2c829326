"""The server of the review page: labels out of a store, tiles of images, and actions back."""

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from boxwright.auditing.schema import SUSPICION_SCHEMA
from boxwright.data.tables import Tables
from boxwright.errors import BoxwrightError, DataError
from boxwright.labeling.queues import queues
from boxwright.labeling.store import Change, ChangedMeanwhileError, Store
from boxwright.labeling.tiles import TILE, Tiles
from boxwright.serving.listening import LOCAL

PAGE = Path(__file__).with_name("page")
COOKIE = "boxwright-token"
MOST_BYTES = 65_536  # of a request's body
PRESENT = 10.0  # seconds since a person's last question, after which they are gone
# Nothing from elsewhere, no script in the page: names of files and classes can't become code.
POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'"


@dataclass(frozen=True)
class Help:
    """What a model and an audit know of the images.

    Attributes:
        predictions: over the images and categories of the labels.
        suspicions: of an audit of these labels.
        orders: what speaks for looking at each image, by the queue's name, see `queues`.
    """

    predictions: Tables | None = None
    suspicions: pl.DataFrame | None = None
    orders: dict[str, np.ndarray] = field(default_factory=dict)


def make_help(
    labels: Tables,
    predictions: Tables | None,
    suspicions: pl.DataFrame | None,
    known: np.ndarray | None = None,
) -> Help:
    """See `Help` and `queues`."""
    return Help(predictions, suspicions, queues(labels, predictions, suspicions, known))


class Shape(BaseModel):
    """A box as the page sends it."""

    model_config = ConfigDict(extra="forbid")
    category_id: int
    x: float
    y: float
    w: float
    h: float
    angle: float | None = None


class Asked(BaseModel):
    """An action as the page sends it, see `Change`."""

    model_config = ConfigDict(extra="forbid")
    key: str = Field(min_length=8, max_length=64)
    person: str = Field(min_length=1, max_length=80)
    image_id: int
    seconds: float = Field(0.0, ge=0)
    box_id: int | None = None
    version: int = 0
    after: Shape | None = None
    state: str | None = None
    origin: Literal["drawn", "model"] = "drawn"
    undo: bool = False

    def change(self) -> Change:
        """The same for the store."""
        content: dict[str, Any] = self.model_dump()
        return Change(**content)


def create_app(
    store: Store, help: Help, person: str, token: str | None = None, hosts: tuple[str, ...] = LOCAL
) -> FastAPI:
    """The application.

    Args:
        store: of the review.
        help: predictions and suspicions.
        person: who corrects, where the page isn't told another name.
        token: that a browser must bring once (`/?token=...`); None: none.
        hosts: names by which the server may be asked for; others are refused, so that no page elsewhere can
            reach it through a name of its own.
    """
    app = FastAPI(title="boxwright label", docs_url=None, redoc_url=None, openapi_url=None)
    images = store.images()
    tiles = Tiles([(row["path"], row["width"], row["height"]) for row in images])
    by_image = _rows_by_image(help, len(images))
    present: dict[str, tuple[float, int | None]] = {}

    @app.exception_handler(BoxwrightError)
    def tell(request: Request, error: BoxwrightError) -> JSONResponse:
        if isinstance(error, ChangedMeanwhileError):
            return JSONResponse({"error": str(error), "box": error.box}, 409)
        return JSONResponse({"error": str(error)}, 422 if isinstance(error, DataError) else 400)

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        refused = _refusal(request, token)
        if refused is not None:
            return refused
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        given = request.query_params.get("token")
        if token is not None and given is not None:
            response.set_cookie(COOKIE, given, httponly=True, samesite="strict")
        return response

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/api/project")
    def project() -> dict[str, Any]:
        return {
            "person": person,
            "categories": store.categories,
            "oriented": store.oriented,
            "headings": store.headings,
            "labels": store.labels,
            "tile": TILE,
            "last_action": store.last_action(),
            "images": [{"name": row["file_name"], "state": row["state"]} for row in store.images()],
            "queues": {name: values.tolist() for name, values in help.orders.items()},
            "classes": _classes(store, len(images)),
            "kinds": [sorted({s["kind"] for s in rows}) for rows in by_image["suspicions"]],
        }

    @app.get("/api/images/{image_id}")
    def image(image_id: int) -> dict[str, Any]:
        return {
            "levels": tiles.levels(image_id),
            "boxes": store.boxes(image_id),
            "predictions": by_image["predictions"][image_id],
            "suspicions": by_image["suspicions"][image_id],
        }

    @app.get("/api/images/{image_id}/tiles/{level}/{column}/{row}")
    def tile(image_id: int, level: int, column: int, row: int) -> Response:
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(tiles.tile(image_id, level, column, row), media_type="image/jpeg", headers=headers)

    @app.post("/api/actions")
    def act(asked: Asked) -> dict[str, Any]:
        return store.act(asked.change())

    @app.get("/api/changes")
    def changes(since: int, person: str, image: int | None = None) -> dict[str, Any]:
        now = time.monotonic()
        present[person[:80]] = now, image
        for name in [name for name, (seen, _) in present.items() if now - seen > PRESENT]:
            present.pop(name, None)
        actions = store.actions(since)
        boxes = {a["box_id"]: store.box(a["box_id"]) for a in actions if a["box_id"] is not None}
        return {
            "actions": actions,
            "boxes": list(boxes.values()),
            "people": [{"name": name, "image": at} for name, (_, at) in present.items()],
        }

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


def _refusal(request: Request, token: str | None) -> Response | None:
    """Why a request isn't answered; None: it is."""
    if request.method == "POST":
        length = request.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MOST_BYTES:
            return JSONResponse(
                {"error": f"a body of {length or 'unknown'} bytes, at most {MOST_BYTES}."}, 413
            )
    if token is None:
        return None
    given = request.query_params.get("token") or request.cookies.get(COOKIE, "")
    if secrets.compare_digest(given.encode(), token.encode()):
        return None
    return JSONResponse({"error": "this page wants the token that its server has printed."}, 401)


def _rows_by_image(help: Help, count: int) -> dict[str, list[list[dict[str, Any]]]]:
    """Predictions and suspicions of each image, as the page takes them."""
    found: dict[str, list[list[dict[str, Any]]]] = {
        name: [[] for _ in range(count)] for name in ("predictions", "suspicions")
    }
    if help.predictions is not None:
        columns = ("image_id", "category_id", "x", "y", "w", "h", "angle", "score")
        for row in help.predictions.boxes.select(columns).iter_rows(named=True):
            found["predictions"][row.pop("image_id")].append(row)
    if help.suspicions is not None:
        columns = [
            n for n in help.suspicions.columns if n in SUSPICION_SCHEMA and n not in ("file_name", "source")
        ]
        for row in help.suspicions.select(columns).iter_rows(named=True):
            found["suspicions"][row.pop("image_id")].append(row)
    return found


def _classes(store: Store, count: int) -> list[list[int]]:
    """Classes in each image."""
    boxes = store.tables().boxes.select("image_id", "category_id").unique().sort("category_id")
    found: list[list[int]] = [[] for _ in range(count)]
    for image_id, category_id in boxes.iter_rows():
        found[image_id].append(category_id)
    return found
