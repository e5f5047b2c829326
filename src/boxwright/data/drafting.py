"""`boxwright init`: from a folder of images and labels to an experiment that can be trained."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from boxwright.config import load_config
from boxwright.data import formats
from boxwright.data.formats.files import write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.yolo import find_config, read_config, split_images
from boxwright.data.sources import concat
from boxwright.data.splitting import split, write_split
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError

TRAIN, VAL = ("train", "training", "trainval"), ("val", "valid", "validation", "test", "testing")
CLEAR, VISIBLE = 24.0, 12.0  # px of the input: shorter side of the usual object, and of the smallest tenth
LEAST_SIDE, GREATEST_SIDE = 320, 1280  # px, of the longer side of the input
CROP = 640  # px, of what is trained on where an image at a usable scale is larger than GREATEST_SIDE
SEEN = 26_000  # images in all epochs, twice as many crops: with half of it BCCD and HIT-UAV lose 4 AP
EPOCHS, SMALL_SET = (10, 200), 500
RATE = 1e-3  # of learning, for each image of a step
FEW = 20  # boxes of a class, below which it is hardly learnt
DATA_SUFFIXES = (".json", ".odgt", ".parquet", ".csv", ".jsonl", ".gz")


@dataclass(frozen=True)
class Source:
    """What a config says of a source: its root, format and list."""

    root: Path
    format: str
    list_name: str | None = None

    def read(self, options: ReadOptions) -> Tables:
        """Its tables."""
        changed = {name: getattr(options, name) for name in ("images", "boxes", "layout", "angles")}
        return formats.read(self.root, self.format, ReadOptions(self.list_name, **changed))


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
    train, val = find_parts(place, format, options.list_name)
    tables, made = train.read(options), None
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
    found = describe(concat([tables, val_tables]), tables, val_tables, made)
    write_atomic(target, _to_yaml(train, val, options, tables, found).encode())
    load_config(target)
    return Draft(target, found, tables, val_tables, made)


def suggest(tables: Tables, path: Path) -> dict[str, Any]:
    """The experiment that `init` would write for tables that are in a Parquet file, as plain values."""
    source = Source(path, "parquet")
    return yaml.safe_load(_to_yaml(source, source, ReadOptions(), tables, ["Suggested."]))


def find_parts(place: Path, format: str | None, list_name: str | None) -> tuple[Source, Source | None]:
    """What to train on, and what to judge by where the data says so.

    Raises:
        DataError: nothing there is of a known format.
    """
    if not place.exists():
        raise DataError(f"{place}: no such file or folder.")
    if list_name is not None or (place.is_file() and place.suffix not in (".yaml", ".yml")):
        return Source(place, format or formats.guess_format(place), list_name), None
    pairs = _listed(place, format) or _named(place, format)
    if pairs is not None:
        return pairs
    if format is None:
        files = [f for f in _files(place) if _guess(f) is not None] if place.is_dir() else []
        if len(files) == 1:
            return Source(files[0], formats.guess_format(files[0])), None
        if files and _guess(place) is None:
            names = ", ".join(f.name for f in files[:5])
            raise DataError(f"{place}: which of its files holds the labels: {names}? Expected one of them.")
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
    missing = [p for p in both.images["path"] if p is None or not os.path.isfile(p)]
    if missing:
        found.append(
            f"{len(missing):,} images aren't where the labels say, first {missing[0]}: training stops there."
        )
    sides = _shorter_sides(both)
    if len(sides):
        low, middle = np.percentile(sides, [10, 50])
        found.append(
            f"The shorter side of an object is {middle:.0f} px in the median, {low:.0f} px in a tenth."
        )
    dropped = [f for f in both.faults if f.severity == "error"]
    if dropped:
        found.append(f"{len(dropped):,} faults, first: {dropped[0]} See boxwright data check.")
    return found


def suggest_size(tables: Tables) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Width and height that images are fitted into, and of crops where that is too much for a network.

    The smallest size at which the usual object is `CLEAR` px and the smallest tenth `VISIBLE`; no larger than
    the images, in multiples of 32.
    """
    shapes = tables.images.select("width", "height").drop_nulls().to_numpy()
    if len(shapes) == 0:
        return (640, 640), None
    width, height = (float(v) for v in np.median(shapes, axis=0))
    sides = _shorter_sides(tables)
    scale = 1.0
    if len(sides):
        low, middle = np.percentile(sides, [10, 50])
        scale = min(1.0, max(VISIBLE / max(low, 1.0), CLEAR / max(middle, 1.0)))
    longest = max(width, height)
    wanted = min(max(longest * scale, min(LEAST_SIDE, longest)), longest)
    size = [max(32, round(side * wanted / longest / 32) * 32) for side in (width, height)]
    crop = (CROP, CROP) if max(size) > GREATEST_SIDE else None
    return (size[0], size[1]), crop


def _listed(place: Path, format: str | None) -> tuple[Source, Source] | None:
    """The lists or splits of one data set of VOC or YOLO."""
    name = format or _guess(place)
    if name == "voc":
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


