"""Supervisely: a project of data sets with `ann/IMAGE.json` beside `img/IMAGE`, and meta.json.

https://docs.supervisely.com/data-organization/00_ann_format_navi. Rectangles are two corners; polygons, lines
and points of more than one are read as their upright hulls; bitmaps are reported and left out.
"""

from pathlib import Path
from typing import Any

from boxwright.data.builder import TableBuilder, as_integer
from boxwright.data.formats.files import read_json, resolve_image
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.records import box_of_points, take, tell_unknown
from boxwright.data.tables import Tables
from boxwright.errors import DataError

META = "meta.json"
KEYS = {"description", "name", "size", "tags", "objects", "customBigData", "key", "figures"}
OBJECT_KEYS = {
    "id", "classId", "labelerLogin", "createdAt", "updatedAt", "description", "geometryType", "tags",
    "classTitle", "points", "bitmap", "key", "nnCreated", "nnUpdated", "priority", "customData",
    "instance",
}  # fmt: skip


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a project, or one data set of it.

    Raises:
        DataError: no `ann` folder there.
    """
    options.only("supervisely", "images")
    sets = [path] if (path / "ann").is_dir() else sorted(p.parent for p in path.glob("*/ann"))
    if not sets:
        raise DataError(f"{path}: no folder `ann` in it or in its folders.")
    builder = TableBuilder(path.resolve().name)
    meta = next((m for m in (path / META, path.parent / META) if m.is_file()), None)
    classes = read_json(meta).get("classes", []) if meta and isinstance(read_json(meta), dict) else []
    for n, record in enumerate(classes if isinstance(classes, list) else []):
        title = take(builder, f"{meta}, class {n}", record, "title", str)
        if title is not None:
            builder.category(title)
    for folder in sets:
        prefix = "" if len(sets) == 1 else f"{folder.name}/"
        for file in sorted((folder / "ann").glob("*.json")):
            _read_image(builder, file, folder, prefix, options)
    return builder.build()


def is_supervisely(path: Path) -> bool:
    """Whether a folder is a project or a data set of one."""
    return (path / "ann").is_dir() or ((path / META).is_file() and next(path.glob("*/ann"), None) is not None)


def _read_image(builder: TableBuilder, file: Path, folder: Path, prefix: str, options: ReadOptions) -> None:
    try:
        record = read_json(file)
    except DataError as error:
        builder.error("annotation-file", str(file), str(error), True)
        return
    objects = take(builder, str(file), record, "objects", list)
    if objects is None:
        return
    tell_unknown(builder, str(file), record, KEYS, "Supervisely")
    size: Any = record.get("size")
    sides = [as_integer(size.get(s)) if isinstance(size, dict) else None for s in ("width", "height")]
    if None in sides:
        builder.warning("image-size", str(file), f"size {size!r:.60}, expected height and width.")
    name = file.name.removesuffix(".json")
    where = resolve_image(name, [options.images] if options.images else [folder / "img"])
    image_id = builder.image(prefix + name, where, sides[0], sides[1])
    for n, found in enumerate(objects):
        _read_object(builder, f"{file}, object", n, found, image_id)


def _read_object(builder: TableBuilder, where: str, n: int, record: Any, image_id: int) -> None:
    place = f"{where} {n}"
    label = take(builder, place, record, "classTitle", str)
    if label is None:
        return
    tell_unknown(builder, place, record, OBJECT_KEYS, "Supervisely")
    points = record.get("points")
    box = box_of_points(points.get("exterior")) if isinstance(points, dict) else None
    if box is None:
        kind = record.get("geometryType")
        builder.error("bbox", place, f"a {kind!r:.20} of {points!r:.60}, expected exterior points.", True)
        return
    tags = {t.get("name"): t.get("value") for t in record.get("tags") or [] if isinstance(t, dict)}
    builder.box(
        (where, n), image_id, builder.category(label), box, attributes={"tags": tags} if tags else None
    )
