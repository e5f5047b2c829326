"""Anchors fitted to a data set, and how well any anchors can do."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from boxwright.data.tables import Tables
from boxwright.data.transforms import fitted_size
from boxwright.errors import ConfigError, DataError
from boxwright.progress import progress_bar

RECALL_IOU = 0.5  # from which an anchor can be positive
STRIDES = (8, 16, 32)  # of the maps that three groups of anchors stand on
MUTATED = 0.9  # chance of a side to be changed by a generation
SPREAD = 0.1  # of a mutated side, as a factor's deviation
ITERATIONS = 300  # of k-means, at most
LONG = 95  # percentile of aspect ratios that stands for long boxes


@dataclass(frozen=True)
class AnchorFit:
    """Anchors, and what they reach.

    Attributes:
        anchors: (K, 2) widths and heights, pixels of the network's input, by area.
        mean_iou: of the boxes with their best anchor, centres upon each other.
        recall: share of boxes whose best anchor has an IoU of `RECALL_IOU` or more (best possible recall).
        counts: boxes that each anchor is best for.
        certain_recall: share of boxes that reach it wherever they lie, where the anchors stand on `STRIDES`,
            a third on each; None: their number can't be divided by three.
        long_ratio: long side over short of the longest twentieth of the boxes.
        square_iou: the most that any square anchor reaches with a box of that shape.
    """

    anchors: np.ndarray
    mean_iou: float
    recall: float
    counts: np.ndarray
    certain_recall: float | None
    long_ratio: float
    square_iou: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return vars(self) | {"anchors": self.anchors.tolist(), "counts": self.counts.tolist()}


def fit_anchors(
    tables: Tables,
    count: int = 9,
    image_size: tuple[int, int] = (640, 640),
    generations: int = 1000,
    seed: int = 0,
) -> AnchorFit:
    """Choose anchors whose mean IoU with a data set's boxes is greatest.

    K-means with 1 - IoU as the distance (Redmon and Farhadi, YOLO9000, CVPR 2017, section 2), then mutation
    and selection, as the YOLO toolboxes do.

    Args:
        tables: with boxes; ignored ones don't count.
        count: anchors.
        image_size: (width, height) that images are fitted into.
        generations: of the genetic search; 0: k-means alone.
        seed: of all randomness.

    Raises:
        DataError: fewer different boxes than anchors, or images of unknown size.
        ConfigError: no anchors, or a negative number of generations.

    Example:
        >>> boxwright.fit_anchors(boxwright.read("labels"), 9, (608, 608)).anchors
    """
    if count < 1 or generations < 0:
        raise ConfigError(f"{count} anchors in {generations} generations; expected 1 or more, and 0 or more.")
    sizes = fitted_sizes(tables, image_size)
    different = len(np.unique(sizes.round(3), axis=0))
    if different < count:
        raise DataError(f"{different:,} different sizes of boxes, fewer than {count} anchors.")
    rng = np.random.default_rng(seed)
    anchors = _evolve(sizes, _k_means(sizes, count, rng), generations, rng)
    return judge_anchors(sizes, anchors)


def judge_anchors(sizes: np.ndarray, anchors: np.ndarray) -> AnchorFit:
    """What anchors (K, 2) reach on boxes of `sizes` (N, 2)."""
    anchors = anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
    iou = centered_iou(sizes, anchors)
    best = iou.max(axis=1)
    counts = np.bincount(iou.argmax(axis=1), minlength=len(anchors))
    certain = None
    if len(anchors) % len(STRIDES) == 0:
        worst = certain_iou(sizes, anchors, np.repeat(STRIDES, len(anchors) // len(STRIDES)))
        certain = float((worst.max(axis=1) >= RECALL_IOU).mean())
    ratio = float(np.percentile(sizes.max(axis=1) / sizes.min(axis=1), LONG))
    recall = float((best >= RECALL_IOU).mean())
    return AnchorFit(anchors, float(best.mean()), recall, counts, certain, ratio, aspect_bound(ratio))


def fitted_sizes(tables: Tables, image_size: tuple[int, int]) -> np.ndarray:
    """(N, 2) widths and heights of the boxes that count, in images fitted into `image_size`.

    Raises:
        DataError: no box has an area, or an image no size.
    """
    if tables.images["width"].is_null().any():
        raise DataError("the sizes of some images aren't known; read the source with its images.")
    shapes = tables.images.select("width", "height").rows()
    scale = np.array([np.divide(fitted_size(s, image_size), s) for s in shapes]).reshape(-1, 2)
    hulls = tables.upright()[:, 2:]
    counted = (~tables.boxes["crowd"] & ~tables.boxes["ignore"]).to_numpy() & (hulls > 0).all(axis=1)
    sizes = (hulls * scale[tables.boxes["image_id"].to_numpy()])[counted]
    if len(sizes) == 0:
        raise DataError("no box has an area, so there is nothing to fit anchors to.")
    return sizes


def centered_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) IoU of boxes of sizes (N, 2) and (M, 2) whose centres coincide: the most any place can give."""
    overlap = np.minimum(a[:, None], b).prod(axis=2)
    return overlap / (a.prod(axis=1)[:, None] + b.prod(axis=1) - overlap)


