"""`boxwright init`: from a folder of images and labels to an experiment that can be trained."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.config import load_config
from boxwright.data import formats
from boxwright.data.formats.files import write_atomic
from boxwright.data.formats.finding import Source, find_parts
from boxwright.data.formats.options import ReadOptions
from boxwright.data.splitting import split, write_split
from boxwright.data.suggesting import shorter_sides, write_experiment
from boxwright.data.tables import Tables, concat
from boxwright.errors import ConfigError, DataError

FEW = 20  # boxes of a class, below which it is hardly learnt


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
    tables, made, beside = _read(train, options), None, train.beside
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
        val_tables = _read(val, options)
    if not len(tables.boxes):
        raise DataError(f"{train.root}: no box in {len(tables.images):,} images, nothing to learn from.")
    both = concat([tables, val_tables])
    found = describe(both, tables, val_tables, made)
    if beside:
        taken = " and ".join(dict.fromkeys(source.root.name for source in (train, val)))
        found.append(f"Labels of {taken} are taken; --labels takes others: {', '.join(beside)}.")
    learnt = both.categories["name"].gather(both.boxes["category_id"].unique().sort()).to_list()
    text = write_experiment(_to_config(train, options), _to_config(val, options), tables, learnt, found)
    write_atomic(target, text.encode())
    load_config(target)
    return Draft(target, found, tables, val_tables, made)


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


def _read(source: Source, options: ReadOptions) -> Tables:
    changed = {name: getattr(options, name) for name in ("images", "boxes", "layout", "angles")}
    return formats.read(source.root, source.format, ReadOptions(source.list_name, **changed))


def _to_config(source: Source, options: ReadOptions) -> dict[str, Any]:
    """A source as an experiment has it; paths are whole, so that it runs from any folder."""
    values = {"root": str(source.root.resolve()), "format": source.format, "list": source.list_name}
    values |= {"images": str(options.images.resolve()) if options.images else None}
    values |= {name: getattr(options, name) for name in ("boxes", "layout", "angles")}
    return {name: value for name, value in values.items() if value is not None}
