"""A detector that answers requests: its batches, and boxes as plain values."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from boxwright.data.confident import confident
from boxwright.data.samples import Sample
from boxwright.data.tables import Tables
from boxwright.prediction.predictor import Predictor
from boxwright.prediction.video import image_table
from boxwright.serving.batching import Batcher
from boxwright.serving.limits import Limits


class Served:
    """A predictor of whole images behind a batcher.

    Args:
        predictor: ready.
        limits: size of batches, how long they wait, and how many may.
    """

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor = predictor
        self.batcher = Batcher(self._find, limits.batch, limits.wait, limits.queue)

    def describe(self) -> dict[str, Any]:
        """What a client should know."""
        loaded = self.predictor.loaded
        thresholds = {name: point.threshold for name, point in loaded.operating.points.items()}
        return {
            "classes": loaded.categories,
            "oriented": self.predictor.model.oriented,
            "landmarks": self.predictor.model.finds_landmarks,
            "image_size": list(loaded.config.image_size),
            "thresholds": thresholds,
            "max_detections": self.predictor.limit,
        }

    def tables(self, rows: np.ndarray, size: tuple[int, int], min_score: float | None) -> Tables:
        """Rows of one image of `size` as tables, those above a score or their operating thresholds alone."""
        rows = rows.copy()
        rows[:, 0] = 0  # it was one of a batch
        tables = self.predictor.tables([rows], image_table("request", size, [(1, 0.0)]))
        return tables.with_boxes(tables.boxes.filter(confident(tables, min_score)))

    def _find(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        return self.predictor.find_fitted(samples)


def boxes_of(tables: Tables) -> list[dict[str, Any]]:
    """Boxes as plain values, best first; null angles and landmarks are left out."""
    names = tables.categories["name"].to_list()
    columns = ("category_id", "score", *"xywh", "angle", "landmarks")
    rows = tables.boxes.select(columns).sort("score", descending=True).to_dicts()
    return [
        {"class": names[row["category_id"]]} | {k: v for k, v in row.items() if v is not None} for row in rows
    ]


def coco_of(tables: Tables, image_id: int) -> list[dict[str, Any]]:
    """Boxes as COCO's results, upright hulls of oriented ones; categories count from 1."""
    rows = zip(tables.boxes["category_id"], tables.upright().tolist(), tables.boxes["score"], strict=True)
    return [
        {"image_id": image_id, "category_id": category + 1, "bbox": box, "score": score}
        for category, box, score in rows
    ]
