"""COCO instances JSON: images, annotations and categories in one file.

Format: https://cocodataset.org/#format-data. Image and category ids may be any integers. Keys that the
tables have no column for (segmentation, keypoints of other things than faces ...) travel as attributes and
are written back.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from boxwright.data.builder import TableBuilder, as_flag, as_integer, as_number, as_shape, unpack
from boxwright.data.formats import coco_plain
from boxwright.data.formats.files import parse_json, read_content, resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near
from boxwright.data.tables import LANDMARKS, Tables
from boxwright.errors import DataError

IMAGE_KEYS = {"id", "file_name", "filename", "im_name", "width", "height"}
BOX_KEYS = {"image_id", "category_id", "bbox", "iscrowd", "ignore", "difficult", "area", "score"}
FACE_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
# Keys that are expected beside those of the tables; any other is reported once.
USUAL_KEYS = {"id", "segmentation", "keypoints", "num_keypoints", "attributes", "caption", "license"} | {
    "coco_url", "flickr_url", "date_captured", "pose", "truncated", "occluded", "vis_bbox", "vis_ratio",
    "height", "supercategory", "skeleton", "extra",
}  # fmt: skip
TOP_KEYS = {"images", "annotations", "annotation", "categories", "info", "licenses", "type"}


def read(path: Path, options: ReadOptions) -> Tables:
    """Read COCO truth.

    Raises:
        DataError: the file isn't JSON or has no lists of images and annotations.
    """
    options.only("coco", "images", "angles")
    raw = read_content(path)
    plain = coco_plain.decode_instances(raw)
    if plain is not None:
        builder = TableBuilder(path.stem)
        category_of = _read_categories(builder, path, plain.categories)
        image_of = _read_images(builder, path, plain.images, options)
        if coco_plain.add_annotations(
            builder, f"{path}, annotation", plain.annotations, image_of, category_of
        ):
            return builder.build()
    document = parse_json(path, raw)
    if not isinstance(document, dict):
        raise DataError(f"{path}: a JSON {type(document).__name__}, expected an object with images.")
    builder = TableBuilder(path.stem, options.angles)
    for key in document.keys() - TOP_KEYS:
        builder.warning("unknown-key", str(path), f"'{key}' is not a part of COCO; not read.")
    if "annotation" in document and "annotations" not in document:
        builder.warning("unknown-key", str(path), "'annotation' is taken for 'annotations'.")
        document["annotations"] = document["annotation"]
    parts = {name: _records(path, document, name) for name in ("images", "annotations", "categories")}

    category_of = _read_categories(builder, path, parts["categories"])
    image_of = _read_images(builder, path, parts["images"], options)
    _read_annotations(builder, path, parts["annotations"], image_of, category_of)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write COCO truth; of oriented boxes the hulls. Ids that came from COCO stay; else they count from 1."""
    _write(tables, path, tables.upright().tolist())


def write_oriented(tables: Tables, path: Path) -> None:
    """The same with [cx, cy, w, h, angle in radians, clockwise] for oriented boxes, as HIT-UAV has it."""
    x, y, w, h = (tables.boxes[c].to_numpy() for c in "xywh")
    spelled = np.stack([x + w / 2, y + h / 2, w, h, tables.boxes["angle"].fill_null(np.nan).to_numpy()], 1)
    boxes = [
        oriented if oriented[4] == oriented[4] else upright
        for oriented, upright in zip(spelled.tolist(), tables.upright().tolist())
    ]
    _write(tables, path, boxes)


