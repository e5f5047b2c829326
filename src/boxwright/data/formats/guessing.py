"""Which format a path has: by suffix, by how a file begins, by what a folder holds."""

import os
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from boxwright.data.formats import (
    bdd100k,
    cvat,
    dota,
    fiftyone,
    imagefolder,
    markers,
    mot,
    parts,
    supervisely,
    text,
    via,
    visdrone,
    voc,
    wider,
)
from boxwright.data.formats.files import GZIP_MAGIC
from boxwright.data.formats.yolo_layout import first_lines, has_labels
from boxwright.errors import DataError

START = 4096  # bytes of a file that are looked at
SUFFIXES = {".parquet": "parquet", ".odgt": "odgt", ".yaml": "yolo", ".yml": "yolo"}


def guess_format(path: str | os.PathLike) -> str:
    """The format of a path: by suffix, by how the file begins, by what a folder holds.

    Raises:
        DataError: nothing fits.
    """
    name = guess_or_none(Path(path))
    if name is None:
        raise DataError(f"{path}: can't tell its format; say it with --format. See `boxwright data formats`.")
    return name


def guess_or_none(path: Path) -> str | None:
    """As `guess_format`, None where nothing fits."""
    if path.is_file():
        return _guess_file(path)
    return _guess_folder(path) if path.is_dir() else None


def _guess_file(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return "cvat" if b"<annotations" in _start(path) else None
    if suffix == ".csv":
        return "via" if b"region_shape_attributes" in _start(path) else "csv"
    if suffix == ".jsonl":
        return "imagefolder"
    if suffix == ".txt":
        start = _start(path)
        return "wider" if wider.is_wider(start) else "mot" if mot.is_mot(start) else "text"
    if suffix in (".json", ".gz"):
        return _guess_json(path, _start(path))
    return SUFFIXES.get(suffix)


def _guess_json(path: Path, start: bytes) -> str | None:
    """By keys that others don't have, as far as they stand near the beginning."""
    if markers.NAME.encode() in start:
        return "markers"
    if start[:1] == b"[":
        if b'"rectanglelabels"' in start or (b'"data"' in start and b'"annotations"' in start):
            return "labelstudio"
        if b'"coordinates"' in start or (b'"annotations"' in start and b'"image"' in start):
            return "createml"
        return "bdd100k" if bdd100k.is_bdd100k(start) else "coco-results"
    if b'"shapes"' in start:
        return "labelme"
    if via.is_via(start):
        return "via"
    if path.name in (fiftyone.LABELS, fiftyone.SAMPLES) and b'"annotations"' not in start:
        return "fiftyone"
    if b'"frames"' in start and bdd100k.is_bdd100k(start):
        return "bdd100k"
    # Notes of an export, say: a whole file with neither.
    other = len(start) < START // 2 and b'"images"' not in start and b'"annotations"' not in start
    return None if other else "coco"


def _guess_folder(path: Path) -> str | None:
    """By the names of folders and files; those that others have too stand last."""
    checks: dict[str, Callable[[], Any]] = {
        "parts": lambda: parts.is_parts(path),
        "supervisely": lambda: supervisely.is_supervisely(path),
        "fiftyone": lambda: fiftyone.is_fiftyone(path),
        "imagefolder": lambda: imagefolder.is_imagefolder(path),
        "mot": lambda: mot.is_mot_folder(path),
        "cvat": lambda: (path / cvat.EXPORT).is_file() and _guess_file(path / cvat.EXPORT) == "cvat",
        "kitti": lambda: (path / "label_2").is_dir() or path.name == "label_2",
        "voc": lambda: voc.is_voc(path),
        "dota": lambda: any((path / name).is_dir() for name in dota.FOLDERS),
        "dota-results": lambda: next(path.glob(f"{dota.TASK}*.txt"), None),
        "visdrone": lambda: visdrone.is_visdrone(path),
        "yolo": lambda: has_labels(path),
        "text": lambda: any(map(text.is_text, first_lines(path))),
        "labelme": lambda: any(_guess_file(f) == "labelme" for f in islice(path.glob("*.json"), 1)),
    }
    return next((name for name, fits in checks.items() if fits()), None)


def _start(path: Path) -> bytes:
    """The first characters of a file that mean anything."""
    with path.open("rb") as file:
        start = file.read(START)
    if start[:2] == GZIP_MAGIC:
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, START)
        except zlib.error as error:
            raise DataError(f"{path}: damaged gzip: {error}.") from error
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()
