"""Vehicle markers: a JSON of oriented boxes with headings, made for marking traffic from above.

    {"format": "boxwright-markers", "version": 1, "images": [
      {"file": "frame_0001.jpg", "width": 3840, "height": 2160, "markers": [
        {"class": "car", "x": 812.5, "y": 440.0, "length": 52.1, "width": 22.4, "heading": 31.5,
         "disabled": false, "score": 0.93, "track": 17}]}]}

`x` and `y` are the centre, `length` lies along the heading, in pixels; `heading` is where the front points,
in degrees from the x axis, clockwise on the screen. A `disabled` marker is one that nobody should be judged
by (parked out of the scene, half under a bridge): it is read as an ignore region. `width` and `height` of the
image, `disabled`, `score` and any further key of a marker are optional; further keys travel as attributes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from boxwright.data.builder import TableBuilder, as_flag, as_integer, as_number, as_shape, unpack
from boxwright.data.formats.coco import image_folders
from boxwright.data.formats.files import read_json, resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.tables import Tables
from boxwright.errors import DataError

NAME, VERSION = "boxwright-markers", 1
SHAPE = ("x", "y", "length", "width", "heading")
KEYS = {*SHAPE, "class", "disabled", "score"}


def read(path: Path, options: ReadOptions) -> Tables:
    """Read markers.

    Raises:
        DataError: the file isn't JSON of this kind and version.
    """
    options.only("markers", "images")
    document = read_json(path)
    if not isinstance(document, dict) or document.get("format") != NAME:
        raise DataError(f"{path}: no '{NAME}' file.")
    if document.get("version") != VERSION:
        raise DataError(f"{path}: version {document.get('version')!r}, expected {VERSION}.")
    if not isinstance(document.get("images"), list):
        raise DataError(f"{path}: 'images' is {document.get('images')!r:.60}, expected a list.")
    builder = TableBuilder(path.stem, angles="degrees", headings=True)
    folders = image_folders(path, options)
    for n, record in enumerate(document["images"]):
        place = f"{path}, image {n}"
        if not isinstance(record, dict) or not isinstance(record.get("file"), str):
            builder.error("image", place, f"{record!r:.60}, expected an object with a file.", True)
            continue
        size = [as_integer(record.get(side)) for side in ("width", "height")]
        file = record["file"]
        extra = {k: v for k, v in record.items() if k not in ("file", "width", "height", "markers")}
        image_id = builder.image(file, resolve_image(file, folders), size[0], size[1], attributes=extra)
        markers = record.get("markers", [])
        if not isinstance(markers, list):
            builder.error("markers", place, f"markers is {markers!r:.60}, expected a list.", True)
            continue
        for k, marker in enumerate(markers):
            _read_marker(builder, f"{place}, marker", k, marker, image_id)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write markers; boxes without an angle get the heading 0."""
    markers: list[list[dict[str, Any]]] = [[] for _ in range(len(tables.images))]
    names = tables.categories["name"].to_list()
    shapes = tables.rotated()
    shapes[:, 4] = np.degrees(shapes[:, 4])
    for shape, row in zip(shapes.tolist(), tables.boxes.iter_rows(named=True)):
        marker = {"class": names[row["category_id"]]} | dict(zip(SHAPE, shape))
        marker |= {"disabled": row["ignore"] or row["crowd"]}
        marker |= {"score": row["score"]} if row["score"] is not None else {}
        markers[row["image_id"]].append(marker | unpack(row["attributes"]))
    images = [
        {"file": row["file_name"]}
        | {side: row[side] for side in ("width", "height") if row[side] is not None}
        | {"markers": markers[row["image_id"]]}
        | unpack(row["attributes"])
        for row in tables.images.iter_rows(named=True)
    ]
    document = {"format": NAME, "version": VERSION, "images": images}
    write_atomic(path, orjson.dumps(document, option=orjson.OPT_INDENT_2))


def _read_marker(builder: TableBuilder, where: str, number: int, marker: Any, image_id: int) -> None:
    place = f"{where} {number}"
    if not isinstance(marker, dict) or not isinstance(marker.get("class"), str):
        builder.error("marker", place, f"{marker!r:.60}, expected an object with a class.", True)
        return
    shape = as_shape([marker.get(key) for key in SHAPE], 5)
    if shape is None:
        found = ", ".join(f"{key} {marker.get(key)!r:.20}" for key in SHAPE)
        builder.error("bbox", place, f"{found}; expected five numbers.", True)
        return
    disabled, score = as_flag(marker.get("disabled", False)), as_number(marker.get("score"))
    if disabled is None:
        builder.error("flag", place, f"disabled is {marker['disabled']!r:.20}, expected true or false.")
    if score is None and marker.get("score") is not None:
        builder.error("score", place, f"score {marker['score']!r:.20}, expected a number.")
    extra = {k: v for k, v in marker.items() if k not in KEYS}
    category = builder.category(marker["class"])
    builder.box(
        (where, number), image_id, category, shape, ignore=bool(disabled), score=score, attributes=extra
    )
