"""`boxwright data split`: seeded, and stratified by the classes in each image."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boxwright.data import formats
from boxwright.data.formats import voc, yolo
from boxwright.data.formats.placing import Placing, place_images
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError

FILE_SUFFIX = {"coco": ".json", "coco-angle": ".json", "markers": ".json"} | {
    "citypersons": ".json", "parquet": ".parquet", "odgt": ".odgt",
}  # fmt: skip
FOLDERS = ("dota", "text")  # a folder a part
SETS = ("yolo", "voc")  # one folder, with a list of each part
PARTED = (*FILE_SUFFIX, *FOLDERS, *SETS)


def parse_shares(text: str) -> dict[str, float]:
    """`train=0.8,val=0.2` as a dict.

    Raises:
        ConfigError: not of that form, not positive, or a sum other than 1.
    """
    shares = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            shares[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name.strip() or not shares[name.strip()] > 0:
            raise ConfigError(f"shares '{text}': expected train=0.8,val=0.2.")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(f"shares '{text}' add up to {sum(shares.values()):g}, expected 1.")
    return shares


def split(
    tables: Tables, shares: dict[str, float], seed: int = 0, groups: Sequence | None = None
) -> dict[str, Tables]:
    """Share images out so that every part gets its share of every class.

    Sechidis et al., On the Stratification of Multi-label Data, ECML 2011: the images of the rarest class
    left are given, one by one, to the part that most lacks it.

    Args:
        tables: to split.
        shares: of each part; they add up to 1.
        seed: same seed, same split.
        groups: (I,) what each image belongs to, a video or a place; images of a group come into one part, the
            largest groups first. None: each is its own.
    """
    rng = np.random.default_rng(seed)
    names = np.arange(len(tables.images)) if groups is None else np.asarray(groups)
    group = np.unique(names, return_inverse=True)[1]
    count, classes = int(group.max(initial=-1)) + 1, len(tables.categories)
    counts, size = np.zeros((count, classes)), np.bincount(group, minlength=count)
    of_box = group[tables.boxes["image_id"].to_numpy()]
    np.add.at(counts, (of_box, tables.boxes["category_id"].to_numpy()), 1)
    wanted = np.array(list(shares.values()))
    lacking = np.outer(wanted, counts.sum(axis=0))  # boxes still due, (parts, classes)
    room = wanted * len(group)  # images still due, (parts,)
    part = np.full(count, -1)
    order = rng.permutation(count)
    order = order[np.argsort(-size[order], kind="stable")]
    while (part < 0).any():
        left = order[part[order] < 0]
        remaining = counts[left].sum(axis=0)
        filled = remaining > 0
        if filled.any():
            rarest = int(np.argmin(np.where(filled, remaining, np.inf)))
            left = left[counts[left, rarest] > 0]
        for one in left:
            need = lacking[:, rarest] if filled.any() else room
            # Who lacks most; among equals who has most room.
            chosen = int(np.lexsort((-room, -need))[0])
            part[one] = chosen
            lacking[chosen] -= counts[one]
            room[chosen] -= size[one]
    return {name: tables.select_images(part[group] == n) for n, name in enumerate(shares)}


def write_split(
    parts: dict[str, Tables], folder: str | os.PathLike, format: str, images: Placing | None = None
) -> dict[str, Path]:
    """Write the parts into `folder`; gives where each is.

    Args:
        parts: names and tables.
        folder: gets a file or a folder a part, or one data set with a list of each (yolo, voc).
        format: a format of truth.
        images: as for `formats.write`.

    Raises:
        ConfigError: the format isn't one of these.
    """
    place = Path(folder)
    if format in FILE_SUFFIX or format in FOLDERS:
        written = {name: place / f"{name}{FILE_SUFFIX.get(format, '')}" for name in parts}
        for name, path in written.items():
            formats.write(parts[name], path, format, images)
        return written
    if format not in SETS:
        raise ConfigError(f"parts can be written as {', '.join(PARTED)}, not as '{format}'.")
    placed = {
        name: place_images(tables, format, place, images, name if format == "yolo" else None)
        for name, tables in parts.items()
    }
    if format == "yolo":
        yolo.write_parts(placed, place)
        return {name: place / "images" / name for name in parts}
    voc.write_parts(placed, place)
    return {name: place / "ImageSets" / "Main" / f"{name}.txt" for name in parts}
