"""Non-maximum suppression in its variants, over upright (N, 4) xywh and oriented (N, 5) cxcywh-angle boxes.

Detections of equal score are taken in the order they stand in. With `labels`, boxes of different labels never
meet.
"""

import numpy as np

from boxwright.errors import ConfigError
from boxwright.geometry.compilation import kernel
from boxwright.geometry.iou import prepare
from boxwright.geometry.kernels import UPRIGHT, hull_of, overlap

DENSE = 48  # boxes; below this, looking at every pair is faster than a grid


def nms(
    boxes: np.ndarray, scores: np.ndarray, iou_threshold: float, labels: np.ndarray | None = None
) -> np.ndarray:
    """Greedy suppression: a box goes when its IoU with a better one that stays is above the threshold.

    Args:
        boxes: (N, 4) xywh or (N, 5) cxcywh and angle.
        scores: (N,).
        iou_threshold: in [0, 1].
        labels: (N,) integers; None: every box competes with every other.

    Returns:
        Indices that stay, by descending score, int64.

    Raises:
        ConfigError: arrays or a threshold that can't be meant.
    """
    boxes, scores, labels = _check(boxes, scores, labels, iou_threshold)
    order = np.lexsort((-scores, labels))
    start = _starts(labels[order])
    kept = np.zeros(len(boxes), dtype=np.bool_)
    _hard(boxes, order, start, iou_threshold, kept)
    by_score = np.argsort(-scores, kind="stable")
    return by_score[kept[by_score]]


def adaptive_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    densities: np.ndarray,
    iou_threshold: float,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """Suppression that spares crowds: a kept box suppresses at IoU >= max(threshold, its density).

    Liu et al., Adaptive NMS: Refining Pedestrian Detection in a Crowd, CVPR 2019, eq. 4.

    Args:
        boxes: (N, 4) or (N, 5).
        scores: (N,).
        densities: (N,) the greatest IoU each object is predicted to have with another.
        iou_threshold: in [0, 1].
        labels: (N,) or None.

    Returns:
        Indices that stay, by descending score.
    """
    boxes, scores, labels = _check(boxes, scores, labels, iou_threshold)
    densities = np.ascontiguousarray(densities, dtype=np.float64)
    if densities.shape != scores.shape:
        raise ConfigError(f"{densities.shape} densities for {len(boxes)} boxes.")
    order = np.argsort(-scores, kind="stable")
    kept = np.zeros(len(boxes), dtype=np.bool_)
    _adaptive(boxes, labels, order, np.maximum(densities, iou_threshold), kept)
    return order[kept[order]]


