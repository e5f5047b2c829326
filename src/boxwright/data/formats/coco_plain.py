"""The quick way through a COCO file that has nothing wrong with it.

Whatever this doesn't take (a number as text, an unknown key, an id that isn't listed, damage of any kind) is
left to the readers in `coco` and `coco_results`, which name it; both ways give the same tables.
"""

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import orjson
from msgspec import Meta, Raw, Struct

from boxwright.data.builder import TableBuilder, pack

Box = tuple[float, float, float, float]
# Beyond these, floats, which other tools make of ids, lose some.
Id = Annotated[int, Meta(gt=-(2**53), lt=2**53)]


class Annotation(Struct, gc=False, forbid_unknown_fields=True):
    id: Id
    image_id: Id
    category_id: Id
    bbox: Box
    area: float | None = None
    iscrowd: Literal[0, 1] = 0
    segmentation: Raw = Raw()


class Instances(Struct, forbid_unknown_fields=True):
    images: list[dict[str, Any]]
    annotations: list[Annotation]
    categories: list[dict[str, Any]]
    info: Raw = Raw()
    licenses: Raw = Raw()


class Result(Struct, gc=False, forbid_unknown_fields=True):
    image_id: Id
    category_id: Id
    bbox: Box
    score: float


def decode_instances(raw: bytes) -> Instances | None:
    """A plain instances file, or None."""
    return _decode(raw, Instances)


def decode_results(raw: bytes) -> list[Result] | None:
    """A plain results file, or None."""
    return _decode(raw, list[Result])


def add_annotations(
    builder: TableBuilder, where: str, rows: list[Annotation], image_of: dict, category_of: dict
) -> bool:
    """Give the builder every annotation, or none and False."""
    columns = _places_and_boxes(rows, image_of, category_of)
    own = np.fromiter(map(attrgetter("id"), rows), dtype=np.int64, count=len(rows))
    if columns is None or len(np.unique(own)) < len(own):
        return False
    columns["area"] = _floats(np.nan if r.area is None else r.area for r in rows)
    columns["crowd"] = np.fromiter(map(attrgetter("iscrowd"), rows), dtype=bool, count=len(rows))
    columns["attributes"] = [_attributes(r) for r in rows]
    builder.boxes(where, columns)
    return True


def add_results(
    builder: TableBuilder, where: str, rows: list[Result], image_of: dict, category_of: dict
) -> bool:
    """Give the builder every result, or none and False."""
    columns = _places_and_boxes(rows, image_of, category_of)
    if columns is None:
        return False
    columns["score"] = _floats(map(attrgetter("score"), rows))
    builder.boxes(where, columns)
    return True


def _decode(raw: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _places_and_boxes(rows: list, image_of: dict, category_of: dict) -> dict[str, Any] | None:
    image = _look_up(map(attrgetter("image_id"), rows), image_of)
    category = _look_up(map(attrgetter("category_id"), rows), category_of)
    if (image < 0).any() or (category < 0).any():
        return None
    xywh = _floats(chain.from_iterable(map(attrgetter("bbox"), rows))).reshape(-1, 4).T
    return {"image_id": image, "category_id": category.astype(np.int32)} | dict(zip("xywh", xywh.copy()))


def _look_up(ids: Iterable[int], row_of: dict[int, int]) -> np.ndarray:
    """(N,) row of each id, -1 for one that isn't listed."""
    wanted = np.fromiter(ids, dtype=np.int64)
    if not row_of:
        return np.full(len(wanted), -1)
    known, rows = (np.fromiter(v, dtype=np.int64, count=len(row_of)) for v in (row_of, row_of.values()))
    order = np.argsort(known)
    place = order[np.minimum(np.searchsorted(known[order], wanted), len(known) - 1)]
    return np.where(known[place] == wanted, rows[place], -1)


def _floats(values: Iterable[float]) -> np.ndarray:
    return np.fromiter(values, dtype=np.float64)


def _attributes(row: Annotation) -> str | None:
    outline = bytes(memoryview(row.segmentation))
    return pack({"id": row.id, "segmentation": orjson.loads(outline)}) if outline else f'{{"id":{row.id}}}'
