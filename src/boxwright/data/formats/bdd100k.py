"""BDD100K: a JSON list of frames with labels, each a category and `box2d`.

Yu et al., BDD100K: A Diverse Driving Dataset, CVPR 2020; https://doc.bdd100k.com/format.html (Scalabel's
format). Labels without a box (lanes, drivable areas) are left alone; crowds are regions.
"""

from pathlib import Path
from typing import Any

from boxwright.data.builder import TableBuilder, as_flag, as_number
from boxwright.data.formats.files import read_json, resolve_image
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near
from boxwright.data.formats.records import size_of, take, tell_unknown
from boxwright.data.tables import Tables
from boxwright.errors import DataError

CORNERS = ("x1", "y1", "x2", "y2")
FRAME_KEYS = {
    "name", "labels", "attributes", "timestamp", "videoName", "url", "frameIndex", "size", "frames",
    "intrinsics", "extrinsics", "sequence",
}  # fmt: skip
LABEL_KEYS = {
    "id", "category", "box2d", "attributes", "manualShape", "manualAttributes", "score", "poly2d",
    "rle", "box3d", "graph", "index",
}  # fmt: skip


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a list of frames, or an object that holds one.

    Raises:
        DataError: neither.
    """
    options.only("bdd100k", "images")
    document = read_json(path)
    frames = document.get("frames") if isinstance(document, dict) else document
    if not isinstance(frames, list):
        raise DataError(f"{path}: a JSON {type(document).__name__}, expected a list of frames.")
    builder = TableBuilder(path.stem)
    folders = [options.images] if options.images else near(path, path.parent)
    for n, frame in enumerate(frames):
        place = f"{path}, frame {n}"
        name = take(builder, place, frame, "name", str)
        if name is None:
            continue
        tell_unknown(builder, place, frame, FRAME_KEYS, "BDD100K")
        where = resolve_image(name, folders)
        held = frame.get("attributes") if isinstance(frame.get("attributes"), dict) else {}
        image_id = builder.image(name, where, *size_of(builder, where), attributes=held)
        labels = frame.get("labels")
        if labels is not None and not isinstance(labels, list):
            builder.error("annotation", place, f"labels is {labels!r:.60}, expected a list.", True)
        elif labels is None and "labels" not in frame:
            builder.error("annotation", place, "no labels.", True)
        for k, label in enumerate(labels if isinstance(labels, list) else []):
            _read_label(builder, f"{place}, label", k, label, image_id)
    return builder.build()


def is_bdd100k(start: bytes) -> bool:
    """Whether the first bytes of a JSON are of frames."""
    return b'"name"' in start and any(
        k in start for k in (b'"labels"', b'"timestamp"', b'"videoName"', b'"attributes"')
    )


def _read_label(builder: TableBuilder, where: str, n: int, label: Any, image_id: int) -> None:
    place = f"{where} {n}"
    category = take(builder, place, label, "category", str)
    if category is None:
        return
    tell_unknown(builder, place, label, LABEL_KEYS, "BDD100K")
    if label.get("box2d") is None and any(label.get(k) is not None for k in ("poly2d", "rle", "box3d")):
        return
    box = take(builder, place, label, "box2d", dict)
    numbers = [as_number(box.get(c)) for c in CORNERS] if box is not None else []
    if None in numbers:
        builder.error("bbox", place, f"box2d is {box!r:.80}, expected {', '.join(CORNERS)}.", True)
        return
    if not numbers:
        return
    x0, y0, x1, y1 = (v for v in numbers if v is not None)
    held = label.get("attributes") if isinstance(label.get("attributes"), dict) else {}
    builder.box(
        (where, n),
        image_id,
        builder.category(category),
        (x0, y0, x1 - x0, y1 - y0),
        score=as_number(label.get("score")),
        crowd=bool(as_flag(held.get("crowd", 0))),
        attributes=held,
    )
