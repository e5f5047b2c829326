"""`boxwright.compare`: two box tables over the same images, neither of them the truth."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from boxwright.data import formats
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError
from boxwright.evaluation.matching import any_oriented, box_columns
from boxwright.evaluation.pairing import align, notes_on
from boxwright.evaluation.reading import Curves
from boxwright.geometry.compilation import kernel
from boxwright.geometry.iou import prepare
from boxwright.geometry.kernels import overlap

PERCENTILES = (5, 25, 50, 75, 95)
ALONE, MATCHED, OTHER_CLASS, IGNORED, LEFT_OUT = range(5)
OUTCOMES = ("alone", "matched", "other class", "ignored", "left out")


@dataclass(frozen=True)
class Comparison:
    """What two tables agree on.

    Attributes:
        rows: "all", then each class, then each source of A: counts, mean IoU both ways, IoU percentiles of
            the matched.
        pairs: matched boxes and those of another class: a_row, b_row, iou, outcome.
        outcome_a, outcome_b: (N,) index into OUTCOMES for each row of the box tables; "left out" are those of
            too low a score.
        curves: the histogram of IoU.
        a, b: the tables; B's images and categories are those of A.
        notes: what to know before believing these.
    """

    rows: list[dict[str, Any]]
    pairs: pl.DataFrame
    outcome_a: np.ndarray
    outcome_b: np.ndarray
    curves: dict[str, Curves]
    a: Tables
    b: Tables
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The rows and notes as plain values."""
        return {"rows": self.rows, "notes": self.notes}


def compare(
    a: Tables | str | os.PathLike,
    b: Tables | str | os.PathLike,
    iou: float = 0.5,
    min_score: float = 0.0,
) -> Comparison:
    """Match the boxes of two annotators, two models, or old labels and new.

    Within an image and class, pairs are taken by descending IoU, each box once. What is left over may still
    lie on a box of another class, and is then counted as such. Rows marked ignore, crowd or difficult don't
    count, nor do boxes that lie on one of these in the other table; both are counted as ignored. Upright and
    oriented boxes are compared as what they are.

    Args:
        a, b: tables or paths; images are joined by name, categories too.
        iou: from which two boxes are the same.
        min_score: boxes with a score below it are left out, on both sides.

    Raises:
        DataError: a file can't be read, or B has images or categories that A has not.
        ConfigError: an IoU outside (0, 1].

    Example:
        >>> boxwright.compare("anna.parquet", "ben.parquet").rows[0]["matched"]
    """
    if not 0 < iou <= 1:
        raise ConfigError(f"IoU {iou}, expected above 0 and at most 1.")
    a, b = (t if isinstance(t, Tables) else formats.read(t) for t in (a, b))
    b = align(a, b, scored=False)
    sides = [_Side(t, any_oriented(a, b), min_score) for t in (a, b)]
    edges = np.arange(len(a.images) + 1)
    start_a, start_b = (np.searchsorted(s.image, edges) for s in sides)
    outcome_a, outcome_b = (np.where(s.excluded, IGNORED, ALONE).astype(np.int64) for s in sides)
    partner = np.full(len(sides[0].row), -1, dtype=np.int64)
    best_a, best_b = np.zeros(len(sides[0].row)), np.zeros(len(sides[1].row))
    _match_both(
        sides[0].boxes, sides[0].category, start_a, sides[1].boxes, sides[1].category, start_b, iou,
        outcome_a, outcome_b, partner, best_a, best_b,
    )  # fmt: skip
    paired = np.flatnonzero(partner >= 0)
    pairs = pl.DataFrame(
        {
            "a_row": sides[0].row[paired],
            "b_row": sides[1].row[partner[paired]],
            "iou": _ious(sides, paired, partner[paired]),
            "outcome": [OUTCOMES[o] for o in outcome_a[paired]],
        },
        schema={"a_row": pl.Int64, "b_row": pl.Int64, "iou": pl.Float64, "outcome": pl.String},
    )
    outcomes = sides[0].by_row(outcome_a, LEFT_OUT), sides[1].by_row(outcome_b, LEFT_OUT)
    best = sides[0].by_row(best_a, 0.0), sides[1].by_row(best_b, 0.0)
    rows = [_row("all", a, b, pairs, outcomes, best, pl.lit(True), pl.lit(True))]
    for k, name in enumerate(a.categories["name"]):
        of_class = pl.col("category_id") == k
        rows.append(_row(name, a, b, pairs, outcomes, best, of_class, of_class))
    sources = a.boxes["source"].unique().drop_nulls().sort()
    for source in sources if len(sources) > 1 else []:
        of_source = pl.col("source").eq_missing(source)  # boxes of none are of no other
        images = a.boxes.filter(of_source)["image_id"].unique().implode()
        in_b = pl.col("image_id").is_in(images)
        rows.append(_row(f"source {source}", a, b, pairs, outcomes, best, of_source, in_b))
    matched = pairs.filter(pl.col("outcome") == "matched")["iou"].to_numpy()
    return Comparison(
        rows, pairs, outcomes[0], outcomes[1], _histogram(matched, iou), a, b, notes_on(b.faults)
    )