def soft_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    method: str = "gaussian",
    iou_threshold: float = 0.5,
    sigma: float = 0.5,
    min_score: float = 0.001,
    labels: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower the scores of boxes that overlap a better one, instead of removing them.

    Bodla et al., Soft-NMS, ICCV 2017, eq. 3 and the gaussian form below it.

    Args:
        boxes: (N, 4) or (N, 5).
        scores: (N,).
        method: "linear" (times 1 - IoU above the threshold), "gaussian" (times exp(-IoU^2 / sigma)) or
            "hard".
        iou_threshold: of "linear" and "hard".
        sigma: of "gaussian".
        min_score: boxes whose score falls to it or below are left out.
        labels: (N,) or None.

    Returns:
        Indices by descending new score, and the new scores.
    """
    methods = ("linear", "gaussian", "hard")
    if method not in methods:
        raise ConfigError(f"method '{method}', expected one of {', '.join(methods)}.")
    if sigma <= 0:
        raise ConfigError(f"sigma {sigma}, expected above 0.")
    boxes, scores, labels = _check(boxes, scores, labels, iou_threshold)
    new = scores.copy()
    order = np.empty(len(boxes), dtype=np.int64)
    count = _soft(boxes, labels, new, methods.index(method), iou_threshold, sigma, min_score, order)
    # Labels are decayed apart, so the order is that of all labels together.
    kept = np.sort(order[:count])
    kept = kept[np.argsort(-new[kept], kind="stable")]
    return kept, new[kept]


def matrix_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    method: str = "gaussian",
    sigma: float = 2.0,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """New scores (N,), each decayed by its worst better neighbour at once, in the order of the input.

    Wang et al., SOLOv2, NeurIPS 2020, section 3.3: the decay by a neighbour is divided by how much that
    neighbour was itself overlapped. Linear: (1 - IoU) / (1 - cmax); gaussian: exp(-sigma (IoU^2 - cmax^2)).
    """
    if method not in ("linear", "gaussian"):
        raise ConfigError(f"method '{method}', expected linear or gaussian.")
    boxes, scores, labels = _check(boxes, scores, labels, 0.0)
    order = np.lexsort((-scores, labels))
    new = scores.copy()
    _matrix(boxes, order, _starts(labels[order]), method == "gaussian", sigma, new)
    return new


def _check(boxes, scores, labels, iou_threshold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes = prepare(boxes)
    scores = np.ascontiguousarray(scores, dtype=np.float64)
    labels = np.zeros(len(boxes), dtype=np.int64) if labels is None else np.asarray(labels, dtype=np.int64)
    if scores.shape != (len(boxes),) or labels.shape != (len(boxes),):
        raise ConfigError(f"{scores.shape} scores and {labels.shape} labels for {len(boxes)} boxes.")
    if np.isnan(scores).any():
        raise ConfigError("a score is NaN.")
    if not 0 <= iou_threshold <= 1:
        raise ConfigError(f"IoU threshold {iou_threshold}, expected 0 to 1.")
    return boxes, scores, labels


def _starts(sorted_labels: np.ndarray) -> np.ndarray:
    """Where each run of equal labels starts, and the length."""
    if len(sorted_labels) == 0:
        return np.zeros(1, dtype=np.int64)
    changes = np.flatnonzero(np.diff(sorted_labels)) + 1
    return np.concatenate([[0], changes, [len(sorted_labels)]]).astype(np.int64)


@kernel
def _hard(boxes, order, start, threshold, kept):
    for group in range(len(start) - 1):
        members = order[start[group] : start[group + 1]]
        if len(members) < DENSE:
            _hard_dense(boxes, members, threshold, kept)
        else:
            _hard_grid(boxes, members, threshold, kept)


@kernel
def _hard_dense(boxes, members, threshold, kept):
    for n in range(len(members)):
        i, stays = members[n], True
        for m in range(n):
            if kept[members[m]] and overlap(boxes, members[m], boxes, i, False) > threshold:
                stays = False
                break
        kept[i] = stays


@kernel
def _hard_grid(boxes, members, threshold, kept):
    """Kept boxes lie in a grid by their centres; a box is compared with those that could suppress it.

    IoU above t bounds the distance of the centres by the box's own size (see `_reach`), so the cells to
    search into are few, however many boxes there are.
    """
    count = len(members)
    centers, reach = np.empty((count, 2)), np.empty((count, 2))
    largest = np.zeros(2)
    for n in range(count):
        largest[0] = max(largest[0], _half_extent(boxes, members[n], 0))
        largest[1] = max(largest[1], _half_extent(boxes, members[n], 1))
    for n in range(count):
        for axis in range(2):
            offset = boxes[members[n], 2 + axis] / 2 if boxes.shape[1] == UPRIGHT else 0.0
            centers[n, axis] = boxes[members[n], axis] + offset
            reach[n, axis] = _reach(boxes, members[n], axis, threshold, largest[axis])
    low = np.array([centers[:, 0].min(), centers[:, 1].min()])
    extent = np.array([centers[:, 0].max(), centers[:, 1].max()]) - low
    # About as many cells as boxes, none smaller than the usual reach.
    size = np.empty(2)
    side = int(np.sqrt(count)) + 1
    for axis in range(2):
        size[axis] = max(extent[axis] / side, np.median(reach[:, axis]), 1e-300)
    columns, rows = int(extent[0] / size[0]) + 1, int(extent[1] / size[1]) + 1
    head = np.full(columns * rows, -1, dtype=np.int64)
    following = np.full(count, -1, dtype=np.int64)
    for n in range(count):
        i, stays = members[n], True
        x0 = max(int((centers[n, 0] - reach[n, 0] - low[0]) / size[0]), 0)
        x1 = min(int((centers[n, 0] + reach[n, 0] - low[0]) / size[0]), columns - 1)
        y0 = max(int((centers[n, 1] - reach[n, 1] - low[1]) / size[1]), 0)
        y1 = min(int((centers[n, 1] + reach[n, 1] - low[1]) / size[1]), rows - 1)
        for row in range(y0, y1 + 1):
            for column in range(x0, x1 + 1):
                other = head[row * columns + column]
                while other >= 0 and stays:
                    stays = not overlap(boxes, members[other], boxes, i, False) > threshold
                    other = following[other]
                if not stays:
                    break
            if not stays:
                break
        kept[i] = stays
        if stays:
            column, row = int((centers[n, 0] - low[0]) / size[0]), int((centers[n, 1] - low[1]) / size[1])
            cell = min(row, rows - 1) * columns + min(column, columns - 1)
            following[n], head[cell] = head[cell], n


@kernel
def _half_extent(boxes, i, axis):
    """Half the side of the upright hull."""
    left, top, right, bottom = hull_of(boxes, i)
    return (right - left) / 2 if axis == 0 else (bottom - top) / 2


@kernel
def _reach(boxes, i, axis, threshold, largest):
    """How far along an axis the centre of a box can lie whose IoU with box `i` is above the threshold.

    Hulls must meet: half of both. Upright boxes of sides a, b also share at least t max(a, b), so the
    distance is at most (a + b) / 2 - t max(a, b) with t a <= b <= a / t: at its greatest a (1 - t) or
    a (1 / t - 1) / 2. A thousandth is added for rounding.
    """
    half = _half_extent(boxes, i, axis)
    result = half + largest
    if boxes.shape[1] == UPRIGHT and threshold > 0:
        result = min(result, 2 * half * max(1 - threshold, (1 / threshold - 1) / 2))
    return result * 1.001 + 1e-9 * abs(boxes[i, axis])


@kernel
def _adaptive(boxes, labels, order, thresholds, kept):
    for n in range(len(order)):
        i, stays = order[n], True
        for m in range(n):
            j = order[m]
            if kept[j] and labels[i] == labels[j]:
                iou = overlap(boxes, j, boxes, i, False)
                if iou >= thresholds[j]:
                    stays = False
                    break
        kept[i] = stays


@kernel
def _soft(boxes, labels, scores, method, threshold, sigma, min_score, order):
    left = np.ones(len(boxes), dtype=np.bool_)
    count = 0
    while True:
        best = -1
        for i in range(len(boxes)):
            if left[i] and scores[i] > min_score and (best < 0 or scores[i] > scores[best]):
                best = i
        if best < 0:
            return count
        left[best] = False
        order[count] = best
        count += 1
        for i in range(len(boxes)):
            if left[i] and labels[i] == labels[best]:
                iou = overlap(boxes, best, boxes, i, False)
                if method == 1:
                    scores[i] *= np.exp(-iou * iou / sigma)
                elif iou > threshold:
                    scores[i] *= 1 - iou if method == 0 else 0.0


@kernel
def _matrix(boxes, order, start, gaussian, sigma, scores):
    for group in range(len(start) - 1):
        members = order[start[group] : start[group + 1]]
        cmax = np.zeros(len(members))
        for n in range(len(members)):
            decay = 1.0
            for m in range(n):
                iou = overlap(boxes, members[m], boxes, members[n], False)
                cmax[n] = max(cmax[n], iou)
                if gaussian:
                    decay = min(decay, np.exp(-sigma * (iou * iou - cmax[m] * cmax[m])))
                elif cmax[m] < 1:
                    decay = min(decay, (1 - iou) / (1 - cmax[m]))
            scores[members[n]] *= decay
