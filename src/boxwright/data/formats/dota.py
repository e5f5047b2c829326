"""DOTA labelTxt: a text file an image, `x1 y1 x2 y2 x3 y3 x4 y4 class difficult` a line; and merged results.

Xia et al., DOTA: A Large-scale Dataset for Object Detection in Aerial Images, CVPR 2018. Header lines
(`imagesource:GoogleEarth`, `gsd:0.146`) become attributes of the image. Results are one file a class,
`Task1_plane.txt`, with `image score x1 y1 ... y4` a line.
"""

from pathlib import Path

import numpy as np

from boxwright.data.builder import TableBuilder, as_flag, as_number, as_shape, unpack
from boxwright.data.formats.files import read_lines, safe_relative, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.images import IMAGE_SUFFIXES, image_size
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.geometry.conventions import corners

MAX_BYTES = 256 << 20
HEADERS = ("imagesource", "gsd", "acquisition dates")
FOLDERS = ("labelTxt", "labelTxt-v1.0", "labelTxt-v1.5", "labelTxt-v2.0")
TASK = "Task1_"


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a folder that holds labelTxt/ and images/, or a folder of label files.

    Raises:
        DataError: no label files there.
    """
    options.only("dota", "images")
    if not path.is_dir():
        raise DataError(f"{path}: {'a file' if path.exists() else 'no such folder'}, expected a DOTA folder.")
    folder = next((path / name for name in FOLDERS if (path / name).is_dir()), path)
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError(f"{folder}: no label file.")
    root = path if folder != path else path.parent
    images = _images_by_stem([options.images] if options.images else [root / "images", path])
    builder = TableBuilder(root.resolve().name)
    for file in files:
        _read_file(builder, file, images.get(file.stem))
    return builder.build()


def read_results(path: Path, options: ReadOptions) -> Tables:
    """Read a folder of Task1_*.txt, or one of them.

    Raises:
        DataError: no such files there.
    """
    options.only("dota-results", "truth")
    files = sorted(path.glob(f"{TASK}*.txt")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no {TASK}*.txt.")
    builder = TableBuilder(path.stem)
    image_of = {}
    for row in options.truth.images.iter_rows(named=True) if options.truth is not None else ():
        stem = Path(row["file_name"] or "").stem
        image_of[stem] = builder.image(row["file_name"], row["path"], row["width"], row["height"])
    for file in files:
        category = builder.category(file.stem.removeprefix(TASK))
        for number, words in _lines(builder, file):
            place = f"{file}, line {number}"
            score, quad = as_number(words[1]) if len(words) == 10 else None, as_shape(words[2:], 8)
            if score is None or quad is None:
                builder.error(
                    "bbox", place, f"'{' '.join(words):.80}', expected: image score x1 y1 ... y4.", True
                )
                continue
            if words[0] not in image_of:
                image_of[words[0]] = builder.image(words[0])
            builder.box((f"{file}, line", number), image_of[words[0]], category, quad, score=score)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write labelTxt/*.txt; images are referred to by name, not copied.

    Raises:
        DataError: two images would share a file, or a category has a space in its name.
    """
    names = _class_names(tables)
    boxes = tables.boxes
    lines = [
        f"{_quad(points)} {names[category]} {int(difficult)}\n"
        for points, category, difficult in zip(
            corners(tables.rotated()), boxes["category_id"], boxes["difficult"]
        )
    ]
    stems: dict[str, str] = {}
    rows = tables.rows_by_image()
    for row in tables.images.iter_rows(named=True):
        name = row["file_name"] or f"{row['image_id']:06d}.png"
        stem = Path(name).stem
        if stem in stems:
            raise DataError(f"{name} and {stems[stem]} would both be labelTxt/{stem}.txt.")
        stems[stem] = name
        extra = unpack(row["attributes"])
        head = [f"{key}:{extra[key]}\n" for key in HEADERS if key in extra]
        mine = [lines[n] for n in rows[row["image_id"]]]
        write_atomic(path / "labelTxt" / f"{stem}.txt", "".join(head + mine).encode())


def write_results(tables: Tables, path: Path) -> None:
    """Write Task1_CLASS.txt of every category.

    Raises:
        DataError: a box has no score, or a category has a space in its name.
    """
    missing = tables.boxes["score"].null_count()
    if missing:
        raise DataError(f"{path}: {missing:,} boxes have no score; truth is written as format 'dota'.")
    files: list[list[str]] = [[] for _ in range(len(tables.categories))]
    stems = [Path(n or str(i)).stem for i, n in zip(tables.images["image_id"], tables.images["file_name"])]
    boxes = tables.boxes
    for points, image, category, score in zip(
        corners(tables.rotated()), boxes["image_id"], boxes["category_id"], boxes["score"]
    ):
        files[category].append(f"{stems[image]} {score:.9g} {_quad(points)}\n")
    for name, lines in zip(_class_names(tables), files):
        write_atomic(path / f"{TASK}{name}.txt", "".join(lines).encode())


def _read_file(builder: TableBuilder, file: Path, image: Path | None) -> None:
    attributes, rows = {}, []
    for number, words in _lines(builder, file):
        key, colon, value = " ".join(words).partition(":")
        if colon and key.strip() in HEADERS:
            attributes[key.strip()] = as_number(value) if key == "gsd" and as_number(value) else value.strip()
        else:
            rows.append((number, words))
    width = height = None
    if image is not None:
        try:
            width, height, _ = image_size(image)
        except DataError as error:
            builder.error("image", str(file), str(error))
    name = image.name if image is not None else f"{file.stem}.png"
    image_id = builder.image(name, str(image) if image else None, width, height, attributes=attributes)
    for number, words in rows:
        place = f"{file}, line {number}"
        quad = as_shape(words[:8], 8)
        difficult = as_flag(words[9]) if len(words) == 10 else False
        if quad is None or len(words) not in (9, 10):
            found = f"'{' '.join(words):.80}'"
            builder.error("bbox", place, f"{found}, expected: x1 y1 ... y4 class [difficult].", True)
            continue
        if difficult is None:
            builder.error("flag", place, f"difficult is '{words[9]}', expected 0 or 1.")
        category = builder.category(words[8])
        builder.box((f"{file}, line", number), image_id, category, quad, difficult=bool(difficult))


def _lines(builder: TableBuilder, file: Path) -> list[tuple[int, list[str]]]:
    lines, clean = read_lines(file, MAX_BYTES)
    if not clean:
        builder.warning("encoding", str(file), "bytes that are not UTF-8.")
    return [(n, line.split()) for n, line in enumerate(lines, 1) if line.strip()]


def _images_by_stem(folders: list[Path]) -> dict[str, Path]:
    found = (p for folder in folders if folder.is_dir() for p in folder.iterdir())
    return {p.stem: p for p in sorted(found) if p.suffix.lower() in IMAGE_SUFFIXES}


def _class_names(tables: Tables) -> list[str]:
    names = tables.categories["name"].to_list()
    for name in names:
        if len(name.split()) != 1 or "/" in name or not safe_relative(name):
            raise DataError(f"category '{name}': DOTA's class names are one word.")
    return names


def _quad(points: np.ndarray) -> str:
    return " ".join(f"{v:.9g}" for v in points.ravel())
