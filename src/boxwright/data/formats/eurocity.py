"""EuroCity Persons: one JSON an image, persons and riders as `children` with corners and tags.

Braun et al., EuroCity Persons, TPAMI 2019. A rider's bicycle or motorbike is a child of the rider and is
read as a box of its own, with the attribute `parent`.
"""

from pathlib import Path
from typing import Any

import orjson

from boxwright.data.builder import TableBuilder, as_integer, as_numbers, unpack
from boxwright.data.formats.files import read_json, resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near, short_names
from boxwright.data.tables import Tables
from boxwright.errors import DataError

CORNERS = ("x0", "y0", "x1", "y1")
GROUP = "-group"  # person-group-far-away and the like: regions, not objects
CHILD_KEYS = {"tags", "orient", "confidences", "distance"}
IMAGE_KEYS = {"tags", "identity"}
MAX_DEPTH = 5


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a JSON or every JSON below a folder; group regions become ignored boxes.

    Raises:
        DataError: there is no JSON.
    """
    options.only("eurocity", "images")
    files = [path] if path.is_file() else sorted(path.rglob("*.json"))
    if not files:
        raise DataError(f"{path}: no JSON file there.")
    builder = TableBuilder(path.stem)
    for file in files:
        try:
            record = read_json(file)
        except DataError as error:
            builder.error("annotation-file", str(file), str(error), True)
            continue
        if not isinstance(record, dict) or not isinstance(record.get("children"), list):
            builder.error("annotation-file", str(file), "expected an object with children.", True)
            continue
        name = record.get("imagename")
        if not isinstance(name, str):
            builder.error("image", str(file), f"imagename is {name!r:.60}; {file.stem} is taken.")
            name = f"{file.stem}.png"
        size = [as_integer(record.get(f"image{side}")) for side in ("width", "height")]
        if None in size:
            builder.warning("image-size", str(file), f"size {size[0]} x {size[1]}, expected integers.")
        folders = [options.images] if options.images else near(file, file.parent)
        extra = {
            k: v for k, v in record.items() if k not in ("imagename", "imagewidth", "imageheight", "children")
        }
        for key in extra.keys() - IMAGE_KEYS:
            builder.warning("unknown-key", str(file), f"'{key}' is not EuroCity's; kept as an attribute.")
        image_id = builder.image(name, resolve_image(name, folders), size[0], size[1], attributes=extra)
        _read_children(builder, f"{file}, child", record["children"], image_id, None)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write one JSON an image into the folder `path`.

    Raises:
        DataError: an image has no name or size, or two images are one file.
    """
    names = tables.categories["name"].to_list()
    by_image = tables.boxes.partition_by("image_id", as_dict=True)
    stems = short_names(*(tables.images[c].to_list() for c in ("file_name", "path")), flat=True)
    for row, stem in zip(tables.images.iter_rows(named=True), stems):
        if row["file_name"] is None or row["width"] is None:
            raise DataError(f"image {row['image_id']}: EuroCity needs a file name and a size.")
        boxes = by_image.get((row["image_id"],))
        records = boxes.iter_rows(named=True) if boxes is not None else ()
        document = {
            "imagename": row["file_name"],
            "imagewidth": row["width"],
            "imageheight": row["height"],
            **unpack(row["attributes"]),
            "children": [_to_child(box, names[box["category_id"]]) for box in records],
        }
        write_atomic(path / f"{Path(stem or '').stem}.json", orjson.dumps(document))


def _read_children(
    builder, where: str, children: list, image_id: int, parent: str | None, depth: int = 0
) -> None:
    for n, record in enumerate(children):
        place = f"{where} {n}"
        identity = record.get("identity") if isinstance(record, dict) else None
        corners = as_numbers([record.get(c) for c in CORNERS]) if isinstance(record, dict) else None
        if not isinstance(identity, str) or corners is None:
            builder.error("bbox", place, f"{record!r:.80}, expected identity, x0, y0, x1, y1.", True)
            continue
        extra: dict[str, Any] = {
            k: v for k, v in record.items() if k not in (*CORNERS, "identity", "children")
        }
        for key in extra.keys() - CHILD_KEYS:
            builder.warning("unknown-key", place, f"'{key}' is not EuroCity's; kept as an attribute.")
        if parent:
            extra["parent"] = parent
        x0, y0, x1, y1 = corners
        builder.box(
            (where, n),
            image_id,
            builder.category(identity),
            (x0, y0, x1 - x0, y1 - y0),
            ignore=GROUP in identity,
            attributes=extra,
        )
        inner = record.get("children", [])
        if not isinstance(inner, list) or (inner and depth >= MAX_DEPTH):
            builder.error("annotation", place, f"children is {inner!r:.60}, expected a short list.", True)
        elif inner:
            _read_children(builder, f"{place}, child", inner, image_id, identity, depth + 1)


def _to_child(box: dict, category: str) -> dict:
    corners = (box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"])
    return {"identity": category} | dict(zip(CORNERS, corners)) | unpack(box["attributes"]) | {"children": []}
