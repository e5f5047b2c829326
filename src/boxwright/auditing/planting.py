"""Faults of known kinds put into labels, to measure what finds them and to learn how they look."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from boxwright.data.oriented import wrap
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, nearest
from boxwright.geometry.iou import pairwise_iou

# Shares of the boxes; `angle` is of oriented boxes alone, `heading` where angles tell front from back.
SHARES = {
    "missing": 0.05,
    "spurious": 0.05,
    "location": 0.05,
    "class": 0.05,
    "duplicate": 0.03,
    "angle": 0.05,
    "heading": 0.05,
}
KINDS = tuple(SHARES)
STRENGTH = (0.15, 0.4)  # of a location: shift or change of size, in shares of the side
TURN = (math.radians(15), math.radians(45))  # of an angle, either way
ALIKE = 0.08  # greatest shift or change of size of a duplicate
APART = 0.1  # IoU with every label, below which a spurious box stays
TRIES = 20  # places for a spurious box

ANSWER_SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.String(),  # one of `KINDS`
    "image_id": pl.Int64(),
    "row": pl.Int64(),  # of the faulty box in the table with faults; null: missing
    "twin": pl.Int64(),  # of a duplicate: row of the box that it was drawn over
    "original": pl.Int64(),  # row of the box in the table without; null: spurious
    "category_id": pl.Int32(),  # as it was there
    "x": pl.Float64(),
    "y": pl.Float64(),
    "w": pl.Float64(),
    "h": pl.Float64(),
    "angle": pl.Float64(),
}


@dataclass(frozen=True)
class Planted:
    """Labels with faults.

    Attributes:
        tables: the labels.
        answers: a row a fault, `ANSWER_SCHEMA`.
    """

    tables: Tables
    answers: pl.DataFrame

    def kinds(self) -> np.ndarray:
        """(N,) for each box of `tables` its place in `KINDS`, -1 for none."""
        kinds = np.full(len(self.tables.boxes), -1)
        there = self.answers.filter(pl.col("row").is_not_null())
        kinds[there["row"].to_numpy()] = [KINDS.index(kind) for kind in there["kind"]]
        return kinds


def corrupt(
    tables: Tables,
    shares: Mapping[str, float] | None = None,
    strength: tuple[float, float] = STRENGTH,
    seed: int = 0,
) -> Planted:
    """Plant faults, at most one a box.

    Args:
        tables: labels; crowds, ignored and empty boxes stay as they are.
        shares: of each kind in the boxes; None: `SHARES`, as far as the labels can have them.
        strength: of `location`, in shares of a side.
        seed: same seed, same faults.

    Raises:
        ConfigError: an unknown kind or one that these labels can't have, shares that are negative or more
            than all boxes together, or a strength that isn't an interval.
    """
    possible = _possible(tables)
    if shares is None:
        shares = {kind: share for kind, share in SHARES.items() if possible[kind] is None}
    _check(shares, strength, possible)
    rng = np.random.default_rng(seed)
    boxes, rows = tables.boxes, np.flatnonzero(_usable(tables.boxes))
    columns = {name: boxes[name].to_numpy().copy() for name in ("category_id", "x", "y", "w", "h")}
    columns["angle"] = boxes["angle"].cast(pl.Float64).to_numpy().copy()
    chosen, taken = {}, rng.permutation(rows)
    for kind in KINDS:
        count = round(shares.get(kind, 0.0) * len(rows))
        if kind != "spurious":
            chosen[kind], taken = taken[:count], taken[count:]
    _move(columns, chosen["location"], strength, rng)
    _swap(columns["category_id"], chosen["class"], rows, rng)
    # Where angles don't tell front from back those that are turned don't either.
    period = 2 * math.pi if tables.has_headings() else math.pi
    for kind, turns in (("angle", rng.uniform(*TURN, len(rows))), ("heading", np.full(len(rows), math.pi))):
        own = chosen[kind]
        sign = rng.choice([-1.0, 1.0], len(own))
        columns["angle"][own] = wrap(columns["angle"][own] + sign * turns[: len(own)], period)
    changed = boxes.with_columns(
        pl.Series(name, values, dtype=boxes.schema[name], nan_to_null=True)
        for name, values in columns.items()
    ).with_columns(area=pl.Series(_areas(boxes, columns)))
    fault = np.full(len(boxes), -1)
    for kind, own in chosen.items():
        fault[own] = KINDS.index(kind)
    copies = _copies(boxes, chosen["duplicate"], rng)
    fault[chosen["duplicate"]] = -1  # the copy is the fault
    invented = _invented(tables, rows, round(shares.get("spurious", 0.0) * len(rows)), rng)
    changed = _inside(changed, tables.images, fault == KINDS.index("location"))
    copies = _inside(copies, tables.images, np.ones(len(copies), dtype=bool))
    return _assemble(tables, changed, fault, copies, chosen["duplicate"], invented)


def _usable(boxes: pl.DataFrame) -> np.ndarray:
    plain = ~(boxes["crowd"] | boxes["ignore"])
    return (plain & (boxes["w"] > 0) & (boxes["h"] > 0)).to_numpy()


def _possible(tables: Tables) -> dict[str, str | None]:
    """Why labels can't have a kind of fault; None: they can."""
    oriented = tables.has_angles()
    reasons: dict[str, str | None] = dict.fromkeys(KINDS)
    if tables.boxes.filter(_usable(tables.boxes))["category_id"].n_unique() < 2:
        reasons["class"] = "they are of one class"
    if not tables.has_headings():
        reasons["heading"] = "no angle tells front from back"
    if not oriented:
        reasons["angle"] = reasons["heading"] = "no box has an angle"
    return reasons


