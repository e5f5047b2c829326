"""How much AP grows when one label is repaired, as far as predictions tell."""

from dataclasses import dataclass

import numpy as np

from boxwright.data.tables import Tables
from boxwright.evaluation.coco import IOU_THRESHOLDS
from boxwright.evaluation.matching import match
from boxwright.geometry.iou import pairwise_iou


@dataclass(frozen=True)
class _Ranking:
    """Detections of a class by descending score, at each of T thresholds.

    AP is taken as the sum of the precisions at the true positives over the labels, without interpolation.

    Attributes:
        positives: (T, D + 1) true positives before a place.
        later: (T, D + 1) sum over true positives from a place on of one over their rank.
        total: (T,) sum of the precisions.
        labels: in the class.
    """

    positives: np.ndarray
    later: np.ndarray
    total: np.ndarray
    labels: int

    @classmethod
    def of(cls, hit: np.ndarray, labels: int) -> "_Ranking":
        """Of hits (T, D) bool."""
        rank = np.arange(1, hit.shape[1] + 1)
        blank = np.zeros((len(hit), 1))
        positives = np.hstack([blank, np.cumsum(hit, axis=1)])
        shares = hit / rank
        later = np.hstack([np.cumsum(shares[:, ::-1], axis=1)[:, ::-1], blank])
        return cls(positives, later, (positives[:, 1:] * shares).sum(axis=1), labels)

    def change(self, place: int, sign: int, wanted: np.ndarray, labels: int) -> float:
        """Of the mean over thresholds, where the detection at a place becomes a true positive (`sign` 1) or a
        false one (-1) at the wanted thresholds (T,), and there are so many more labels.

        A place of -1 is no detection.
        """
        new = self.total.copy()
        if place >= 0:
            own = (self.positives[:, place] + 1) / (place + 1)
            new += np.where(wanted, sign * (own + self.later[:, place + 1]), 0)
        before = self.total / max(self.labels, 1)
        return float((new / max(self.labels + labels, 1) - before).mean())


class Gains:
    """Changes of AP, the mean over classes and thresholds, by single repairs.

    Args:
        labels: as they are.
        predictions: over the same images and categories.
    """

    def __init__(self, labels: Tables, predictions: Tables):
        matching = match(labels, predictions, np.asarray(IOU_THRESHOLDS))
        count = len(matching.thresholds)
        found = np.stack([matching.found(t) for t in range(count)])[:, matching.order]  # (T, D)
        hit = np.stack([matching.outcomes(t)[0] for t in range(count)])[:, matching.order]
        totals = matching.truth_counts()
        self.classes = max(1, int((totals > 0).sum()))
        bounds = matching.starts
        self.rankings = [_Ranking.of(hit[:, a:b], int(n)) for a, b, n in zip(bounds[:-1], bounds[1:], totals)]
        rows, category = matching.det_row[matching.order], matching.det_category[matching.order]
        self.place = np.full(len(predictions.boxes), -1)
        self.place[rows] = np.arange(len(rows)) - bounds[category]
        self.hit = np.zeros((count, len(predictions.boxes)), dtype=bool)
        self.hit[:, rows] = hit
        self.finder = np.full((count, len(labels.boxes)), -1)  # row of the prediction that found a label
        for t in range(count):
            there = np.flatnonzero(found[t] >= 0)
            self.finder[t, matching.gt_row[found[t, there]]] = rows[there]
        self.labels, self.predictions = labels.rotated(), predictions.rotated()
        self.category = predictions.boxes["category_id"].to_numpy()
        self.label_category = labels.boxes["category_id"].to_numpy()

    def added(self, prediction: int) -> float:
        """A label is added where a prediction is."""
        return self._becomes_true(prediction, 1)

    def moved(self, prediction: int) -> float:
        """A label gets the box of the prediction that means it."""
        return self._becomes_true(prediction, 0)

    def removed(self, label: int) -> float:
        """A label goes; what had found it is wrong then."""
        ranking = self.rankings[self.label_category[label]]
        finders = self.finder[:, label]
        unfound = ranking.change(-1, 0, finders < 0, -1)
        lost = [
            ranking.change(self.place[p], -1, finders == p, -1) - unfound
            for p in np.unique(finders[finders >= 0])
        ]
        return (unfound + sum(lost)) / self.classes

    def renamed(self, label: int, prediction: int) -> float:
        """A label gets the class of a prediction."""
        ranking = self.rankings[self.category[prediction]]
        iou = float(pairwise_iou(self.labels[label][None], self.predictions[prediction][None])[0, 0])
        wanted = (np.asarray(IOU_THRESHOLDS) <= iou) & ~self.hit[:, prediction]
        new = ranking.change(self.place[prediction], 1, wanted, 1) / self.classes
        return self.removed(label) + new

    def _becomes_true(self, prediction: int, labels: int) -> float:
        ranking = self.rankings[self.category[prediction]]
        wanted = ~self.hit[:, prediction]
        return ranking.change(self.place[prediction], 1, wanted, labels) / self.classes
