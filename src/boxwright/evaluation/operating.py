"""Where a detector's scores are cut in use: a threshold of each class, fitted at the end of training.

Tables of predictions keep every detection, for judging; pictures and reports show those above the thresholds,
which travel in the checkpoint and, as attributes of the categories, in the tables.
"""

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from boxwright.data.tables import Tables
from boxwright.evaluation.calibrate import fit_temperature
from boxwright.evaluation.calibration import tempered
from boxwright.evaluation.confident import with_thresholds
from boxwright.evaluation.thresholds import threshold

IOU = 0.5  # from which a detection is true


@dataclass(frozen=True)
class OperatingPoint:
    """A class's score threshold, and precision, recall and F1 there on the validation data."""

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Operating:
    """What makes a detector's scores usable.

    Attributes:
        points: by class; a class that validation says nothing of has none.
        temperature: scores become sigmoid(logit(score) / temperature); thresholds are of these.
        precision: that was wanted; None: the greatest F1.
    """

    points: dict[str, OperatingPoint]
    temperature: float = 1.0
    precision: float | None = None

    def apply(self, tables: Tables) -> Tables:
        """Predictions with calibrated scores, and categories that know their thresholds."""
        boxes = tables.boxes
        if self.temperature != 1:
            boxes = boxes.with_columns(score=pl.Series(tempered(boxes["score"].to_numpy(), self.temperature)))
        thresholds = {name: point.threshold for name, point in self.points.items()}
        categories = with_thresholds(tables.categories, thresholds)
        return Tables(tables.images, boxes, categories, tables.faults)

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
        return cls(points, float(values["temperature"]), None if wanted is None else float(wanted))


def fit_operating(truth: Tables, predictions: Tables, precision: float | None = None) -> Operating:
    """Score calibration, and each class's threshold of greatest F1 or of a wanted precision.

    A class that can't have the precision gets the threshold of its greatest F1.

    Args:
        truth, predictions: aligned tables of validation data.
        precision: in (0, 1].
    """
    temperature = fit_temperature(truth, predictions, IOU)
    calibrated = Operating({}, temperature).apply(predictions)
    best = threshold(truth, calibrated, iou=IOU, best="f1").rows
    wanted = threshold(truth, calibrated, precision, iou=IOU).rows if precision is not None else best
    points = {}
    for row, fallback in zip(wanted, best):
        chosen = row if row["threshold"] is not None else fallback
        if chosen["threshold"] is not None:
            numbers = (chosen[name] for name in ("threshold", "precision", "recall", "F1"))
            points[chosen["class"]] = OperatingPoint(*numbers)
    return Operating(points, temperature, precision)
