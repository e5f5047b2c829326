"""Readers and writers of annotation formats: one file each, found by name in the dicts below."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

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
from boxwright.data.formats.finding import WHOLE, Source, find_named, find_sources
from boxwright.data.formats.guessing import guess_format as guess_format
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import FOLDERS, Placing, place_images
from boxwright.data.tables import Fault, Tables, concat
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
OF_TRUTH = ("coco-results", "dota-results", "yolo")  # which may be read over the images of a truth
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
        path: a file or folder; where a folder has no format of its own, the files and folders in it that are
            called train, val and the like are read together, or the one that holds labels.
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
    if format is not None and format not in READERS:
        raise ConfigError(f"format '{format}' is unknown. {nearest(format, READERS)}")
    sources = [Source(place, format)] if format else find_sources(place)
    parts = [READERS[source.format](source.root, options or ReadOptions()) for source in sources]
    whole = concat([_below(place, part) for part in parts]) if len(parts) > 1 else parts[0]
    left = _left(sources)
    return replace(whole, faults=(*whole.faults, *left)) if left else whole


def read_parts(
    path: str | os.PathLike, format: str | None = None, options: ReadOptions | None = None
) -> dict[str, Tables]:
    """Read the parts of a data set apart, over one list of categories, by their names: train, val and the
    like; its only one is named "".

    Args:
        path: a file or folder.
        format: a key of `READERS`; None: told from the path. Only VOC and YOLO have parts in one folder.
        options: as for `read`, without a list.

    Raises:
        DataError: nothing can be read there.
    """
    named, own = _named(Path(path), format), options or ReadOptions()
    parts = [READERS[s.format](s.root, replace(own, list_name=s.list_name)) for s in named.values()]
    whole = concat(parts)
    part = np.repeat(np.arange(len(parts)), [len(tables.images) for tables in parts])
    return {
        name: replace(whole.select_images(part == n), faults=parts[n].faults) for n, name in enumerate(named)
    }


def part_names(path: str | os.PathLike, format: str | None = None) -> list[str]:
    """The names that `read_parts` gives, before anything is read."""
    return list(_named(Path(path), format))


def _named(place: Path, format: str | None) -> dict[str, Source]:
    if not place.exists():
        raise DataError(f"{place}: no such file or folder.")
    return find_named(place, format) if format in (None, "voc", "yolo") else {WHOLE: Source(place, format)}


def _left(sources: Sequence[Source]) -> list[Fault]:
    """Files of labels that weren't read."""
    message = "read, and not what stands beside it: {}."
    return [
        Fault("other-labels", "warning", str(s.root), message.format(", ".join(s.beside)))
        for s in sources
        if s.beside
    ]


def _below(place: Path, part: Tables) -> Tables:
    """With names of images that tell those of several parts apart, from `place` on."""
    names = [
        name if path is None else Path(os.path.relpath(path, place)).as_posix()
        for name, path in part.images.select("file_name", "path").rows()
    ]
    return replace(part, images=part.images.with_columns(file_name=pl.Series(names, dtype=pl.String)))


def write(
    tables: Tables, path: str | os.PathLike, format: str | None = None, images: Placing | None = None
) -> None:
    """Write tables in any known format, so that they can be read there without further options.

    Args:
        tables: from any reader.
        path: a file or folder.
        format: a key of `WRITERS`; None: by suffix, see `format_of_suffix`.
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


def format_of_suffix(tables: Tables, path: str | os.PathLike) -> str:
    """The format that `write` takes for a path: .parquet, .odgt, or .json, which is COCO with angles where a
    box has one, else COCO's results where every box has a score, else COCO.

    Raises:
        ConfigError: none is known by that suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        if tables.has_angles():
            return "coco-angle"
        scored = len(tables.boxes) == 0 or tables.boxes["score"].null_count() == 0
        return "coco-results" if scored else "coco"
    if suffix in (".parquet", ".odgt"):
        return suffix[1:]
    raise ConfigError(
        f"{path}: can't tell a format from '{suffix}'. Expected .parquet, .json or .odgt, or a format."
    )
