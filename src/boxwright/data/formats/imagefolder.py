"""Hugging Face's `imagefolder`: images and a metadata.jsonl with the boxes of each.

https://huggingface.co/docs/datasets/image_dataset#object-detection. A line is
{"file_name": ..., "objects": {"bbox": [[x, y, width, height], ...], "categories": [...]}}, in pixels;
categories are names or numbers, whose names a `classes.txt` beside the file may give, a line each.
"""

from pathlib import Path
from typing import Any

import orjson

from boxwright.data.builder import TableBuilder, as_integer, as_numbers
from boxwright.data.formats.files import read_lines, resolve_image
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near
from boxwright.data.formats.records import size_of, take, tell_unknown
from boxwright.data.tables import Tables
from boxwright.errors import DataError

METADATA = "metadata.jsonl"
LABELS = ("categories", "category", "labels", "label", "category_id")
KEYS = {"file_name", "objects", "image_id", "width", "height"}
CLASSES = "classes.txt"


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a metadata.jsonl or the folders that hold one.

    Raises:
        DataError: there is none.
    """
    options.only("imagefolder", "images")
    files = (
        [path]
        if path.is_file()
        else [f for f in (path / METADATA, *sorted(path.glob(f"*/{METADATA}"))) if f.is_file()]
    )
    if not files:
        raise DataError(f"{path}: no {METADATA} in it or in its folders.")
    builder = TableBuilder(path.stem)
    for file in files:
        names = read_lines(file.parent / CLASSES)[0] if (file.parent / CLASSES).is_file() else []
        for name in names:
            builder.category(name.strip())
        folders = [options.images] if options.images else near(file, file.parent)
        prefix = "" if len(files) == 1 else f"{file.parent.name}/"
        lines, clean = read_lines(file)
        if not clean:
            builder.warning("encoding", str(file), "bytes that are not UTF-8.")
        for number, line in enumerate(lines, 1):
            if line.strip():
                _read_record(builder, f"{file}, line {number}", line, prefix, names, folders)
    return builder.build()


def is_imagefolder(path: Path) -> bool:
    """Whether a folder holds metadata.jsonl, or folders that do."""
    return (path / METADATA).is_file() or next(path.glob(f"*/{METADATA}"), None) is not None


def _read_record(
    builder: TableBuilder, place: str, line: str, prefix: str, names: list[str], folders
) -> None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        builder.error("annotation", place, f"not JSON: {error}.", True)
        return
    name = take(builder, place, record, "file_name", str)
    objects = take(builder, place, record, "objects", dict)
    if name is None or objects is None:
        return
    tell_unknown(builder, place, record, KEYS, "imagefolder")
    tell_unknown(
        builder, place, objects, {"bbox", "id", "area", "iscrowd", "bbox_id", *LABELS}, "imagefolder"
    )
    where = resolve_image(name, folders)
    image_id = builder.image(prefix + name, where, *size_of(builder, where))
    boxes = take(builder, place, objects, "bbox", list, [])
    key = next((k for k in LABELS if k in objects), LABELS[0])
    labels = take(builder, place, objects, key, list, [])
    if len(labels) != len(boxes):
        found = f"{len(boxes)} boxes and {len(labels)} {key}, expected as many."
        builder.error("annotation", place, found, True)
    for n, (box, label) in enumerate(zip(boxes, labels)):
        xywh, category = as_numbers(box), _name_of(label, names)
        if xywh is None or category is None:
            found = f"{box!r:.60} of {label!r:.30}, expected [x, y, width, height] and a name."
            builder.error("bbox", f"{place}, object {n}", found, True)
            continue
        builder.box((f"{place}, object", n), image_id, builder.category(category), xywh)


def _name_of(label: Any, names: list[str]) -> str | None:
    number = as_integer(label) if not isinstance(label, str) else None
    if number is not None:
        return names[number].strip() if 0 <= number < len(names) else str(number)
    return label if isinstance(label, str) and label else None