def _named(place: Path, format: str | None) -> tuple[Source, Source] | None:
    """Files or folders of one data set that are called train, val and the like."""
    parts: dict[str, Source] = {}
    if place.is_dir():
        for path in [*_files(place), *sorted(p for p in place.iterdir() if p.is_dir())]:
            words = re.split(r"[^a-z]+", path.name.lower())
            part = next((w for w in words if w in (*TRAIN, *VAL)), None)
            if part is None and path.parent.name.lower() in (*TRAIN, *VAL):
                part = path.parent.name.lower()
            known = format or (_guess(path) if part else None)
            if part is not None and known is not None:
                parts.setdefault(part, Source(path, known))
    return _pair(parts)


def _pair(parts: dict[str, Source]) -> tuple[Source, Source] | None:
    order = ("trainval", *TRAIN) if "val" not in parts and "valid" not in parts else TRAIN
    train = next((parts[n] for n in order if n in parts), None)
    val = next((parts[n] for n in VAL if n in parts), None)
    return None if train is None or val is None else (train, val)


def _files(place: Path) -> list[Path]:
    """Annotation files of a data set's folder, of its `annotations` and of the folders of its parts."""
    names = ("annotations", "labels", *TRAIN, *VAL)
    folders = [place, *sorted(p for p in place.iterdir() if p.is_dir() and p.name.lower() in names)]
    return [
        f for folder in folders for f in sorted(folder.iterdir()) if f.suffix in DATA_SUFFIXES and f.is_file()
    ]


def _guess(path: Path) -> str | None:
    try:
        return formats.guess_format(path)
    except DataError:
        return None


def _shorter_sides(tables: Tables) -> np.ndarray:
    counted = (~tables.boxes["crowd"] & ~tables.boxes["ignore"]).to_numpy()
    return tables.boxes.select("w", "h").to_numpy()[counted].min(axis=1) if counted.any() else np.zeros(0)


def _to_yaml(train: Source, val: Source, options: ReadOptions, tables: Tables, found: Sequence[str]) -> str:
    """The experiment as YAML, every choice explained by a comment."""
    size, crop = suggest_size(tables)
    oriented = tables.boxes["angle"].is_not_null().any()
    seen = SEEN if crop is None else 2 * SEEN
    epochs = int(np.clip(round(seen / max(len(tables.images), 1)), *EPOCHS))
    sides = _shorter_sides(tables)
    finest = len(sides) and float(np.median(sides)) * size[0] / max(_width(tables), 1) < CLEAR
    lines = ["# Written by boxwright init. " + found[0]]
    lines += [f"# {sentence}" for sentence in found[1:]]
    lines += ["data:", f"  train: {_source(train, options)}", f"  val: {_source(val, options)}"]
    names = [
        yaml.safe_dump(n, default_flow_style=True, allow_unicode=True, width=1000)
        for n in tables.categories["name"]
    ]
    names = [n.removesuffix("\n").removesuffix("\n...") for n in names]
    lines += [
        f"  classes: [{', '.join(names)}]  # what is learnt; leave one out and its boxes are background"
    ]
    lines += ["model:"]
    if oriented:
        lines += [
            "  name: compact_obb  # small, fast, of oriented boxes; also fcos_obb, atss_obb, retinanet_obb"
        ]
        lines += [f"  heading: {str(tables.has_headings()).lower()}  # tell front from back"]
        lines += [
            f"  finest: {4 if finest else 8}  # stride of the finest map, px; 4 for objects of a dozen pixels"
        ]
    else:
        lines += ["  name: compact  # small and fast; also yolox, atss, fcos, retinanet, gfl, vfnet, ..."]
    lines += [f"image_size: [{size[0]}, {size[1]}]  # width, height that images are fitted into, px"]
    lines += [
        "augment:",
        "  flip_horizontal: 0.5  # probability; 0 where left and right differ, as in writing",
    ]
    if oriented:
        lines += ["  flip_vertical: 0.5  # seen from above there is no up", "  quarter_turn: 0.5"]
    else:
        lines += ["  flip_vertical: 0.0  # 0.5 where there is no up, as in microscopy or from the air"]
    if crop:
        lines += [f"  crop: [{crop[0]}, {crop[1]}]  # px of the input to train on; predict with --tiles"]
        lines += ["  focus: 0.7  # share of the crops that lie around an object"]
    lines += ["train:", f"  epochs: {epochs}  # over {len(tables.images):,} images; or minutes: 30"]
    batch = 4 if len(tables.images) < SMALL_SET else 8
    lines += [f"  batch_size: {batch}"]
    lines += [f"  optimizer: {{name: schedule_free, lr: {RATE * batch}, weight_decay: 0.03}}  # or adamw"]
    lines += [
        "  schedule: {name: constant}  # the mean of all weights is judged; with adamw: cosine, no ema line"
    ]
    lines += ["  ema: null"]
    return "\n".join(lines) + "\n"


def _width(tables: Tables) -> float:
    widths = tables.images["width"].drop_nulls()
    return float(np.median(widths.to_numpy())) if len(widths) else 0.0


def _source(source: Source, options: ReadOptions) -> str:
    """A source in one line; paths are whole, so that the experiment runs from any folder."""
    values = {"root": str(source.root.resolve()), "format": source.format, "list": source.list_name}
    values |= {"images": str(options.images.resolve()) if options.images else None}
    values |= {name: getattr(options, name) for name in ("boxes", "layout", "angles")}
    held = {name: value for name, value in values.items() if value is not None}
    return yaml.safe_dump(
        held, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000
    ).strip()