class _Side:
    """One table's boxes by image, those of too low a score left out."""

    def __init__(self, tables: Tables, oriented: bool, min_score: float):
        kept = np.flatnonzero(tables.boxes["score"].fill_null(np.inf).to_numpy() >= min_score)
        image = tables.boxes["image_id"].to_numpy()
        self.count = len(image)
        self.row = kept[np.argsort(image[kept], kind="stable")]
        self.image = image[self.row]
        self.category = tables.boxes["category_id"].to_numpy()[self.row]
        excluded = tables.boxes.select(pl.any_horizontal("crowd", "ignore", "difficult")).to_series()
        self.excluded = excluded.to_numpy()[self.row]
        self.boxes = prepare(np.column_stack(box_columns(tables, oriented))[self.row])

    def by_row(self, values: np.ndarray, absent: float) -> np.ndarray:
        """Values of these boxes at their rows of the table, `absent` at the others."""
        result = np.full(self.count, absent, dtype=values.dtype)
        result[self.row] = values
        return result


def _ious(sides: list[_Side], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    result = np.empty(len(a))
    _aligned(sides[0].boxes, a, sides[1].boxes, b, result)
    return result


def _row(name, a: Tables, b: Tables, pairs: pl.DataFrame, outcomes, best, of_a, of_b) -> dict[str, Any]:
    in_a, in_b = (_members(t, of) for t, of in ((a, of_a), (b, of_b)))
    row: dict[str, Any] = {"group": name}
    row["matched"] = int((in_a & (outcomes[0] == MATCHED)).sum())
    row["only A"], row["only B"] = (int((f & (o == ALONE)).sum()) for f, o in zip((in_a, in_b), outcomes))
    row["other class"] = int((in_a & (outcomes[0] == OTHER_CLASS)).sum())
    row["ignored A"], row["ignored B"] = (
        int((f & (o == IGNORED)).sum()) for f, o in zip((in_a, in_b), outcomes)
    )
    ious = pairs.filter((pl.col("outcome") == "matched") & pl.Series(in_a[pairs["a_row"].to_numpy()]))["iou"]
    row["mean IoU"] = None if len(ious) == 0 else float(ious.to_numpy().mean())
    # Over every box of one side its best IoU with the other: what isn't there counts as 0.
    for key, flags, outcome, values in zip(("A on B", "B on A"), (in_a, in_b), outcomes, best):
        counted = values[flags & (outcome != IGNORED) & (outcome != LEFT_OUT)]
        row[f"IoU {key}"] = float(counted.mean()) if len(counted) else None
    total = row["matched"] + row["only A"] + row["only B"] + row["other class"]
    row["agreement"] = row["matched"] / total if total else None
    spread = np.percentile(ious.to_numpy(), PERCENTILES) if len(ious) else [None] * len(PERCENTILES)
    return row | {f"IoU {p} %": None if v is None else float(v) for p, v in zip(PERCENTILES, spread)}


def _members(tables: Tables, condition: pl.Expr) -> np.ndarray:
    return tables.boxes.select((pl.col("image_id") >= 0) & condition).to_series().to_numpy()


def _histogram(ious: np.ndarray, least: float) -> dict[str, Curves]:
    if len(ious) == 0:
        return {}
    edges = np.linspace(least, 1, 26)
    counts = np.histogram(np.clip(ious, least, 1), edges)[0]
    middle = ((edges[1:] + edges[:-1]) / 2).tolist()
    return {
        "IoU of matched boxes": Curves(
            "IoU", "pairs", {"pairs": (middle, counts.astype(float).tolist())}, True
        )
    }


@kernel
def _aligned(boxes_a, a, boxes_b, b, result):
    for n in range(len(a)):
        result[n] = overlap(boxes_a, a[n], boxes_b, b[n], False)


@kernel
def _match_both(
    boxes_a,
    class_a,
    start_a,
    boxes_b,
    class_b,
    start_b,
    threshold,
    outcome_a,
    outcome_b,
    partner,
    best_a,
    best_b,
):
    """Fill outcomes, the partner of each box of A, and the best IoU of each box with its class opposite."""
    for image in range(len(start_a) - 1):
        a0, b0 = start_a[image], start_b[image]
        rows, columns = start_a[image + 1] - a0, start_b[image + 1] - b0
        if rows == 0 or columns == 0:
            continue
        ious = np.empty((rows, columns))
        for i in range(rows):
            for j in range(columns):
                ious[i, j] = overlap(boxes_a, a0 + i, boxes_b, b0 + j, False)
        for i in range(rows):
            for j in range(columns):
                if class_a[a0 + i] == class_b[b0 + j]:
                    if outcome_b[b0 + j] != IGNORED:
                        best_a[a0 + i] = max(best_a[a0 + i], ious[i, j])
                    if outcome_a[a0 + i] != IGNORED:
                        best_b[b0 + j] = max(best_b[b0 + j], ious[i, j])
        _take_pairs(ious, a0, b0, class_a, class_b, True, threshold, outcome_a, outcome_b, partner)
        # What lies on an ignored box of the other table is ignored with it.
        given_a, given_b = outcome_a[a0 : a0 + rows].copy(), outcome_b[b0 : b0 + columns].copy()
        for i in range(rows):
            for j in range(columns):
                if given_a[i] == IGNORED and given_b[j] == ALONE:
                    inside = overlap(boxes_b, b0 + j, boxes_a, a0 + i, True)
                    if inside >= threshold:
                        outcome_b[b0 + j] = IGNORED
                if given_b[j] == IGNORED and given_a[i] == ALONE:
                    inside = overlap(boxes_a, a0 + i, boxes_b, b0 + j, True)
                    if inside >= threshold:
                        outcome_a[a0 + i] = IGNORED
        _take_pairs(ious, a0, b0, class_a, class_b, False, threshold, outcome_a, outcome_b, partner)


@kernel
def _take_pairs(ious, a0, b0, class_a, class_b, same, threshold, outcome_a, outcome_b, partner):
    """Pairs by descending IoU, of boxes that are alone, of one class or (not `same`) of two."""
    columns = ious.shape[1]
    order = np.argsort(-ious.ravel(), kind="mergesort")
    for place in order:
        i, j = place // columns, place % columns
        if ious[i, j] < threshold:
            break
        if outcome_a[a0 + i] != ALONE or outcome_b[b0 + j] != ALONE:
            continue
        if (class_a[a0 + i] == class_b[b0 + j]) == same:
            outcome_a[a0 + i] = outcome_b[b0 + j] = MATCHED if same else OTHER_CLASS
            partner[a0 + i] = b0 + j