def _write(tables: Tables, path: Path, boxes: list[list[float]]) -> None:
    image_ids, category_ids = source_ids(tables.images), source_ids(tables.categories)
    images = [
        {"id": image_ids[row["image_id"]], "file_name": row["file_name"]}
        | {side: row[side] for side in ("width", "height") if row[side] is not None}
        | unpack(row["attributes"])
        for row in tables.images.iter_rows(named=True)
    ]
    with_landmarks = set(tables.boxes.filter(pl.col("landmarks").is_not_null())["category_id"])
    categories = [
        {"id": category_ids[row["category_id"]], "name": row["name"]}
        | ({"keypoints": FACE_POINTS} if row["category_id"] in with_landmarks else {})
        | unpack(row["attributes"])
        for row in tables.categories.iter_rows(named=True)
    ]
    attributes = [unpack(a) for a in tables.boxes["attributes"]]
    own_ids = [a.pop("id", None) for a in attributes]
    usable = len({i for i in own_ids if isinstance(i, int)}) == len(own_ids)
    annotations = [
        {"id": own_ids[n] if usable else n + 1}
        | {"image_id": image_ids[row["image_id"]], "category_id": category_ids[row["category_id"]]}
        | {"bbox": boxes[n], "area": row["area"], "iscrowd": int(row["crowd"])}
        | {flag: 1 for flag in ("ignore", "difficult") if row[flag]}
        | ({"score": row["score"]} if row["score"] is not None else {})
        | to_keypoints(row["landmarks"])
        | attributes[n]
        for n, row in enumerate(tables.boxes.iter_rows(named=True))
    ]
    document = {"images": images, "annotations": annotations, "categories": categories}
    write_atomic(path, orjson.dumps(document))


def source_ids(table) -> list[int]:
    """Ids to write: the source's own where every row has one and no two are the same, else 1, 2, 3 ..."""
    own = table["source_id"]
    if own.null_count() == 0 and own.n_unique() == len(own):
        return own.to_list()
    return list(range(1, len(own) + 1))


def _records(path: Path, document: dict, name: str) -> list[Any]:
    records = document.get(name)
    if not isinstance(records, list):
        found = "missing" if records is None else f"a {type(records).__name__}"
        raise DataError(f"{path}: '{name}' is {found}, expected a list.")
    return records


def _read_categories(builder: TableBuilder, path: Path, records: list) -> dict[int, int]:
    category_of: dict[int, int] = {}
    for n, record in enumerate(records):
        place = f"{path}, category {n}"
        source_id = as_integer(record.get("id")) if isinstance(record, dict) else None
        if source_id is None or not isinstance(record.get("name"), str):
            builder.error("category", place, f"{_short(record)}, expected an id and a name.", True)
        elif source_id in category_of:
            builder.error("category", place, f"id {source_id} is a duplicate.", True)
        elif builder.has_category(record["name"]):
            builder.error("category", place, f"name '{record['name']}' is a duplicate.")
            category_of[source_id] = builder.category(record["name"])
        else:
            extra = {k: v for k, v in record.items() if k not in ("id", "name")}
            category_of[source_id] = builder.category(record["name"], source_id, extra)
    return category_of


def _read_images(
    builder: TableBuilder, path: Path, records: list, options: ReadOptions
) -> dict[int | str, int]:
    image_of: dict[int | str, int] = {}
    usable: dict[int | str, dict] = {}
    for n, record in enumerate(records):
        place = f"{path}, image {n}"
        source_id = as_id(record.get("id")) if isinstance(record, dict) else None
        if source_id is None:
            builder.error("image", place, f"{_short(record)}, expected an id.", True)
        elif source_id in usable:
            builder.error("image", place, f"id {source_id} is a duplicate.", True)
        else:
            usable[source_id] = record
    folders = image_folders(path, options)
    unknown: Counter[str] = Counter()
    for source_id, record in usable.items():
        place = f"{path}, image {source_id}"
        names = [record[k] for k in ("file_name", "filename", "im_name") if k in record]
        name = names[0] if names and isinstance(names[0], str) else None
        if name is None:
            builder.error("image", place, f"no file name in {_short(record)}.")
        size = [as_integer(record.get(side)) for side in ("width", "height")]
        if None in size:
            found = f"{record.get('width')!r} x {record.get('height')!r}"
            builder.warning("image-size", place, f"size {found}, expected integers.")
        extra = {k: v for k, v in record.items() if k not in IMAGE_KEYS}
        unknown.update(extra.keys() - USUAL_KEYS)
        where = resolve_image(name, folders) if name else None
        number = source_id if isinstance(source_id, int) else None
        image_of[source_id] = builder.image(name, where, size[0], size[1], number, extra)
    _tell_unknown(builder, path, unknown, "image")
    return image_of


