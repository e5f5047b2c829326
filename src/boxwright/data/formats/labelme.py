"""LabelMe: a JSON an image, of shapes with points in pixels.

https://github.com/wkentaro/labelme. Rectangles are two corners; polygons are read as their upright hulls,
keeping their points as an attribute; four points of the shape `rotation` (X-AnyLabeling) or
`oriented_rectangle` are an oriented box. Other shapes (lines, points, circles) are reported and left out.
"""

from pathlib import Path
from typing import Any

import orjson

from boxwright.data.builder import TableBuilder, as_integer, as_number, as_shape, unpack
from boxwright.data.formats.files import read_json, resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near, short_names
from boxwright.data.formats.records import box_of_points, take, tell_unknown
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.geometry.conventions import corners

KEYS = {
    "version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth", "lineColor",
    "fillColor", "text", "description",
}  # fmt: skip
SHAPE_KEYS = {
    "label", "points", "shape_type", "group_id", "flags", "description", "mask", "difficult", "score",
    "direction", "attributes", "line_color", "fill_color", "kie_linking",
}  # fmt: skip
ORIENTED = ("rotation", "oriented_rectangle")
HULLS = ("polygon", "linestrip")


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a JSON, or every JSON of a folder.

    Raises:
        DataError: there is none.
    """
    options.only("labelme", "images")
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"{path}: no JSON file there.")
    builder = TableBuilder(path.stem)
    for file in files:
        try:
            record = read_json(file)
        except DataError as error:
            builder.error("annotation-file", str(file), str(error), True)
            continue
        shapes = take(builder, str(file), record, "shapes", list)
        if shapes is None:
            continue
        tell_unknown(builder, str(file), record, KEYS, "LabelMe")
        _read_image(builder, file, record, shapes, options)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write a JSON an image into the folder `path`; oriented boxes as the shape `rotation`.

    Raises:
        DataError: an image has no name or size.
    """
    names = tables.categories["name"].to_list()
    by_image = tables.rows_by_image()
    quads = corners(tables.rotated())
    boxes = tables.boxes.to_dicts()
    stems = short_names(*(tables.images[c].to_list() for c in ("file_name", "path")), flat=True)
    for row, stem in zip(tables.images.iter_rows(named=True), stems):
        if row["file_name"] is None or row["width"] is None:
            raise DataError(f"image {row['image_id']}: LabelMe needs a file name and a size.")
        shapes = [_to_shape(boxes[n], quads[n].tolist(), names) for n in by_image[row["image_id"]]]
        document = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": row["file_name"]}
        document |= {"imageData": None, "imageHeight": row["height"], "imageWidth": row["width"]}
        write_atomic(
            path / f"{Path(stem or '').stem}.json", orjson.dumps(document, option=orjson.OPT_INDENT_2)
        )


def _to_shape(box: dict, quad: list, names: list[str]) -> dict[str, Any]:
    upright = [[box["x"], box["y"]], [box["x"] + box["w"], box["y"] + box["h"]]]
    oriented = box["angle"] is not None
    held = {k: v for k, v in unpack(box["attributes"]).items() if k in ("group_id", "flags", "description")}
    shape = {"label": names[box["category_id"]], "points": quad if oriented else upright, "group_id": None}
    shape |= {"description": "", "shape_type": "rotation" if oriented else "rectangle", "flags": {}} | held
    shape |= {"difficult": True} if box["difficult"] else {}
    return shape | ({"score": box["score"]} if box["score"] is not None else {})


def _read_image(builder: TableBuilder, file: Path, record: dict, shapes: list, options: ReadOptions) -> None:
    name = record.get("imagePath")
    if not isinstance(name, str) or not name:
        builder.error("image", str(file), f"imagePath is {name!r:.60}; {file.stem}.jpg is taken.")
        name = f"{file.stem}.jpg"
    name = name.replace("\\", "/")
    folders = [options.images] if options.images else near(file, file.parent)
    where = resolve_image(name, folders)
    if where is None or not Path(where).is_file():
        where = resolve_image(Path(name).name, folders)
    size = as_integer(record.get("imageWidth")), as_integer(record.get("imageHeight"))
    if None in size:
        found = f"{record.get('imageWidth')!r} x {record.get('imageHeight')!r}"
        builder.warning("image-size", str(file), f"size {found:.60}, expected integers.")
    image_id = builder.image(name, where, *size)
    for n, shape in enumerate(shapes):
        _read_shape(builder, f"{file}, shape", n, shape, image_id)


def _read_shape(builder: TableBuilder, where: str, n: int, shape: Any, image_id: int) -> None:
    place = f"{where} {n}"
    label = take(builder, place, shape, "label", str)
    if label is None:
        return
    tell_unknown(builder, place, shape, SHAPE_KEYS, "LabelMe")
    kind, points = shape.get("shape_type", "polygon"), shape.get("points")
    held = {k: shape[k] for k in ("group_id", "flags", "description") if shape.get(k)}
    box: Any = box_of_points(points)
    if box is not None and kind in ORIENTED:
        box = as_shape([v for point in points for v in point], 8)
    elif kind in HULLS:
        held["points"] = points
    if box is None or kind not in ("rectangle", *ORIENTED, *HULLS):
        builder.error("bbox", place, f"a {kind!r:.20} of {points!r:.60}, expected a box or a polygon.", True)
        return
    score = as_number(shape.get("score"))
    if score is None and shape.get("score") is not None:
        builder.error("score", place, f"score {shape['score']!r:.60}, expected a number.")
    difficult = shape.get("difficult") is True
    builder.box(
        (where, n), image_id, builder.category(label), box, score=score, difficult=difficult, attributes=held
    )
