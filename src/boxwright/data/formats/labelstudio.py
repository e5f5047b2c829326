"""Label Studio: a JSON list of tasks, with rectangles in percent of the image.

https://labelstud.io/guide/export. `rotation` is in degrees, clockwise about the rectangle's first corner.
Both the full JSON and JSON-MIN are read; of several annotations of a task the first that wasn't cancelled;
predictions where there are none. Images are known by the last part of their address, without the eight
letters that an upload gets.
"""

import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from boxwright.data.builder import TableBuilder, as_integer, as_number
from boxwright.data.formats.files import resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near
from boxwright.data.formats.records import read_list, size_of, take
from boxwright.data.tables import Tables
from boxwright.errors import DataError

KIND = "rectanglelabels"
UPLOAD = re.compile(r"^[0-9a-f]{8}-")
SHARES = ("x", "y", "width", "height")
ADDRESS = "/data/local-files/?d="


def read(path: Path, options: ReadOptions) -> Tables:
    """Read an export.

    Raises:
        DataError: not a JSON list.
    """
    options.only("labelstudio", "images")
    builder = TableBuilder(path.stem, angles="degrees")
    folders = [options.images] if options.images else near(path, path.parent)
    for n, task in enumerate(read_list(path, "tasks")):
        place = f"{path}, task {n}"
        if not isinstance(task, dict):
            builder.error("image", place, f"{task!r:.60}, expected an object.", True)
        elif "data" in task or "annotations" in task:
            data = take(builder, place, task, "data", dict, {})
            _read_task(builder, place, data, _results(builder, place, task), folders)
        else:
            _read_minimal(builder, place, task, folders)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write tasks with annotations (of boxes with a score, predictions), to be imported with local files.

    Raises:
        DataError: an image has no name or size.
    """
    names = tables.categories["name"].to_list()
    rows, boxes = tables.rows_by_image(), tables.boxes.to_dicts()
    tasks = []
    for row in tables.images.iter_rows(named=True):
        if row["file_name"] is None or row["width"] is None:
            raise DataError(f"image {row['image_id']}: Label Studio needs a file name and a size.")
        size = row["width"], row["height"]
        results = [
            _to_result(n, boxes[n], names[boxes[n]["category_id"]], size) for n in rows[row["image_id"]]
        ]
        scored = [r for r in results if "score" in r]
        task: dict[str, Any] = {"data": {"image": f"{ADDRESS}{row['file_name']}"}}
        task["annotations"] = [{"result": [r for r in results if "score" not in r]}] if not scored else []
        task["predictions"] = [{"model_version": "boxwright", "result": scored}] if scored else []
        tasks.append(task)
    write_atomic(path, orjson.dumps(tasks, option=orjson.OPT_INDENT_2))


def _to_result(number: int, box: dict, label: str, size: tuple[int, int]) -> dict[str, Any]:
    x, y, w, h, angle = (box[c] for c in ("x", "y", "w", "h", "angle"))
    if angle is not None:
        cx, cy, cos, sin = x + w / 2, y + h / 2, math.cos(angle), math.sin(angle)
        x, y = cx - w / 2 * cos + h / 2 * sin, cy - w / 2 * sin - h / 2 * cos
    shares = (100 * x / size[0], 100 * y / size[1], 100 * w / size[0], 100 * h / size[1])
    value = dict(zip(SHARES, shares)) | {"rotation": math.degrees(angle or 0.0) % 360, KIND: [label]}
    result = {"id": f"box{number}", "type": KIND, "from_name": "label", "to_name": "image", "value": value}
    result |= {"original_width": size[0], "original_height": size[1], "image_rotation": 0}
    return result | ({"score": box["score"]} if box["score"] is not None else {})


def _results(builder: TableBuilder, place: str, task: dict) -> list:
    """The results of a task's annotation, or of its prediction."""
    annotations = task.get("annotations", task.get("completions"))
    if not isinstance(annotations, list):
        builder.error("annotation", place, f"annotations is {annotations!r:.60}, expected a list.", True)
        return []
    usable = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
    if len(usable) > 1:
        builder.warning("annotation", place, f"{len(usable)} annotations; the first is read.")
    if len(usable) < len([a for a in annotations if not (isinstance(a, dict) and a.get("was_cancelled"))]):
        builder.error("annotation", place, "an annotation that isn't an object.", True)
    if usable:
        return take(builder, place, usable[0], "result", list, [])
    predictions = task.get("predictions") or []
    if not isinstance(predictions, list):
        builder.error("annotation", place, f"predictions is {predictions!r:.60}, expected a list.", True)
        return []
    return take(builder, place, predictions[0], "result", list, []) if predictions else []


