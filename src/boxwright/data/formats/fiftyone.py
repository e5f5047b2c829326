"""FiftyOne's on-disk data sets: FiftyOneImageDetectionDataset (labels.json) and FiftyOneDataset
(samples.json).

https://docs.voxel51.com/user_guide/export_datasets.html. Images stand in `data/`; a box is [left, top, width,
height] in shares of the image. Of a FiftyOneDataset every field of detections is read, one where several are
is told.
"""

from pathlib import Path
from typing import Any

import orjson

from boxwright.data.builder import TableBuilder, as_integer, as_number, as_numbers, unpack
from boxwright.data.formats.files import resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.records import find_by_stem, read_object, size_of, take, tell_unknown
from boxwright.data.tables import Tables
from boxwright.errors import DataError

LABELS, SAMPLES, DATA = "labels.json", "samples.json", "data"
BOX_KEYS = {
    "label", "bounding_box", "confidence", "attributes", "target", "supercategory", "iscrowd", "index",
    "_id", "_cls", "id", "tags", "mask", "mask_path", "area", "occluded", "rotation",
}  # fmt: skip


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a folder, or its labels.json or samples.json.

    Raises:
        DataError: neither is there.
    """
    options.only("fiftyone", "images")
    file = (
        path if path.is_file() else next((path / n for n in (SAMPLES, LABELS) if (path / n).is_file()), None)
    )
    if file is None:
        raise DataError(f"{path}: neither {LABELS} nor {SAMPLES}.")
    builder = TableBuilder(file.parent.resolve().name)
    folders = [options.images] if options.images else [file.parent / DATA, file.parent]
    if file.name == SAMPLES:
        _read_samples(builder, file, folders)
    else:
        _read_labels(builder, file, folders)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write a FiftyOneImageDetectionDataset: labels.json beside `data/`; of oriented boxes their upright
    hulls.

    Raises:
        DataError: an image has no name or size, or two share a stem.
    """
    names = tables.categories["name"].to_list()
    rows, boxes, hulls = tables.rows_by_image(), tables.boxes.to_dicts(), tables.upright().tolist()
    labels: dict[str, list] = {}
    for row in tables.images.iter_rows(named=True):
        stem = Path(row["file_name"] or "").stem
        if not stem or row["width"] is None or stem in labels:
            raise DataError(f"image {row['image_id']}: FiftyOne needs a file name of its own, and a size.")
        size = [row["width"], row["height"]] * 2
        labels[stem] = []
        for n in rows[row["image_id"]]:
            share = [v / s for v, s in zip(hulls[n], size)]
            found = {"label": names[boxes[n]["category_id"]], "bounding_box": share}
            found |= {"confidence": boxes[n]["score"]} if boxes[n]["score"] is not None else {}
            held = unpack(boxes[n]["attributes"])
            labels[stem].append(found | ({"attributes": held} if held else {}))
    write_atomic(
        path / LABELS, orjson.dumps({"classes": names, "labels": labels}, option=orjson.OPT_INDENT_2)
    )


def is_fiftyone(path: Path) -> bool:
    """Whether a folder is such a data set."""
    return (path / DATA).is_dir() and any((path / name).is_file() for name in (LABELS, SAMPLES))


def _read_labels(builder: TableBuilder, file: Path, folders: list[Path]) -> None:
    document = read_object(file, "labels")
    tell_unknown(builder, str(file), document, ("classes", "labels"), "FiftyOne")
    classes = document.get("classes")
    if classes is not None and not (isinstance(classes, list) and all(isinstance(c, str) for c in classes)):
        builder.error("category", str(file), f"classes is {classes!r:.60}, expected a list of names.", True)
        classes = None
    for name in classes or []:
        builder.category(name)
    labels = take(builder, str(file), document, "labels", dict, {})
    for stem, found in labels.items():
        place = f"{file}, '{stem}'"
        usual = "/" not in stem and "\\" not in stem and "\0" not in stem
        image = find_by_stem(stem, folders) if usual else None
        size = size_of(builder, image)
        image_id = builder.image(image.name if image else f"{stem}.jpg", str(image) if image else None, *size)
        if found is not None and not isinstance(found, list):
            builder.error("annotation", place, f"{found!r:.60}, expected a list.", True)
            continue
        for n, box in enumerate(found or []):
            _read_box(builder, place, n, box, image_id, size, classes)


def _read_samples(builder: TableBuilder, file: Path, folders: list[Path]) -> None:
    samples = take(builder, str(file), read_object(file, "samples"), "samples", list, [])
    for n, sample in enumerate(samples):
        place = f"{file}, sample {n}"
        name = take(builder, place, sample, "filepath", str)
        if name is None:
            continue
        name = name.replace("\\", "/").removeprefix(f"{DATA}/")
        where = resolve_image(name, folders) or resolve_image(Path(name).name, folders)
        held: Any = sample.get("metadata")
        sides = [as_integer(held.get(s)) if isinstance(held, dict) else None for s in ("width", "height")]
        size = (sides[0], sides[1]) if None not in sides else size_of(builder, where)
        image_id = builder.image(name, where, *size)
        fields = {k: v["detections"] for k, v in sample.items() if isinstance(v, dict) and "detections" in v}
        broken = [
            k
            for k, v in sample.items()
            if isinstance(v, dict) and v.get("_cls") == "Detections" and k not in fields
        ]
        for key in broken:
            builder.error("annotation", place, f"{key} has no detections.", True)
        if not fields and not broken and n == 0:
            builder.warning("annotation", place, "no field of detections.")
        if len(fields) > 1:
            builder.warning("annotation", place, f"fields {', '.join(fields)}; all are read.")
        for key, found in fields.items():
            if not isinstance(found, list):
                builder.error(
                    "annotation", place, f"{key}.detections is {found!r:.60}, expected a list.", True
                )
                continue
            for k, box in enumerate(found):
                _read_box(builder, f"{place}, {key}", k, box, image_id, size, None)


def _read_box(builder, where: str, n: int, box: Any, image_id: int, size, classes: list[str] | None) -> None:
    place = f"{where}, box {n}"
    shares = as_numbers(box.get("bounding_box")) if isinstance(box, dict) else None
    label = box.get("label") if isinstance(box, dict) else None
    number = as_integer(label) if not isinstance(label, str) else None
    if number is not None and classes is not None and 0 <= number < len(classes):
        label = classes[number]
    if shares is None or not isinstance(label, str) or not label or None in size:
        expected = "a label and four shares of an image of known size"
        builder.error("bbox", place, f"{box!r:.80}, expected {expected}.", True)
        return
    tell_unknown(builder, place, box, BOX_KEYS, "FiftyOne")
    width, height = size
    x, y, w, h = shares
    confidence = as_number(box.get("confidence"))
    if confidence is None and box.get("confidence") is not None:
        builder.error("score", place, f"confidence {box['confidence']!r:.60}, expected a number.")
    held = box.get("attributes") if isinstance(box.get("attributes"), dict) else None
    shape = (x * width, y * height, w * width, h * height)
    category = builder.category(label)
    builder.box((f"{where}, box", n), image_id, category, shape, score=confidence, attributes=held)
