"""In which order images are best looked at: by the audit, by the model's doubt, by disagreement."""

import numpy as np
import polars as pl

from boxwright.auditing.pairs import overlapping
from boxwright.data.tables import Tables

SAME = 0.5  # IoU from which a label and a prediction are of one object
SURE = 0.5  # score from which a prediction without a label counts


def queues(
    labels: Tables, predictions: Tables | None = None, suspicions: pl.DataFrame | None = None
) -> dict[str, np.ndarray]:
    """What speaks for looking at each image, by the queue's name; the greatest first.

    `wrong labels` is the number of faults that an audit expects and `gain` the AP of repairing them.
    `uncertainty` is the entropy of the predictions' scores, in bits, and `disagreement` how many labels have
    no prediction and how many sure predictions no label of their class.

    Args:
        labels: of I images.
        predictions: over the same images and categories.
        suspicions: of `auditing.suspicions.suspect`.

    Returns:
        (I,) float64 each.
    """
    count = len(labels.images)
    found: dict[str, np.ndarray] = {}
    if suspicions is not None:
        image = suspicions["image_id"].to_numpy()
        for name, column in (("wrong labels", "probability"), ("gain", "gain")):
            found[name] = np.bincount(image, suspicions[column].to_numpy(), minlength=count)
    if predictions is not None:
        score = predictions.boxes["score"].to_numpy()
        image = predictions.boxes["image_id"].to_numpy()
        found["uncertainty"] = np.bincount(image, entropy(score), minlength=count)
        found["disagreement"] = _disagreement(labels, predictions, count)
    return found


def entropy(score: np.ndarray) -> np.ndarray:
    """(N,) bits of doubt in scores that are probabilities."""
    p = np.clip(score, 1e-12, 1 - 1e-12)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def _disagreement(labels: Tables, predictions: Tables, count: int) -> np.ndarray:
    image = labels.boxes["image_id"].to_numpy(), predictions.boxes["image_id"].to_numpy()
    category = labels.boxes["category_id"].to_numpy(), predictions.boxes["category_id"].to_numpy()
    pairs = overlapping(labels.rotated(), image[0], predictions.rotated(), image[1], SAME)
    pairs = pairs.where(category[0][pairs.first] == category[1][pairs.second])
    alone = np.ones(len(labels.boxes), dtype=bool)
    alone[pairs.first] = False
    alone &= ~(labels.boxes["ignore"] | labels.boxes["crowd"]).to_numpy()
    extra = predictions.boxes["score"].to_numpy() >= SURE
    extra[pairs.second] = False
    return (
        np.bincount(image[0][alone], minlength=count) + np.bincount(image[1][extra], minlength=count)
    ).astype(float)