def _check(
    shares: Mapping[str, float], strength: tuple[float, float], possible: Mapping[str, str | None]
) -> None:
    for kind, share in shares.items():
        if kind not in KINDS:
            raise ConfigError(f"no kind of fault '{kind}'. {nearest(kind, KINDS)}")
        if not 0 <= share <= 1:
            raise ConfigError(f"{kind} is {share:g}, expected a share from 0 to 1.")
        if share and possible[kind] is not None:
            raise ConfigError(f"{kind} is {share:g}, but {possible[kind]}.")
    if sum(share for kind, share in shares.items() if kind != "spurious") > 1:
        raise ConfigError("the shares are more than all boxes together.")
    if not 0 < strength[0] <= strength[1] < 1:
        raise ConfigError(f"strength {strength[0]:g} to {strength[1]:g}, expected 0 < from <= to < 1.")


def _move(
    columns: dict[str, np.ndarray], rows: np.ndarray, strength: tuple[float, float], rng: np.random.Generator
) -> None:
    """Shift half of the boxes, make half of them larger or smaller about their centres."""
    much = rng.uniform(*strength, len(rows))
    shifted = rng.random(len(rows)) < 0.5
    direction = rng.uniform(0, 2 * math.pi, len(rows))
    # A shift in any direction as long as this share of a side in it.
    for start, side, part in (("x", "w", np.cos(direction)), ("y", "h", np.sin(direction))):
        columns[start][rows] += np.where(shifted, much * part * columns[side][rows], 0)
    grow = np.where(rng.random(len(rows)) < 0.5, 1 + much, 1 - much)
    for start, side in (("x", "w"), ("y", "h")):
        new = np.where(shifted, 1, grow) * columns[side][rows]
        columns[start][rows] += (columns[side][rows] - new) / 2
        columns[side][rows] = new


