"""YOLO txt: a line a box, `class cx cy w h` in shares of the image, and a data.yaml with the names.

Names may stand in Darknet's obj.data and obj.names instead, as CVAT writes them, or in LabelImg's list.

Oriented boxes (YOLO-OBB) are `class x1 y1 x2 y2 x3 y3 x4 y4`. Either may be followed by a score. Outlines of
more points (YOLO-seg) and boxes with key points (YOLO-pose, `kpt_shape`) are read as upright boxes.

Layout as Ultralytics documents it: `train`, `val`, `test` in data.yaml name image folders, lists of
images, or several of them; labels stand in `labels/` where the images stand in `images/`, else beside them.
"""

import math
from pathlib import Path

import numpy as np
import yaml

from boxwright.data.builder import TableBuilder, as_integer, as_number, as_shape
from boxwright.data.formats.coco_results import numbers_classes
from boxwright.data.formats.files import read_lines, safe_relative, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.yolo_layout import (
    CLASSES,
    MAX_LABEL_BYTES,
    SPLITS,
    entry_images,
    find_config,
    images_below,
    label_of,
    read_config,
    root_of,
)
from boxwright.data.images import image_size
from boxwright.data.naming import join_stems
from boxwright.data.tables import Tables
from boxwright.errors import DataError, nearest
from boxwright.geometry.conventions import corners

