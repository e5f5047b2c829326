"""Boxes of two tables that overlap, image by image, without a loop over images."""

from dataclasses import dataclass

import numpy as np

from boxwright.geometry.conventions import corners
from boxwright.geometry.iou import aligned_iou

MOST = 4_000_000  # pairs that are compared at once


@dataclass(frozen=True)
class Pairs:
    """Pairs of boxes of the same image.

    Attributes:
        first, second: (P,) their rows.
        iou: (P,).
    """

    first: np.ndarray
    second: np.ndarray
    iou: np.ndarray

    def where(self, wanted: np.ndarray) -> "Pairs":
        """Some of them, (P,) bool."""
        return Pairs(self.first[wanted], self.second[wanted], self.iou[wanted])


def overlapping(
    first: np.ndarray, first_image: np.ndarray, second: np.ndarray, second_image: np.ndarray, least: float
) -> Pairs:
    """All pairs of an image with an IoU above `least`, sorted by `first`.

    Args:
        first: (N, 5) cx, cy, w, h, angle.
        first_image: (N,) their images.
        second: (M, 5).
        second_image: (M,).
        least: 0 or more.
    """
    counts = np.bincount(second_image, minlength=first_image.max(initial=-1) + 1)[first_image]
    upright = not (first[:, 4].any() or second[:, 4].any())
    hull = _hulls(first), _hulls(second)
    found = []
    for rows in np.split(np.arange(len(first)), np.flatnonzero(np.diff(np.cumsum(counts) // MOST)) + 1):
        a, b = joined(first_image[rows], second_image)
        a = rows[a]
        near = (hull[0][a, :2] < hull[1][b, 2:]).all(1) & (hull[1][b, :2] < hull[0][a, 2:]).all(1)
        a, b = a[near], b[near]
        iou = aligned_iou(_xywh(first[a]), _xywh(second[b])) if upright else aligned_iou(first[a], second[b])
        found.append(Pairs(a, b, iou).where(iou > least))
    return Pairs(*(np.concatenate([getattr(p, n) for p in found]) for n in ("first", "second", "iou")))


def joined(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (P,) in two lists of numbers, (N,) and (M,), of all equal pairs, sorted by the first."""
    order = np.argsort(second, kind="stable")
    starts = np.searchsorted(second[order], first)
    counts = np.searchsorted(second[order], first, side="right") - starts
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(np.arange(len(first)), counts), order[np.repeat(starts, counts) + within]


def _hulls(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) x1, y1, x2, y2."""
    points = corners(boxes)
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.column_stack([boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, 2:4]])


def greatest(values: np.ndarray, groups: np.ndarray, count: int, blank: float = 0.0) -> np.ndarray:
    """(count,) the greatest value of each group, `blank` for one that has none.

    Args:
        values: (P,).
        groups: (P,) int.
    """
    result = np.full(count, -np.inf)
    np.maximum.at(result, groups, values)
    return np.where(np.isneginf(result), blank, result)


def best(values: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """(count,) place in `values` (P,) of the greatest of each group, -1 for one that has none."""
    result = np.full(count, -1)
    order = np.lexsort((values, groups))
    result[groups[order]] = order  # the last of a group stays
    return result