def _read_annotations(builder, path, records, image_of, category_of) -> None:
    unknown: Counter[str] = Counter()
    seen: set[int] = set()
    where = f"{path}, annotation"
    for n, record in enumerate(records):
        if not isinstance(record, dict):
            builder.error("annotation", f"{where} {n}", f"{_short(record)}, expected an object.", True)
            continue
        own_id = as_integer(record.get("id"))
        if own_id is not None and own_id in seen:
            builder.warning("annotation", f"{where} {n}", f"id {own_id} is a duplicate.")
        if own_id is not None:
            seen.add(own_id)
        row = read_row(builder, f"{where} {n}", record, image_of, category_of)
        if row is None:
            continue
        extra = {k: v for k, v in record.items() if k not in BOX_KEYS}
        unknown.update(extra.keys() - USUAL_KEYS)
        image_id, category_id, shape = row
        flags = {}
        for column, key in (("crowd", "iscrowd"), ("ignore", "ignore"), ("difficult", "difficult")):
            flags[column] = as_flag(record.get(key, 0))
            if flags[column] is None:
                builder.error("flag", f"{where} {n}", f"{key} is {_short(record[key])}, expected 0 or 1.")
                flags[column] = False
        area = as_number(record.get("area"))
        if area is None and "area" in record:
            builder.error("area", f"{where} {n}", f"area {_short(record['area'])}, expected a number.")
        score = as_number(record.get("score"))
        if score is None and record.get("score") is not None:
            builder.error("score", f"{where} {n}", f"score {_short(record['score'])}, expected a number.")
        landmarks = read_landmarks(record)
        if landmarks is not None:
            extra = {k: v for k, v in extra.items() if k not in ("keypoints", "num_keypoints")}
        builder.box(
            (where, n), image_id, category_id, shape,
            score=score, area=area, landmarks=landmarks, attributes=extra, **flags,
        )  # fmt: skip
    _tell_unknown(builder, path, unknown, "annotation")


def read_row(builder: TableBuilder, place: str, record: dict, image_of: dict, category_of: dict):
    """(image_id, category_id, shape) of an annotation or result, or None and a fault."""
    rows = []
    for key, known in (("image_id", image_of), ("category_id", category_of)):
        value = record.get(key)
        rows.append(known.get(value if isinstance(value, str) and value in known else as_id(value)))
        if rows[-1] is None:
            found = _short(record.get(key))
            builder.error(key.replace("_", "-"), place, f"{key} is {found}, which is not listed.", True)
            return None
    box = record.get("bbox")
    shape = as_shape(box, 4, 5, 8)
    if shape is None:
        expected = "expected [x, y, width, height], [cx, cy, width, height, angle], or four corners"
        builder.error("bbox", place, f"bbox is {_short(box)}, {expected}.", True)
        return None
    return *rows, shape


def read_landmarks(record: dict) -> list[float] | None:
    """The landmarks of a face out of its keypoints; None for those of other things, or where one lacks."""
    points = as_shape(record.get("keypoints"), 3 * LANDMARKS)
    if points is None or 0 in points[2::3]:
        return None
    return [v for n in range(0, len(points), 3) for v in points[n : n + 2]]


def to_keypoints(landmarks: list[float] | None) -> dict[str, Any]:
    """COCO's keys for landmarks."""
    if landmarks is None:
        return {}
    points = [v for n in range(0, len(landmarks), 2) for v in (*landmarks[n : n + 2], 2)]
    return {"keypoints": points, "num_keypoints": LANDMARKS}


def as_id(value: Any) -> int | str | None:
    """An id, which COCO has as an integer and others as text."""
    number = as_integer(value)
    return value if number is None and isinstance(value, str) and value else number


def image_folders(path: Path, options: ReadOptions) -> list[Path]:
    """Where the images of an annotation file may be."""
    return [options.images] if options.images is not None else near(path, path.parent)


def _tell_unknown(builder: TableBuilder, path: Path, unknown: Counter, what: str) -> None:
    for key, count in sorted(unknown.items()):
        message = f"key '{key}' in {count:,} {what}s is not COCO's; kept as an attribute."
        builder.warning("unknown-key", str(path), message)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
