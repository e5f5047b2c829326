"""Where YOLO's data lie: their data.yaml or what stands for it, images, and the labels of each."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from boxwright.data.builder import as_integer, as_number
from boxwright.data.formats.files import read_bytes, read_lines, safe_relative
from boxwright.data.images import IMAGE_SUFFIXES
from boxwright.errors import DataError

MAX_YAML_BYTES = 4 << 20
MAX_LABEL_BYTES = 64 << 20
SPLITS = ("train", "val", "test")
CLASSES = "classes.txt"
STANDS_FOR = ("*.data", CLASSES, f"labels/{CLASSES}", "*.names")  # a data.yaml, best first
LOOKED_AT = 20  # label files, to tell that numbers are shares


def find_config(path: Path) -> Path | None:
    """The data.yaml of a folder, obj.data or list of names, or what is one itself; None: a folder without."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder.")
    preferred = path / "data.yaml"
    found = [preferred] if preferred.is_file() else sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    found = found or [file for name in STANDS_FOR for file in sorted(path.glob(name))]
    return found[0] if found else None


def read_config(file: Path) -> dict[str, Any]:
    """The keys of a data.yaml, or those that Darknet's files stand for.

    Raises:
        DataError: it isn't YAML of keys.
    """
    if file.name == CLASSES or file.suffix == ".names":
        return {"names": _lines(file)}
    if file.suffix == ".data":
        return _read_darknet(file)
    try:
        config = yaml.safe_load(read_bytes(file, MAX_YAML_BYTES))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not usable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(config, dict):
        raise DataError(f"{file}: a {type(config).__name__}, expected keys such as names, train, val.")
    return config


def root_of(path: Path, config: dict[str, Any]) -> Path:
    """What the places of a data.yaml are relative to; `path` is the file, or its folder."""
    root = path.parent if path.is_file() else path
    given = config.get("path")
    return root / given if isinstance(given, str) and (root / given).is_dir() else root


def has_labels(path: Path) -> bool:
    """Whether a folder is one of YOLO's: by a file of its names, by labels/, or by labels beside images,
    whose numbers are shares.
    """
    patterns = ("*.yaml", "*.data", CLASSES, "labels/**/*.txt")
    return any(next(path.glob(pattern), None) for pattern in patterns) or any(
        map(_is_shares, first_lines(path))
    )


def split_images(file: Path, config: dict, split: str) -> list[Path]:
    """The images of a split of a data.yaml; none where its places aren't there."""
    root = root_of(file, config)
    entries = config[split] if isinstance(config[split], list) else [config[split]]
    return [image for entry in entries for image in entry_images(root, entry) or []]


def entry_images(root: Path, entry: Any) -> list[Path] | None:
    """The images of a folder or list that a split names; None: it isn't there."""
    try:
        place = _place(root, str(entry))
        if place.is_dir():
            return images_below(place)
        if place.suffix == ".txt" and place.is_file():
            listed = [line.strip() for line in read_lines(place, MAX_LABEL_BYTES)[0] if line.strip()]
            if listed and _place(root, listed[0]) != root / listed[0]:
                listed = [line.partition("/")[2] for line in listed]
            return [root / line for line in listed]
    except (OSError, ValueError):
        return None
    return None


def images_below(folder: Path) -> list[Path]:
    """All images of a folder and its folders, in order."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)


def label_of(image: Path) -> Path:
    """The labels of an image: under `labels` where it is under `images`, else beside it."""
    parts, beside = list(image.parts), image.with_suffix(".txt")
    for n in range(len(parts) - 2, -1, -1):
        if parts[n] == "images":
            parts[n] = "labels"
            label = Path(*parts).with_suffix(".txt")
            return beside if beside.is_file() and not label.is_file() else label
    return beside


def _place(root: Path, entry: str) -> Path:
    """What an entry names, without its first folder where that isn't there: Roboflow writes
    ../train/images for train/images, and Darknet data/train.txt for train.txt.
    """
    place, short = root / entry, entry.partition("/")[2]
    return root / short if short and not place.exists() and (root / short).exists() else place


def _read_darknet(file: Path) -> dict[str, Any]:
    """`train = data/train.txt` and the like; the folder above is `data` wherever it lies."""
    pairs = (line.partition("=") for line in _lines(file) if "=" in line)
    told = {key.strip(): value.strip() for key, _, value in pairs}
    config: dict[str, Any] = {
        split: told[key] for split, key in (*zip(SPLITS, SPLITS), ("val", "valid")) if key in told
    }
    listed = told.get("names", "")
    names = _place(file.parent, listed)
    return config | ({"names": _lines(names)} if safe_relative(listed) and names.is_file() else {})


def _lines(file: Path) -> list[str]:
    lines, _ = read_lines(file, MAX_YAML_BYTES)
    return [line.strip() for line in lines if line.strip()]


def first_lines(folder: Path) -> Iterator[str]:
    """How the first .txt files of a folder begin that aren't empty, as those of background are."""
    lines = (_first_line(file) for file in sorted(folder.glob("*.txt")))
    return islice(filter(None, lines), LOOKED_AT)


def _first_line(file: Path) -> str:
    with file.open("rb") as opened:
        return opened.readline(1000).decode(errors="replace").strip()


def _is_shares(line: str) -> bool:
    category, *values = line.split()
    numbers = [as_number(value) for value in values]
    shares = all(n is not None and 0 <= n <= 1 for n in numbers)
    return as_integer(category) is not None and len(numbers) in (4, 5, 8, 9) and shares