def certain_iou(a: np.ndarray, b: np.ndarray, step: float | np.ndarray) -> np.ndarray:
    """(N, M) IoU of boxes (N, 2) with the nearest of anchors (M, 2) that stand every `step` pixels, where the
    box lies worst: half a step away along both axes.
    """
    half = np.broadcast_to(np.asarray(step, dtype=np.float64) / 2, (len(b),))[:, None]
    overlap = np.minimum(np.minimum(a[:, None], b), (a[:, None] + b) / 2 - half).clip(min=0).prod(axis=2)
    return overlap / (a.prod(axis=1)[:, None] + b.prod(axis=1) - overlap)


def aspect_bound(ratio: float, anchor_ratio: float = 1.0) -> float:
    """The greatest IoU that an anchor of one aspect ratio reaches with a box of another, at the best size.

    A square anchor of side x >= 1 against a box of 1 by n x has the IoU 1 / (x + n - 1), which falls with x;
    a box of aspect ratio q times the anchor's, at the anchor's best size, has 1 / (2 sqrt(q) - 1).

    Args:
        ratio: height over width of the box.
        anchor_ratio: of the anchor.
    """
    quotient = max(ratio / anchor_ratio, anchor_ratio / ratio)
    return 1 / (2 * quotient**0.5 - 1)


def _k_means(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 2) centres; each starts far from those before it (k-means++)."""
    centers = sizes[rng.integers(len(sizes))][None]
    while len(centers) < count:
        distance = (1 - centered_iou(sizes, centers)).min(axis=1) ** 2
        centers = np.vstack([centers, sizes[rng.choice(len(sizes), p=distance / distance.sum())]])
    nearest = np.full(len(sizes), -1)
    for _ in range(ITERATIONS):
        before, nearest = nearest, centered_iou(sizes, centers).argmax(axis=1)
        if (before == nearest).all():
            break
        members = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, sizes[:, axis], count) for axis in (0, 1)], axis=1)
        centers = np.where(members[:, None] > 0, sums / np.maximum(members, 1)[:, None], centers)
    return centers


def _evolve(sizes: np.ndarray, anchors: np.ndarray, generations: int, rng: np.random.Generator) -> np.ndarray:
    """Mutants of the anchors, each kept when its mean IoU is greater."""
    best = centered_iou(sizes, anchors).max(axis=1).mean()
    with progress_bar("anchors", generations) as advance:
        for _ in range(generations):
            changed = rng.random(anchors.shape) < MUTATED
            factor = np.where(changed, np.exp(rng.normal(0, SPREAD * rng.random(), anchors.shape)), 1.0)
            mutant = anchors * factor
            fitness = centered_iou(sizes, mutant).max(axis=1).mean()
            if fitness > best:
                best, anchors = fitness, mutant
            advance(1)
    return anchors
