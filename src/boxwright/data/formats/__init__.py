"""Readers and writers of annotation formats: one file each, found by name in the dicts below."""

import os
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from boxwright.data.formats import (
    bdd100k,
    citypersons,
    coco,
    coco_results,
    createml,
    csv_boxes,
    cvat,
    dota,
    eurocity,
    fiftyone,
    imagefolder,
    kitti,
    labelme,
    labelstudio,
    markers,
    mot,
    odgt,
    parquet,
    parts,
    supervisely,
    text,
    via,
    visdrone,
    voc,
    wider,
    yolo,
)
from boxwright.data.formats.files import GZIP_MAGIC
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import FOLDERS, Placing, place_images
from boxwright.data.formats.yolo_layout import has_labels as has_yolo_labels
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError, nearest
from boxwright.progress import progress_bar

READERS: dict[str, Callable[[Path, ReadOptions], Tables]] = {
    "parquet": parquet.read,
    "parts": parts.read,
    "coco": coco.read,
    "coco-angle": coco.read,
    "coco-results": coco_results.read,
    "voc": voc.read,
    "yolo": yolo.read,
    "dota": dota.read,
    "dota-results": dota.read_results,
    "markers": markers.read,
    "odgt": odgt.read,
    "citypersons": citypersons.read,
    "eurocity": eurocity.read,
    "text": text.read,
    "cvat": cvat.read,
    "labelme": labelme.read,
    "labelstudio": labelstudio.read,
    "via": via.read,
    "supervisely": supervisely.read,
    "createml": createml.read,
    "csv": csv_boxes.read,
    "kitti": kitti.read,
    "visdrone": visdrone.read,
    "bdd100k": bdd100k.read,
    "imagefolder": imagefolder.read,
    "fiftyone": fiftyone.read,
    "wider": wider.read,
    "mot": mot.read,
}
WRITERS: dict[str, Callable[[Tables, Path], None]] = {
    "parquet": parquet.write,
    "coco": coco.write,
    "coco-angle": coco.write_oriented,
    "coco-results": coco_results.write,
    "voc": voc.write,
    "yolo": yolo.write,
    "dota": dota.write,
    "dota-results": dota.write_results,
    "markers": markers.write,
    "odgt": odgt.write,
    "citypersons": citypersons.write,
    "eurocity": eurocity.write,
    "text": text.write,
    "cvat": cvat.write,
    "labelme": labelme.write,
    "labelstudio": labelstudio.write,
    "via": via.write,
    "fiftyone": fiftyone.write,
    "wider": wider.write,
    "mot": mot.write,
}


def read(path: str | os.PathLike, format: str | None = None, options: ReadOptions | None = None) -> Tables:
    """Read tables from any known format.

    Args:
        path: a file or folder.
        format: a key of `READERS`; None: told from the path, see `guess_format`.
        options: what the format should know beyond the path.

    Returns:
        The tables, with every fault met on the way in `faults`.

    Raises:
        DataError: nothing can be read there.
        ConfigError: an unknown format, or an option it doesn't take.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"{place}: no such file or folder.")
    name = format or guess_format(place)
    if name not in READERS:
        raise ConfigError(f"format '{name}' is unknown. {nearest(name, READERS)}")
    return READERS[name](place, options or ReadOptions())


def write(
    tables: Tables, path: str | os.PathLike, format: str | None = None, images: Placing | None = None
) -> None:
    """Write tables in any known format, so that they can be read there without further options.

    Args:
        tables: from any reader.
        path: a file or folder.
        format: a key of `WRITERS`; None: by suffix: .parquet, .odgt, or .json (results where every box has a
            score, else truth).
        images: put the images into the format's own layout, as copies or links; None: refer to them where
            they are, or link them where the format can't.

    Raises:
        DataError: the format can't hold these tables.
        ConfigError: an unknown format or suffix.
    """
    place = Path(path)
    name = format or format_of_suffix(tables, place)
    if name not in WRITERS:
        raise ConfigError(f"format '{name}' is unknown. {nearest(name, WRITERS)}")
    total = len(tables.images) if images or name in FOLDERS or name == "mot" else 0
    with progress_bar(f"put images into {place}", total) as tell:
        placed = place_images(tables, name, place, images, tell=tell)
    WRITERS[name](placed, place)


def guess_format(path: str | os.PathLike) -> str:
    """The format of a path: by suffix, by how the file begins, by what a folder holds.

    Raises:
        DataError: nothing fits.
    """
    path = Path(path)
    if path.is_file():
        name = _guess_file(path)
    else:
        name = _guess_folder(path) if path.is_dir() else None
    if name is None:
        raise DataError(f"{path}: can't tell its format; say it with --format. {nearest('', READERS)}")
    return name


START = 4096  # bytes of a file that are looked at
SUFFIXES = {".parquet": "parquet", ".odgt": "odgt", ".yaml": "yolo", ".yml": "yolo"}


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
    whole = len(start) < START // 2  # notes of an export, say, which names no image
    return None if whole and b'"images"' not in start and start[:1] == b"{" else "coco"


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
        "yolo": lambda: has_yolo_labels(path),
        "text": lambda: any(_guess_file(f) == "text" for f in islice(path.glob("*.txt"), 1)),
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


def format_of_suffix(tables: Tables, path: str | os.PathLike) -> str:
    """The format that `write` takes for a path.

    Raises:
        ConfigError: none is known by that suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        scored = len(tables.boxes) == 0 or tables.boxes["score"].null_count() == 0
        return "coco-results" if scored else "coco"
    if suffix in (".parquet", ".odgt"):
        return suffix[1:]
    raise ConfigError(
        f"{path}: can't tell a format from '{suffix}'. Expected .parquet, .json or .odgt, or a format."
    )