def _swap(category: np.ndarray, chosen: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> None:
    """Give boxes any other class that `rows` have: one that is ignored would tell on them."""
    known, place = np.unique(category[rows], return_inverse=True)
    if len(chosen):
        place = place[np.searchsorted(rows, chosen)] + rng.integers(1, len(known), len(chosen))
        category[chosen] = known[place % len(known)]


def _areas(boxes: pl.DataFrame, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """An annotation's own area as much larger as its box."""
    before = (boxes["w"] * boxes["h"]).to_numpy()
    factor = np.divide(columns["w"] * columns["h"], before, out=np.ones(len(boxes)), where=before > 0)
    return boxes["area"].to_numpy() * factor


def _copies(boxes: pl.DataFrame, rows: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    """Boxes drawn a second time, a little beside the first."""
    again, change = boxes[rows], rng.uniform(-ALIKE, ALIKE, (4, len(rows)))
    w, h = again["w"].to_numpy(), again["h"].to_numpy()
    return again.with_columns(
        x=pl.Series(again["x"].to_numpy() + change[0] * w),
        y=pl.Series(again["y"].to_numpy() + change[1] * h),
        w=pl.Series(w * (1 + change[2])),
        h=pl.Series(h * (1 + change[3])),
    )


def _inside(boxes: pl.DataFrame, images: pl.DataFrame, wanted: np.ndarray) -> pl.DataFrame:
    """Wanted boxes without angle cut where their image ends, so that its border doesn't tell on them."""
    image = boxes["image_id"].to_numpy()
    columns = {}
    for start, side, size in (("x", "w", "width"), ("y", "h", "height")):
        limit = images[size].cast(pl.Float64).fill_null(np.inf).to_numpy()[image]
        low, length = boxes[start].to_numpy(), boxes[side].to_numpy()
        cut = np.clip(low, 0, limit), np.clip(low + length, 0, limit)
        usable = wanted & boxes["angle"].is_null().to_numpy() & (cut[1] > cut[0])
        columns[start] = np.where(usable, cut[0], low)
        columns[side] = np.where(usable, cut[1] - cut[0], length)
    return boxes.with_columns(pl.Series(name, values) for name, values in columns.items())


def _invented(tables: Tables, rows: np.ndarray, count: int, rng: np.random.Generator) -> pl.DataFrame:
    """Boxes with shape and class of others, where no label is."""
    sizes = tables.images.select("width", "height").to_numpy().astype(float)
    known = np.flatnonzero(np.isfinite(sizes).all(axis=1))
    if not count or not len(known):
        return tables.boxes.clear()
    like = tables.boxes[rng.choice(rows, count)]
    image = rng.choice(known, count)
    labels, of_image = tables.upright(), tables.rows_by_image()
    shape = like.select("w", "h").to_numpy()
    corner, placed = np.zeros((count, 2)), np.zeros(count, dtype=bool)
    for n in range(count):
        room = sizes[image[n]] - shape[n]
        if (room < 0).any():
            continue
        tried = rng.random((TRIES, 2)) * room
        boxes = np.column_stack([tried, np.broadcast_to(shape[n], (TRIES, 2))])
        worst = pairwise_iou(boxes, labels[of_image[image[n]]]).max(axis=1, initial=0)
        if worst.min() < APART:
            corner[n], placed[n] = tried[np.argmax(worst < APART)], True
    new = like.with_columns(image_id=pl.Series(image), x=pl.Series(corner[:, 0]), y=pl.Series(corner[:, 1]))
    return new.filter(placed)


def _assemble(
    tables: Tables,
    changed: pl.DataFrame,
    fault: np.ndarray,
    copies: pl.DataFrame,
    copied: np.ndarray,
    invented: pl.DataFrame,
) -> Planted:
    """One table of all boxes, image by image, and where the faults are in it."""
    kinds = pl.Series([None if n < 0 else KINDS[n] for n in fault], dtype=pl.String)
    parts = (
        (changed, kinds, pl.Series(range(len(changed)), dtype=pl.Int64)),
        (copies, pl.repeat("duplicate", len(copies), eager=True), pl.Series(copied, dtype=pl.Int64)),
        (invented, pl.repeat("spurious", len(invented), eager=True), pl.Series([None] * len(invented))),
    )
    every = pl.concat(
        [boxes.with_columns(kind=kind, original=row.cast(pl.Int64)) for boxes, kind, row in parts]
    )
    missing = pl.col("kind").eq_missing("missing")
    kept = every.filter(~missing).sort("image_id", maintain_order=True).with_row_index("row")
    first = kept.filter(~pl.col("kind").eq_missing("duplicate")).select("original", twin="row")
    there = kept.filter(pl.col("kind").is_not_null()).join(
        first, on="original", how="left", maintain_order="left"
    )
    only = pl.col("kind") == "duplicate"
    there = there.with_columns(twin=pl.when(only).then("twin"))
    gone = every.filter(missing).with_columns(row=None, twin=None)
    places = ("kind", "image_id", "row", "twin", "original")
    faults = pl.concat([t.select(pl.col(n).cast(ANSWER_SCHEMA[n]) for n in places) for t in (there, gone)])
    was = tables.boxes.with_row_index("original").with_columns(pl.col("original").cast(pl.Int64))
    answers = faults.join(was.drop("image_id"), on="original", how="left", maintain_order="left")
    answers = answers.select(list(ANSWER_SCHEMA))
    return Planted(tables.with_boxes(kept.drop("row", "kind", "original")), answers)