CONFIG_KEYS = {"path", "names", "nc", "download", "channels", "roboflow", "kpt_shape", "flip_idx", *SPLITS}


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a data.yaml or a folder that holds one, or images and labels alone; with a `truth` also labels
    alone, as trainers write what they find.

    Raises:
        DataError: no names, no images, or no such split.
    """
    options.only("yolo", "list_name", "images", "truth")
    if options.truth is not None and (folder := _labels_alone(path)) is not None:
        return _read_found(folder, options.truth)
    config_file = find_config(path)
    config = read_config(config_file) if config_file else {}
    root = root_of(path, config)
    builder = TableBuilder(root.resolve().name)
    _read_names(builder, config_file, config)
    for key in config.keys() - CONFIG_KEYS:
        builder.warning("unknown-key", str(config_file), f"'{key}' is not a part of data.yaml; not read.")
    images = _find_split_images(builder, root, config, options)
    reader = _Lines(builder, bool(config.get("names")), _key_points(config_file, config))
    labels = [label_of(image) for image in images]
    for image, label in zip(images, labels):
        _read_image(builder, root, image, label, reader)
    seen = set(labels)
    if not options.list_name:
        for label in sorted((root / "labels").rglob("*.txt")):
            if label not in seen and label.name != CLASSES:
                builder.error("missing-image", str(label), "labels without an image beside them.", True)
    return reader.finish(str(root))


def _labels_alone(path: Path) -> Path | None:
    """The folder of labels of a run, which has no images but those that it has drawn on."""
    if not path.is_dir() or find_config(path) is not None or (path / "images").is_dir():
        return None
    folder = path / "labels" if (path / "labels").is_dir() else path
    return None if images_below(folder) else folder


def _read_found(folder: Path, truth: Tables) -> Tables:
    """Labels over the images of a truth, joined by their names without suffix."""
    if not numbers_classes(truth):
        raise DataError(
            f"{folder}: its classes are numbers, and those of the truth have none. Expected truth in YOLO's"
            " format."
        )
    builder = TableBuilder(folder.resolve().name)
    builder.take_over(truth)
    reader = _Lines(builder, True, 0)
    labels = {str(file.relative_to(folder).with_suffix("")): file for file in sorted(folder.rglob("*.txt"))}
    rows = join_stems(truth.images["file_name"].to_list(), list(labels))
    sizes = truth.images.select("width", "height").rows()
    for name, label in labels.items():
        row = rows.get(name)
        if row is None:
            builder.error("missing-image", str(label), "no image of the truth is called so.", True)
        elif None in sizes[row]:
            builder.error("missing-image", str(label), "the size of its image isn't known.", True)
        else:
            _read_labels(builder, label, reader, row, sizes[row])
    return reader.finish(str(folder))


def write(tables: Tables, path: Path) -> None:
    """Write labels/*.txt, the list images.txt and data.yaml, beside the folder images/.

    Where a box is oriented, all are written with their corners.

    Raises:
        DataError: an image has no size, which relative coordinates need, or no name.
    """
    _write_labels(tables, path)
    listed = "".join(f"./images/{name}\n" for name in tables.images["file_name"])
    write_atomic(path / "images.txt", listed.encode())
    _write_config(tables, path, {"train": "images.txt", "val": "images.txt"})


def write_parts(parts: dict[str, Tables], path: Path) -> None:
    """Write labels/PART/*.txt of each part, whose file names are PART/..., and one data.yaml.

    Raises:
        DataError: as `write`.
    """
    for tables in parts.values():
        _write_labels(tables, path)
    places = {name: f"images/{name}" for name in parts}
    # Other trainers want both keys.
    first = next(iter(places.values()))
    _write_config(next(iter(parts.values())), path, {"train": first, "val": first} | places)


def _write_labels(tables: Tables, path: Path) -> None:
    oriented = tables.has_angles()
    points = corners(tables.rotated()).reshape(-1, 8) if oriented else None
    rows = tables.rows_by_image()
    records = tables.boxes.to_dicts()
    stems: dict[str, str] = {}
    for row in tables.images.iter_rows(named=True):
        if row["width"] is None or row["file_name"] is None:
            raise DataError(f"{row['file_name'] or row['image_id']}: YOLO needs a file name and a size.")
        stem = str(Path(row["file_name"]).with_suffix(""))
        if stem in stems:
            raise DataError(f"{row['file_name']} and {stems[stem]} would both be labels/{stem}.txt.")
        if not safe_relative(stem):
            raise DataError(
                f"{row['file_name']}: the image isn't there, and its labels would stand elsewhere."
            )
        stems[stem] = row["file_name"]
        mine = rows[row["image_id"]]
        lines = [_line(records[n], row, None if points is None else points[n]) for n in mine]
        write_atomic(path / "labels" / f"{stem}.txt", "".join(lines).encode())


def _write_config(tables: Tables, path: Path, places: dict[str, str]) -> None:
    """No `path`: without it every trainer takes the folder of the file itself."""
    config = places | {"names": dict(enumerate(tables.categories["name"]))}
    write_atomic(path / "data.yaml", yaml.safe_dump(config, allow_unicode=True, sort_keys=False).encode())


def _line(box: dict, image: dict, points: np.ndarray | None) -> str:
    width, height = image["width"], image["height"]
    if points is not None:
        numbers = (points / ([width, height] * 4)).tolist()
    else:
        cx, cy = (box["x"] + box["w"] / 2) / width, (box["y"] + box["h"] / 2) / height
        numbers = [cx, cy, box["w"] / width, box["h"] / height]
    if box["score"] is not None:
        numbers.append(box["score"])
    return f"{box['category_id']} " + " ".join(f"{v:.17g}" for v in numbers) + "\n"


def _read_names(builder: TableBuilder, file: Path | None, config: dict) -> None:
    names = config.get("names")
    if isinstance(names, dict):
        ids = [as_integer(k) for k in names]
        if set(ids) != set(range(len(names))):
            raise DataError(f"{file}: names has the ids {list(names)!r:.80}, expected 0 to {len(names) - 1}.")
        names = [names[k] for _, k in sorted(zip(ids, names))]
    if names is None:
        builder.warning(
            "category", str(file or "no data.yaml"), "no names; class numbers are taken as names."
        )
        return
    if not isinstance(names, list) or not all(isinstance(n, str | int | float) for n in names):
        raise DataError(f"{file}: names is {names!r:.80}, expected a list of strings.")
    for n, name in enumerate(map(str, names)):
        if builder.has_category(name):
            builder.error("category", f"{file}, name {n}", f"'{name}' is a duplicate.")
            name = f"{name} ({n})"
        builder.category(name, n)
    declared = as_integer(config.get("nc"))
    if declared is not None and declared != len(names):
        builder.error("category", str(file), f"nc is {declared}, but there are {len(names)} names.")


def _find_split_images(builder: TableBuilder, root: Path, config: dict, options: ReadOptions) -> list[Path]:
    if options.images is not None:
        return images_below(options.images)
    if options.list_name and options.list_name not in config:
        raise DataError(f"{root}: no split '{options.list_name}'. {nearest(options.list_name, config)}")
    wanted = [options.list_name] if options.list_name else [s for s in SPLITS if config.get(s)]
    images: dict[Path, None] = {}
    for split in wanted:
        entries = config[split] if isinstance(config[split], list) else [config[split]]
        for entry in entries:
            found = entry_images(root, entry)
            if found is None:
                builder.warning("split", str(root), f"{split}: '{entry}' isn't there.")
            images.update(dict.fromkeys(found or []))
    if not images and not options.list_name:
        images = dict.fromkeys(images_below(root / "images") or images_below(root))
    if not images:
        raise DataError(f"{root}: no images (looked in {', '.join(wanted) or 'images/'}).")
    return list(images)


def _key_points(file: Path | None, config: dict) -> int:
    """Numbers that follow each box."""
    shape = config.get("kpt_shape", [0, 0])
    counts = [as_integer(n) for n in shape] if isinstance(shape, list) else []
    if len(counts) != 2 or any(n is None or n < 0 for n in counts):
        raise DataError(f"{file}: kpt_shape is {shape!r:.80}, expected points and numbers of each: [17, 3].")
    return math.prod(n for n in counts if n is not None)


def _read_image(builder: TableBuilder, root: Path, image: Path, label: Path, reader: "_Lines") -> None:
    name = _relative_name(root, image)
    try:
        width, height, _ = image_size(image)
    except DataError as error:
        builder.error("missing-image", name, f"{error} Its labels need its size.", True)
        return
    image_id = builder.image(name, str(image), width, height)
    if label.is_file():  # else an image of background, which the builder tells of
        _read_labels(builder, label, reader, image_id, (width, height))


def _read_labels(
    builder: TableBuilder, label: Path, reader: "_Lines", image_id: int, size: tuple[int, int]
) -> None:
    lines, clean = read_lines(label, MAX_LABEL_BYTES)
    if not clean:
        builder.warning("encoding", str(label), "bytes that are not UTF-8.")
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words:
            reader.read(f"{label}, line", number, words, image_id, size)


class _Lines:
    """Reads lines, and counts what there is beside boxes.

    Args:
        builder: takes the boxes.
        named: classes are those of the builder.
        key_points: numbers that follow each box.
    """

    def __init__(self, builder: TableBuilder, named: bool, key_points: int):
        self.builder, self.named, self.key_points = builder, named, key_points
        self.outlines = self.posed = 0

    def finish(self, place: str) -> Tables:
        """The tables: upright boxes alone where there are outlines, as some of these have four points."""
        if self.posed:
            self.builder.warning("keypoints", place, f"key points of {self.posed:,} boxes are not read.")
        if self.outlines:
            self.builder.warning("outline", place, f"{self.outlines:,} outlines are taken as upright boxes.")
        tables = self.builder.build()
        return tables.without_angles() if self.outlines else tables

    def read(self, where: str, number: int, words: list[str], image_id: int, size: tuple[int, int]) -> None:
        """Read the words of a line."""
        place, builder = f"{where} {number}", self.builder
        category = as_integer(words[0])
        if self.key_points and len(words) == 5 + self.key_points:
            words, self.posed = words[:5], self.posed + 1
        outline = len(words) > 10 and len(words) % 2 == 1
        count = len(words) - 1 if outline else 8 if len(words) > 6 else 4
        shape = as_shape(words[1 : count + 1], count)
        scored = len(words) == count + 2
        score = as_number(words[-1]) if scored else None
        if len(words) - count not in (1, 2) or shape is None or (scored and score is None):
            expected = "class cx cy w h [score], or class x1 y1 ... y4 [score]"
            builder.error("bbox", place, f"'{' '.join(words):.60}', expected: {expected}.", True)
            return
        if category is None or category < 0 or (self.named and category >= len(builder.categories)):
            expected = f"expected 0 to {len(builder.categories) - 1}"
            builder.error("category-id", place, f"class {words[0]}, {expected}.", True)
            return
        category_id = category if self.named else builder.category(str(category), category)
        shape = tuple(v * s for v, s in zip(shape, size * (count // 2)))
        if outline:
            self.outlines += 1
            (x0, x1), (y0, y1) = ((min(v), max(v)) for v in (shape[0::2], shape[1::2]))
            shape = (x0, y0, x1 - x0, y1 - y0)
        elif count == 4:
            cx, cy, w, h = shape
            shape = (cx - w / 2, cy - h / 2, w, h)
        builder.box((where, number), image_id, category_id, shape, score=score)


def _relative_name(root: Path, image: Path) -> str:
    """The name below `images/`, as the labels have it."""
    for base in (root / "images", root):
        if image.is_relative_to(base):
            return str(image.relative_to(base))
    return image.name
