"""In which order images are best looked at: by the audit, by the model's doubt, by disagreement."""

import numpy as np
import polars as pl

from boxwright.auditing.pairs import overlapping
from boxwright.data.tables import Tables

SAME = 0.5  # IoU from which a label and a prediction are of one object
AT_ONCE = 256  # points that are compared with all others at once
SIDES = (32.0, 96.0)  # px that part small, medium and large objects
SURE = 0.5  # score from which a prediction without a label counts


def queues(
    labels: Tables,
    predictions: Tables | None = None,
    suspicions: pl.DataFrame | None = None,
    known: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """What speaks for looking at each image, by the queue's name; the greatest first.

    `wrong labels` is the number of faults that an audit expects and `gain` the AP of repairing them.
    `uncertainty` is the entropy of the predictions' scores, in bits, and `disagreement` how many labels have
    no prediction and how many sure predictions no label of their class. `to learn from` is the order in which
    uncertain images that are unlike each other are taken, see `unlike_order`.

    Args:
        labels: of I images.
        predictions: over the same images and categories.
        suspicions: of `auditing.suspicions.suspect`.
        known: (I,) bool, images that were looked at already.

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
        known = np.zeros(count, dtype=bool) if known is None else known
        order = unlike_order(found["uncertainty"], describe(predictions), known)
        found["to learn from"] = np.zeros(count)
        found["to learn from"][order] = np.arange(len(order), 0, -1)
    return found


def entropy(score: np.ndarray) -> np.ndarray:
    """(N,) bits of doubt in scores that are probabilities."""
    p = np.clip(score, 1e-12, 1 - 1e-12)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def describe(predictions: Tables) -> np.ndarray:
    """(I, K + 3) what is expected in each image, in standard deviations: objects by class, and of a shorter
    side below 32 px, below 96 px and beyond, as logarithms of their numbers.
    """
    boxes, count = predictions.boxes, len(predictions.images)
    side = boxes.select(pl.min_horizontal("w", "h").alias("side"))["side"].to_numpy()
    classes = len(predictions.categories)
    found = np.zeros((count, classes + len(SIDES) + 1))
    image, score = boxes["image_id"].to_numpy(), boxes["score"].to_numpy()
    np.add.at(found, (image, boxes["category_id"].to_numpy()), score)
    np.add.at(found, (image, classes + np.digitize(side, SIDES)), score)
    logs = np.log1p(found)
    spread = logs.std(axis=0)
    return logs / np.where(spread > 0, spread, 1.0)


def unlike_order(weight: np.ndarray, points: np.ndarray, known: np.ndarray, most: int = 500) -> np.ndarray:
    """Images that aren't known, those first that weigh much and are unlike all that were taken before.

    Greedy k-centres (Sener and Savarese, Core-Set, ICLR 2018, algorithm 1), whose distances are multiplied by
    the weights; after the first `most`, by weight alone.

    Args:
        weight: (I,) not negative.
        points: (I, D).
        known: (I,) bool.
        most: images that are taken so.
    """
    left = ~known
    # Where nothing is known the first is the one that weighs most.
    order, first = [], not known.any()
    far = np.ones(len(points)) if first else _nearest(points, points[known])
    while left.any() and len(order) < most:
        value = np.where(left, weight * far, -1.0)
        n = int(value.argmax())
        order.append(n)
        left[n] = False
        away = np.linalg.norm(points - points[n], axis=1)
        far, first = (away if first else np.minimum(far, away)), False
    rest = np.flatnonzero(left)
    return np.array([*order, *rest[np.argsort(-weight[rest], kind="stable")]], dtype=np.int64)


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(I,) distance of each point (I, D) to the nearest of others (M, D)."""
    nearest = np.full(len(points), np.inf)
    for part in np.array_split(others, -(-len(others) // AT_ONCE)):
        squares = (points**2).sum(1)[:, None] - 2 * points @ part.T + (part**2).sum(1)
        nearest = np.minimum(nearest, squares.min(axis=1))
    return np.sqrt(np.maximum(nearest, 0.0))


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
