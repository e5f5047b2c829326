"""`boxwright init`: from a folder of images and labels to an experiment that can be trained."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.config import load_config
from boxwright.data import formats
from boxwright.data.formats.files import write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.yolo_layout import find_config, read_config, split_images
from boxwright.data.sources import concat
from boxwright.data.splitting import split, write_split
from boxwright.data.suggesting import shorter_sides, write_experiment
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError

TRAIN, VAL = ("train", "training", "trainval"), ("val", "valid", "validation", "test", "testing")
FEW = 20  # boxes of a class, below which it is hardly learnt
DATA_ENDS = (".json", ".odgt", ".parquet", ".csv", ".jsonl", ".gz", "bbx_gt.txt")
# In names of files beside those that have the boxes, as COCO's captions have none.
OTHER_TASKS = re.compile("caption|keypoint|panoptic|stuff|image_info")
DEPTH, FOLDERS = 3, 200  # of folders that are looked through, where the one given holds no labels itself


@dataclass(frozen=True)
class Source:
    """What a config says of a source: its root, format and list; and files of labels that stand beside it."""

    root: Path
    format: str
    list_name: str | None = None
    beside: tuple[str, ...] = ()

    def read(self, options: ReadOptions) -> Tables:
        """Its tables."""
        changed = {name: getattr(options, name) for name in ("images", "boxes", "layout", "angles")}
        return formats.read(self.root, self.format, ReadOptions(self.list_name, **changed))

    def to_config(self, options: ReadOptions) -> dict[str, Any]:
        """As an experiment has it; paths are whole, so that it runs from any folder."""
        values = {"root": str(self.root.resolve()), "format": self.format, "list": self.list_name}
        values |= {"images": str(options.images.resolve()) if options.images else None}
        values |= {name: getattr(options, name) for name in ("boxes", "layout", "angles")}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Draft:
    """An experiment that was written.

    Attributes:
        path: of the YAML file.
        found: sentences on the data, for a person.
        train, val: the tables.
        split: the folder of a split that was made, where the data had none.
    """

    path: Path
    found: list[str]
    train: Tables
    val: Tables
    split: Path | None


def init(
    data: str | os.PathLike,
    output: str | os.PathLike | None = None,
    format: str | None = None,
    options: ReadOptions | None = None,
    val_share: float = 0.2,
    seed: int = 0,
    labels: str | None = None,
) -> Draft:
    """Look at a data set and write an experiment for it.

    Args:
        data: a file or folder of any format. A folder with a part to train on and one to judge by is taken
            so, another is split at random.
        output: the YAML file; None: the data's name in the working directory.
        format: of the data; None: told from the path.
        options: as for `formats.read`; with a list, that list is split.
        val_share: of the images, to judge by, where there is no such part.
        seed: of the split.
        labels: a part of the names of the files that hold the labels, where a folder has several.

    Raises:
        DataError: nothing can be read there, or there is nothing to learn.
        ConfigError: the file to write is there already.

    Example:
        >>> boxwright.init("labels.json").path
    """
    place, options = Path(data), options or ReadOptions()
    name = re.sub(r"[^\w.-]+", "-", place.resolve().name)
    target = Path(output) if output else Path(f"{name.split('.')[0] or 'experiment'}.yaml")
    if target.exists():
        raise ConfigError(f"{target} is there already; -o FILE writes another.")
    train, val = find_parts(place, format, options.list_name, labels)
    tables, made, beside = train.read(options), None, train.beside
    if val is None:
        count = len(tables.images)
        if count < 2:
            raise DataError(
                f"{place}: {count} image, expected two at least: one to train on, one to judge by."
            )
        made = target.parent / f"{target.stem}-split"
        share = min(max(val_share, 1 / count), 1 - 1 / count)
        parts = split(tables, {"train": 1 - share, "val": share}, seed)
        written = write_split(parts, made, "parquet")
        train, val = (Source(written[part], "parquet") for part in ("train", "val"))
        tables, val_tables, options = parts["train"], parts["val"], ReadOptions()
    else:
        val_tables = val.read(options)
    if not len(tables.boxes):
        raise DataError(f"{train.root}: no box in {len(tables.images):,} images, nothing to learn from.")
    both = concat([tables, val_tables])
    found = describe(both, tables, val_tables, made)
    if beside:
        taken = " and ".join(dict.fromkeys(source.root.name for source in (train, val)))
        found.append(f"Labels of {taken} are taken; --labels takes others: {', '.join(beside)}.")
    learnt = both.categories["name"].gather(both.boxes["category_id"].unique().sort()).to_list()
    text = write_experiment(train.to_config(options), val.to_config(options), tables, learnt, found)
    write_atomic(target, text.encode())
    load_config(target)
    return Draft(target, found, tables, val_tables, made)


def find_parts(
    place: Path, format: str | None, list_name: str | None, labels: str | None = None
) -> tuple[Source, Source | None]:
    """What to train on, and what to judge by where the data says so.

    Args:
        place: a file or folder.
        format: of it; None: told from the path.
        list_name: of VOC or YOLO, what to train on.
        labels: in the names of the files to take, where there are several.

    Raises:
        DataError: nothing there is of a known format, or several files may be meant.
    """
    if not place.exists():
        raise DataError(f"{place}: no such file or folder.")
    if list_name is not None or (place.is_file() and place.suffix not in (".yaml", ".yml")):
        return Source(place, format or formats.guess_format(place), list_name), None
    pairs = (None if labels else _listed(place, format)) or _named(place, format, labels)
    if pairs is not None:
        return pairs
    if format is None or labels:
        files = [f for f in _files(place, labels) if _guess(f) is not None] if place.is_dir() else []
        if len(files) == 1:
            return Source(files[0], format or formats.guess_format(files[0])), None
        if labels or (files and _guess(place) is None):
            names = ", ".join(f.name for f in files[:5]) or f"none with '{labels}' in its name"
            raise DataError(f"{place}: which of its files holds the labels: {names}? --labels says it.")
        inner = _inner(place) if _guess(place) is None else []
        if len(inner) > 1:
            names = ", ".join(f"{p.relative_to(place)}" for p in inner[:5])
            raise DataError(f"{place}: which of its folders: {names}? Expected one of them.")
        if inner:
            return find_parts(inner[0], format, list_name)
    return Source(place, format or formats.guess_format(place)), None


def describe(both: Tables, train: Tables, val: Tables, made: Path | None) -> list[str]:
    """What a person should know of the data before training on it."""
    counts = np.bincount(both.boxes["category_id"].to_numpy(), minlength=len(both.categories))
    classes = sorted(zip(both.categories["name"], counts.tolist()), key=lambda pair: -pair[1])
    listed = ", ".join(f"{name} ({count:,})" for name, count in classes[:12])
    more = f" and {len(classes) - 12} more" if len(classes) > 12 else ""
    found = [
        f"{len(both.images):,} images with {len(both.boxes):,} boxes of {len(classes)} classes: "
        f"{listed}{more}.",
        f"{len(train.images):,} images to train on, {len(val.images):,} to judge by"
        + (f"; split at random into {made}." if made else ", as the data has it."),
    ]
    rare = [name for name, count in classes if 0 < count < FEW]
    if rare:
        found.append(f"Hardly learnt from fewer than {FEW} boxes: {', '.join(rare)}.")
    oriented = both.boxes["angle"].is_not_null()
    if oriented.any():
        found.append(
            f"{int(oriented.sum()):,} boxes are oriented{', with headings' if both.has_headings() else ''}."
        )
    places = [p or name for p, name in both.images.select("path", "file_name").rows()]
    missing = [place for place in places if not os.path.isfile(place)]
    if missing:
        found.append(
            f"{len(missing):,} images aren't where the labels say, first {missing[0]}: training stops there."
        )
    sides = shorter_sides(both)
    if len(sides):
        low, middle = np.percentile(sides, [10, 50])
        found.append(
            f"The shorter side of an object is {middle:.0f} px in the median, {low:.0f} px in a tenth."
        )
    dropped = [f for f in both.faults if f.severity == "error"]
    if dropped:
        found.append(f"{len(dropped):,} faults, first: {dropped[0]} See boxwright data check.")
    return found


def _listed(place: Path, format: str | None) -> tuple[Source, Source] | None:
    """The lists or splits of one data set of VOC or YOLO."""
    name = format or _guess(place)
    if name == "voc":
        devkit = [p for p in place.iterdir() if (p / "ImageSets" / "Main").is_dir()]
        place = devkit[0] if len(devkit) == 1 else place
        lists = [p.stem for p in (place / "ImageSets" / "Main").glob("*.txt")]
    elif name == "yolo":
        file = find_config(place)
        config = read_config(file) if file else {}
        found = {part: split_images(file, config, part) for part in (*TRAIN, *VAL) if file and part in config}
        lists = [part for part, images in found.items() if images]
        if len({tuple(found[part]) for part in lists}) < len(lists):
            lists = []  # one folder under two names
    else:
        return None
    return _pair({part: Source(place, name, part) for part in lists})


def _named(place: Path, format: str | None, labels: str | None) -> tuple[Source, Source] | None:
    """Files or folders of one data set that are called train, val and the like."""
    parts: dict[str, list[Source]] = {}
    if place.is_dir():
        folders = [] if labels else sorted(p for p in place.iterdir() if p.is_dir())
        for path in [*_files(place, labels), *folders]:
            words = re.split(r"[^a-z]+", path.name.lower())
            part = next((w for w in words if w in (*TRAIN, *VAL)), None)
            if part is None and path.parent.name.lower() in (*TRAIN, *VAL):
                part = path.parent.name.lower()
            known = format or (_guess(path) if part else None)
            if part is not None and known is not None:
                parts.setdefault(part, []).append(Source(path, known))
    return _pair({part: _first(sources) for part, sources in parts.items()})


def _first(sources: list[Source]) -> Source:
    """The first of a part that may have its boxes, and what stands beside it."""
    files = [s for s in sources if s.root.is_file()]
    first, *others = sorted(files, key=lambda s: bool(OTHER_TASKS.search(s.root.name))) or sources[:1]
    return replace(first, beside=tuple(other.root.name for other in others))


def _pair(parts: dict[str, Source]) -> tuple[Source, Source] | None:
    order = ("trainval", *TRAIN) if "val" not in parts and "valid" not in parts else TRAIN
    train = next((parts[n] for n in order if n in parts), None)
    val = next((parts[n] for n in VAL if n in parts), None)
    return None if train is None or val is None else (train, val)


def _inner(place: Path) -> list[Path]:
    """The folders of a known format that lie least deep, as an archive has one around what was packed."""
    level = [place]
    for _ in range(DEPTH):
        level = [p for folder in level for p in sorted(folder.iterdir()) if p.is_dir()][:FOLDERS]
        known = [p for p in level if _named(p, None, None) or _guess(p) or any(map(_guess, _files(p)))]
        if known:
            return known
    return []


def _files(place: Path, labels: str | None = None) -> list[Path]:
    """Annotation files of a data set's folder, of its `annotations` and of the folders of its parts."""
    names = ("annotations", "labels", "wider_face_split", *TRAIN, *VAL)
    folders = [place, *sorted(p for p in place.iterdir() if p.is_dir() and p.name.lower() in names)]
    return [
        f
        for folder in folders
        for f in sorted(folder.iterdir())
        if f.name.endswith(DATA_ENDS) and f.is_file() and (labels or "") in f.name
    ]


def _guess(path: Path) -> str | None:
    try:
        return formats.guess_format(path)
    except DataError:
        return None
