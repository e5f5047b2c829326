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


def associate(
    found: np.ndarray, worth: np.ndarray, least: float, tracks: np.ndarray, boxes: np.ndarray
) -> None:
    """Tracks for boxes that have none yet, into `found` (N,): the pairs whose worth (T, N) beyond `least` is
    greatest in all, each above it; of the tracks (T,) bool and boxes (N,) bool alone."""
    free = tracks.copy()
    free[found[found >= 0]] = False
    rows, columns = np.flatnonzero(free), np.flatnonzero(boxes & (found < 0))
    pairs = best_pairs(worth[np.ix_(rows, columns)] - least)
    found[columns[pairs[:, 1]]] = rows[pairs[:, 0]]
