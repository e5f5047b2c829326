"""Which track each box goes on: overlaps, and the pairs of most worth."""

import numpy as np

from boxwright.evaluation.assignment import best_pairs
from boxwright.geometry.iou import pairwise_iou

# Of its size that an oriented box is wider and longer for a track: a thin one would leave its place after a
# step (Yang et al., C-BIoU, WACV 2023). Measured on synthetic traffic, `benchmarks/tracking.py`.
BUFFER = 0.7


def overlaps(tracks: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU (T, N) of cx, cy, w, h; with an angle, exact overlap of boxes that `BUFFER` makes larger."""
    if tracks.shape[1] == 4:
        tracks, boxes = (np.column_stack([b[:, :2] - b[:, 2:] / 2, b[:, 2:]]) for b in (tracks, boxes))
        return pairwise_iou(tracks, boxes)
    return pairwise_iou(_buffered(tracks), _buffered(boxes))


def _buffered(boxes: np.ndarray) -> np.ndarray:
    grown = boxes.copy()
    grown[:, 2:4] += BUFFER * np.sqrt(boxes[:, 2:3] * boxes[:, 3:4])
    return grown


def pair(worth: np.ndarray, least: float, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(K, 2) rows and columns of the pairs whose worth beyond `least` is greatest in all, each above it; of
    the given rows and columns (indices) alone."""
    pairs = best_pairs(worth[np.ix_(rows, columns)] - least)
    return np.column_stack([rows[pairs[:, 0]], columns[pairs[:, 1]]])
