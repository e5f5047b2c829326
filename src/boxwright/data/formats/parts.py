"""A folder of box tables as Parquet, each of its own images, as `boxwright predict --on ray` writes them."""

import json
from pathlib import Path

import polars as pl

from boxwright.data.formats import parquet
from boxwright.data.formats.options import ReadOptions
from boxwright.data.tables import Tables
from boxwright.errors import DataError

PLAN, IMAGES = "plan.json", "images.parquet"


def part_file(folder: Path, part: int) -> Path:
    return folder / f"part-{part:06d}.parquet"


def is_parts(path: Path) -> bool:
    return (path / PLAN).is_file() and (path / IMAGES).is_file()


def part_files(folder: Path) -> list[Path]:
    """The files of all parts, in order.

    Raises:
        DataError: there is no plan, or some part isn't there yet.
    """
    try:
        plan = json.loads((folder / PLAN).read_text("utf-8"))
        count = -(-int(plan["images"]) // int(plan["part_size"]))
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        raise DataError(f"{folder / PLAN}: no plan of parts: {error}.") from error
    there = set(folder.glob("part-*.parquet"))
    files = [part_file(folder, n) for n in range(min(count, len(there) + 1))]  # a damaged plan may tell any
    missing = [file.name for file in files if file not in there]
    if missing:
        raise DataError(
            f"{folder}: parts are missing, {missing[0]} first; there are {len(there):,}, expected {count:,}."
            " The command that began them goes on."
        )
    return files


def read(path: Path, options: ReadOptions) -> Tables:
    """All parts as one.

    Raises:
        DataError: a part is missing, can't be read, or has other classes.
    """
    options.only("parts")
    images, boxes, categories, start = [], [], None, 0
    for file in part_files(path):
        own = parquet.read(file, ReadOptions())
        if categories is not None and not own.categories.equals(categories):
            raise DataError(f"{file}: other classes than those of the parts before.")
        categories = own.categories
        moved = pl.col("image_id") + start
        images.append(own.images.with_columns(moved))
        boxes.append(own.boxes.with_columns(moved))
        start += len(own.images)
    if categories is None:
        raise DataError(f"{path}: a plan without images.")
    return Tables(pl.concat(images), pl.concat(boxes), categories)
