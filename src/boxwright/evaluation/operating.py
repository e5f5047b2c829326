"""Where a detector's scores are cut in use: a threshold of each class, fitted at the end of training.

Tables of predictions keep every detection, for judging; pictures and reports show those above the thresholds,
which travel in the checkpoint and, as attributes of the categories, in the tables.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from boxwright.data.confident import with_thresholds
from boxwright.data.tables import Tables
from boxwright.evaluation.matching import match
from boxwright.evaluation.platt import fit_platt, probability
from boxwright.evaluation.thresholds import threshold

IOU = 0.5  # from which a detection is true
COLUMNS = {"threshold": "threshold", "precision": "precision", "recall": "recall", "f1": "F1"}


@dataclass(frozen=True)
class OperatingPoint:
    """Of a class: its score threshold, precision, recall and F1 there on the validation data, and the curve
    that made its scores probabilities, sigmoid(slope * logit(score) + shift).
    """

    threshold: float
    precision: float
    recall: float
    f1: float
    slope: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Operating:
    """What makes a detector's scores usable.

    Attributes:
        points: by class; a class that validation says nothing of has none. Thresholds are of calibrated
            scores.
        precision: that was wanted; None: the greatest F1.
    """

    points: dict[str, OperatingPoint]
    precision: float | None = None

    def apply(self, tables: Tables) -> Tables:
        """Predictions with calibrated scores, and categories that know their thresholds."""
        boxes, names = tables.boxes, tables.categories["name"].to_list()
        score = self.calibrated(names, boxes["category_id"].to_numpy(), boxes["score"].to_numpy())
        boxes = boxes.with_columns(score=pl.Series(score, dtype=pl.Float64))
        thresholds = {name: point.threshold for name, point in self.points.items()}
        categories = with_thresholds(tables.categories, thresholds)
        return Tables(tables.images, boxes, categories, tables.faults)

    def calibrated(self, names: Sequence[str], category: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Scores (N,) of boxes of classes (N,), which count from 0 in `names`, as probabilities."""
        if not len(score):
            return score
        known = np.array([name in self.points for name in names])[category]
        curves = [self.points.get(name, OperatingPoint(0, 0, 0, 0)) for name in names]
        slope, shift = (np.array([getattr(c, key) for c in curves])[category] for key in ("slope", "shift"))
        return np.where(known, probability(score, slope, shift), score)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Operating":
        """The inverse of `to_dict`.

        Raises:
            TypeError, ValueError, KeyError: other values.
        """
        points = {
            str(n): OperatingPoint(**{k: float(v) for k, v in p.items()}) for n, p in values["points"].items()
        }
        wanted = values["precision"]
        return cls(points, None if wanted is None else float(wanted))


def fit_operating(truth: Tables, predictions: Tables, precision: float | None = None) -> Operating:
    """Score calibration, and each class's threshold of greatest F1 or of a wanted precision.

    A class that can't have the precision gets the threshold of its greatest F1.

    Args:
        truth, predictions: aligned tables of validation data.
        precision: in (0, 1].
    """
    matching = match(truth, predictions, np.array([IOU]))
    true, false = matching.outcomes()
    points = {}
    for k, name in enumerate(truth.categories["name"]):
        mine = (matching.det_category == k) & (true | false)
        slope, shift = fit_platt(matching.det_score[mine], true[mine])
        points[name] = OperatingPoint(0.0, 0.0, 0.0, 0.0, slope, shift)
    calibrated = Operating(points).apply(predictions)
    best = threshold(truth, calibrated, iou=IOU, best="f1").rows
    wanted = threshold(truth, calibrated, precision, iou=IOU).rows if precision is not None else best
    found = {}
    for row, fallback in zip(wanted, best):
        chosen = row if row["threshold"] is not None else fallback
        if chosen["threshold"] is not None:
            numbers = {key: chosen[column] for key, column in COLUMNS.items()}
            found[chosen["class"]] = replace(points[chosen["class"]], **numbers)
    return Operating(found, precision)
