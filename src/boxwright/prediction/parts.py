"""Predictions in parts, each a Parquet file of its own: what a killed process leaves is whole, and is kept.

A folder holds `images.parquet`, every image in order; `plan.json`, how many of them make a part and what
predicts them; of each finished part `part-000012.parquet`, box tables as anywhere, and `faults-000012.json`.
A part is finished once its file is there, and is put there whole: whoever starts again does what is missing.
Tiles of large images are shared out before (`prediction.large`).
"""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from boxwright.data import formats
from boxwright.data.formats.files import write_atomic
from boxwright.data.formats.parts import IMAGES, PLAN, part_file
from boxwright.data.shards import place_images
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError, Fault
from boxwright.prediction.large import (
    large_file,
    remove_shares,
    see_share,
    seen_of,
    set_aside,
    shares_of,
    tiles_file,
)
from boxwright.prediction.predict import predict_images
from boxwright.prediction.predictor import Predictor

WHOLE = -1  # in place of a share's number: the part


@dataclass(frozen=True)
class Plan:
    """Which images are in which part.

    Attributes:
        folder: of the parts.
        images: how many there are.
        size: images of a part.
    """

    folder: Path
    images: int
    size: int

    @property
    def parts(self) -> int:
        return -(-self.images // self.size)

    def missing(self) -> list[int]:
        """The parts that are to be done."""
        return [n for n in range(self.parts) if not part_file(self.folder, n).is_file()]

    def images_of(self, part: int) -> pl.DataFrame:
        return pl.scan_parquet(self.folder / IMAGES).slice(part * self.size, self.size).collect()

    def work(self) -> Iterator[list[tuple[int, int]]]:
        """What is to be done, (part, share) each, `WHOLE` for the part: lists, one after the other."""
        yield [(part, WHOLE) for part in self.missing() if not large_file(self.folder, part).is_file()]
        yield list(self._missing_shares())
        yield [(part, WHOLE) for part in self.missing()]  # those that were set aside
        remove_shares(self.folder)

    def _missing_shares(self) -> Iterator[tuple[int, int]]:
        for part in self.missing():
            for share in range(len(shares_of(self.folder, part))):
                if not tiles_file(self.folder, part, share).is_file():
                    yield part, share


def open_plan(folder: Path, images: pl.DataFrame, size: int, told: dict[str, Any]) -> Plan:
    """The plan of a folder, made where there is none.

    Args:
        folder: of the parts; new, empty, or of this very prediction.
        images: as of `list_shards`.
        size: images of a part.
        told: what else the boxes depend on, plain values.

    Raises:
        ConfigError: the folder is of another prediction, or of something else.
    """
    if size < 1:
        raise ConfigError(f"parts of {size} images, expected 1 or more.")
    listing = sha256()
    for some in images.iter_slices(100_000):
        listing.update(json.dumps(some.rows()).encode())
    plan = {
        "version": 1,
        "images": len(images),
        "part_size": size,
        "listing": listing.hexdigest()[:16],
    } | told
    place = folder / PLAN
    if place.is_file():
        try:
            found = json.loads(place.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{place}: can't be read: {error}.") from error
        for key in sorted(plan | found):
            if found.get(key) != plan.get(key):
                raise ConfigError(
                    f"{folder} holds parts of another prediction: its {key} is {found.get(key)}, expected"
                    f" {plan.get(key)}. Give another folder, or remove this one."
                )
    else:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is there already and holds no plan of parts; expected a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        images.write_parquet(folder / IMAGES)
        write_atomic(place, json.dumps(plan, indent=2).encode())
    return Plan(folder, len(images), size)


def do_piece(
    plan: Plan,
    part: int,
    share: int,
    predictors: Sequence[Predictor],
    batch_size: int | None = None,
    **options,
) -> dict[str, int]:
    """Predict a part, or look at a share of its tiles, and put the files into the folder.

    Args:
        plan: what there is.
        part, share: of `Plan.work`.
        predictors, batch_size, options: as of `predict_images`.

    Returns:
        How many images and boxes are done with it: none of a share, and of a part that is set aside.
    """
    images, folder = plan.images_of(part), plan.folder
    if share != WHOLE:
        see_share(folder, images, part, share, predictors, batch_size)
        return {"images": 0, "boxes": 0}
    with tempfile.TemporaryDirectory(prefix="boxwright-") as unpacked:
        places = place_images(images, Path(unpacked))
        if not large_file(folder, part).is_file() and set_aside(folder, part, places, predictors):
            return {"images": 0, "boxes": 0}
        seen = seen_of(folder, part, len(predictors))
        tables = predict_images(places, predictors, batch_size, seen=seen, **options)
        tables = _without_paths(tables, {path: name for name, path in places if path.startswith(unpacked)})
    faults = json.dumps([asdict(fault) for fault in tables.faults])
    write_atomic(folder / f"faults-{part:06d}.json", faults.encode())
    formats.write(tables, part_file(folder, part))
    return {"images": len(images), "boxes": len(tables.boxes)}


def _without_paths(tables: Tables, names: dict[str, str]) -> Tables:
    """The tables of files that are gone again, whose names are known by their paths."""
    if not names:
        return tables
    paths = re.compile("|".join(map(re.escape, names)))
    faults = [
        replace(f, **{key: paths.sub(lambda m: names[m[0]], getattr(f, key)) for key in ("place", "message")})
        for f in tables.faults
    ]
    kept = [None if path in names else path for path in tables.images["path"]]
    images = tables.images.with_columns(path=pl.Series(kept, dtype=pl.String))
    return replace(tables, images=images, faults=tuple(faults))


def faults_of(plan: Plan) -> list[Fault]:
    """What was wrong with images, of all parts in order."""
    found = []
    for part in range(plan.parts):
        place = plan.folder / f"faults-{part:06d}.json"
        try:
            found += [Fault(**fault) for fault in json.loads(place.read_text("utf-8"))]
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{place}: can't be read: {error}.") from error
    return found