def _read_task(builder: TableBuilder, place: str, data: dict, results: list, folders: list[Path]) -> None:
    addresses = [v for v in data.values() if isinstance(v, str)]
    address = data.get("image") if isinstance(data.get("image"), str) else next(iter(addresses), None)
    rows: list[tuple[int, Any, dict, float | None]] = []
    sizes = set()
    for n, result in enumerate(results):
        where = f"{place}, result {n}"
        value = take(builder, where, result, "value", dict)
        if value is None or KIND not in value:
            kind = result.get("type") if isinstance(result, dict) else None
            if value is not None and kind not in ("choices", "textarea", "rating", "relation"):
                builder.error(
                    "bbox", where, f"a {kind!r:.30} of {sorted(value)!r:.60}, not a rectangle.", True
                )
            continue
        sizes.add((as_integer(result.get("original_width")), as_integer(result.get("original_height"))))
        rows.append((n, result, value, as_number(result.get("score"))))
    _add(builder, place, address, sizes, rows, folders)


def _read_minimal(builder: TableBuilder, place: str, task: dict, folders: list[Path]) -> None:
    """JSON-MIN: the data's keys and, by the name of the labels, a list of rectangles."""
    lists = [v for v in task.values() if isinstance(v, list) and v and all(isinstance(r, dict) for r in v)]
    values = [value for rectangles in lists for value in rectangles if KIND in value]
    if not values and not isinstance(task.get("image"), str):
        builder.error("image", place, f"{sorted(task)!r:.60}, expected data and annotations.", True)
        return
    for key, value in task.items():
        if isinstance(value, list) and not all(isinstance(r, dict) and KIND in r for r in value):
            builder.error("annotation", place, f"{key} is {value!r:.60}, expected rectangles.", True)
    sizes = {(as_integer(v.get("original_width")), as_integer(v.get("original_height"))) for v in values}
    address = task.get("image") if isinstance(task.get("image"), str) else None
    if address is None:
        builder.error("image", place, f"image is {task.get('image')!r:.60}, expected an address.")
    _add(builder, place, address, sizes, [(n, v, v, None) for n, v in enumerate(values)], folders)


def _add(
    builder: TableBuilder, place: str, address: str | None, sizes: set, rows: list, folders: list[Path]
) -> None:
    if address is None:
        builder.error("image", place, "the task names no image.")
    name = _name_of(address or "")
    where = resolve_image(name, folders)
    if where is None or not Path(where).is_file():
        short = UPLOAD.sub("", name.rpartition("/")[2])
        found = resolve_image(short, folders) or resolve_image(name.rpartition("/")[2], folders)
        name, where = (short, found) if found is not None and Path(found).is_file() else (name, where)
    size = sizes.pop() if len(sizes) == 1 else (None, None)
    if sizes or None in size:
        size = size_of(builder, where)
    image_id = builder.image(name or None, where, size[0], size[1])
    for n, _, value, score in rows:
        where = f"{place}, result"
        if None in size:
            builder.error("bbox", f"{where} {n}", "percent of an image of unknown size.", True)
            continue
        width, height = (float(side) for side in size if side is not None)
        _add_box(builder, where, n, value, image_id, (width, height), score)


def _add_box(builder: TableBuilder, where: str, n: int, value: dict, image_id: int, size, score) -> None:
    numbers = [as_number(value.get(key)) for key in SHARES]
    rotation = as_number(value.get("rotation", 0))
    labels = value[KIND]
    if None in numbers or rotation is None or not isinstance(labels, list) or not labels:
        builder.error("bbox", f"{where} {n}", f"{value!r:.80}, expected percents and a label.", True)
        return
    if len(labels) > 1:
        builder.warning("category", f"{where} {n}", f"labels {labels!r:.60}; the first is read.")
    x, y, w, h = (number * side / 100 for number, side in zip(numbers, (*size, *size)) if number is not None)
    shape: tuple[float, ...] = (x, y, w, h)
    if rotation:
        angle = math.radians(rotation)
        cos, sin = math.cos(angle), math.sin(angle)
        center = x + w / 2 * cos - h / 2 * sin, y + w / 2 * sin + h / 2 * cos
        shape = (*center, w, h, rotation if rotation < 180 else rotation - 360)
    builder.box((where, n), image_id, builder.category(str(labels[0])), shape, score=score)


def _name_of(address: str) -> str:
    """The image's file in an address: behind `?d=`, or the path's last part."""
    parts = urlsplit(address)
    held = parse_qs(parts.query).get("d")
    if held:
        return held[0].lstrip("/")
    name = unquote(parts.path)
    return name.rpartition("/")[2] if parts.scheme or name.startswith("/") else name
