"""Large images in tiles: where they lie, and one detection an object of what several tiles have seen.

An object no larger than the overlap is whole in at least one tile. Another may hold a piece of it, whose box
overlaps the whole one's too little for non-maximum suppression: a piece is recognised by the tile's edge that
it touches, and goes when a whole box covers it.
"""

import math

import numpy as np

from boxwright.errors import ConfigError
from boxwright.geometry.conventions import corners
from boxwright.geometry.fusion import weighted_box_fusion
from boxwright.geometry.iou import pairwise_iou
from boxwright.geometry.nms import nms, soft_nms

MERGES = ("nms", "soft", "fuse")
COVERED = 0.5  # share of a piece inside a whole box from which both are one object
PAIRS = 4_000_000  # of a piece and a whole box that are looked at together: an image may have 100,000 boxes


def tile_windows(size: tuple[int, int], tile: tuple[int, int], overlap: tuple[float, float]) -> np.ndarray:
    """Windows (T, 4) x1, y1, x2, y2 in whole pixels that cover an image of `size`, row by row.

    They are evenly spaced, share `overlap` pixels or more, and leave the image only where it is smaller than
    a `tile`.

    Raises:
        ConfigError: tiles that don't get on for overlapping.
    """
    starts = [_starts(s, t, o) for s, t, o in zip(size, tile, overlap)]
    x, y = np.meshgrid(*starts)
    first = np.stack([x.ravel(), y.ravel()], axis=1)
    return np.concatenate([first, first + np.array(tile)], axis=1)


def fit_tile(length: float, most: int, overlap: float, stride: int) -> int:
    """The side of as few tiles as cover a `length` with sides of `most` pixels, as small as they may be.

    Args:
        length: of the image.
        most: pixels of a tile.
        overlap: pixels that neighbours have in common.
        stride: that the side is a multiple of, upwards.

    Raises:
        ConfigError: tiles that don't get on for overlapping.
    """
    if overlap >= most:
        raise ConfigError(f"tiles of {most} px that share {overlap:g} px; expected larger ones.")
    count = max(1, math.ceil((length - overlap) / (most - overlap)))
    return math.ceil(max(1.0, (length + (count - 1) * overlap) / count) / stride) * stride


def choose_tile(
    size: tuple[float, float], area: int, overlap: float, stride: int, least: int = 0
) -> tuple[int, int]:
    """The (width, height) of tiles with which a network sees the fewest pixels in all.

    Args:
        size: (width, height) of the image.
        area: greatest, of a tile.
        overlap: pixels that neighbours have in common.
        stride: that the sides are multiples of, upwards.
        least: side.

    Raises:
        ConfigError: no tile of the area gets on for overlapping.
    """
    (widths, columns), (heights, rows) = (_sides(length, overlap, stride, least) for length in size)
    # Edges cost too: they cut objects.
    pixels = np.outer(columns * (widths + stride), rows * (heights + stride))
    pixels[np.outer(widths, heights) > area] = np.inf
    x, y = np.unravel_index(pixels.argmin(), pixels.shape)
    if np.isinf(pixels[x, y]):
        raise ConfigError(f"tiles of {area:,} px in all that share {overlap:g} px; expected larger ones.")
    return int(widths[x]), int(heights[y])


def _sides(length: float, overlap: float, stride: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """For each number of tiles that can cover a length, the least side that does, and the number."""
    low = max(1, math.ceil(least / stride)) * stride
    sides = np.arange(low, max(low, math.ceil(length / stride) * stride) + 1, stride)
    sides = sides[(sides > overlap) | (sides >= length)]
    counts = np.ones(len(sides))
    several = sides < length
    counts[several] = np.ceil((length - overlap) / (sides[several] - overlap))
    counts, first = np.unique(counts, return_index=True)  # the first of a count is its least side
    return sides[first], counts


def hulls_of(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) xyxy hulls of boxes (N, 4) xyxy or (N, 5) oriented."""
    if boxes.shape[1] == 4:
        return boxes
    points = corners(boxes)
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def is_cut(boxes: np.ndarray, windows: np.ndarray, size: tuple[int, int], margin: float) -> np.ndarray:
    """(N,) bool: boxes, (N, 4) xyxy or (N, 5), that come within `margin` of an edge of their window (N, 4)
    which is none of the image's.
    """
    hulls, limit = hulls_of(boxes), np.array(size)
    low = (hulls[:, :2] < windows[:, :2] + margin) & (windows[:, :2] > 0)
    high = (hulls[:, 2:] > windows[:, 2:] - margin) & (windows[:, 2:] < limit)
    return np.any(low | high, axis=1)


def merge_tiles(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    cut: np.ndarray,
    merge: str,
    iou_threshold: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The detections of an image out of those of its tiles, best first.

    Args:
        boxes: (N, 4) xyxy or (N, 5), pixels of the image.
        scores: (N,).
        labels: (N,) integers.
        cut: (N,) bool, boxes that a tile's edge cuts.
        merge: "nms", "soft" (gaussian soft-NMS) or "fuse" (weighted box fusion, scores by the best).
        iou_threshold: from which boxes of a class are one object; not of "soft".

    Returns:
        boxes, scores, labels, and the place of each one's best box among those given.

    Raises:
        ConfigError: an unknown merge.
    """
    if merge not in MERGES:
        raise ConfigError(f"merge '{merge}', expected one of {', '.join(MERGES)}.")
    kept = np.flatnonzero(~_seen_whole(boxes, labels, cut))
    boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    if merge == "fuse":
        fused, scores, labels, best = weighted_box_fusion(
            [_spelled(boxes)], [scores], [labels], iou_threshold=iou_threshold, confidence="max"
        )
        return _back(fused), scores, labels, kept[best]
    if merge == "soft":
        order, scores = soft_nms(_spelled(boxes), scores, labels=labels)
        return boxes[order], scores, labels[order], kept[order]
    order = nms(_spelled(boxes), scores, iou_threshold, labels)
    return boxes[order], scores[order], labels[order], kept[order]


def _seen_whole(boxes: np.ndarray, labels: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """(N,) bool: pieces of objects that another tile has seen whole."""
    gone = np.zeros(len(boxes), dtype=bool)
    spelled = _spelled(boxes)
    for label in np.unique(labels[cut]):
        pieces, wholes = (np.flatnonzero(part & (labels == label)) for part in (cut, ~cut))
        if len(wholes):
            for some in np.array_split(pieces, -(-len(pieces) * len(wholes) // PAIRS)):
                covered = pairwise_iou(spelled[some], spelled[wholes], "coverage").max(axis=1)
                gone[some] = covered >= COVERED
    return gone


def _spelled(boxes: np.ndarray) -> np.ndarray:
    """As the kernels take them: oriented, or xywh."""
    if boxes.shape[1] == 5:
        return boxes
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _back(boxes: np.ndarray) -> np.ndarray:
    if boxes.shape[1] == 5:
        return boxes
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _starts(length: int, tile: int, overlap: float) -> np.ndarray:
    if length <= tile:
        return np.zeros(1, dtype=np.int64)
    if not 0 <= overlap < tile:
        raise ConfigError(
            f"tiles of {tile} px that share {overlap:g} px; expected tiles larger than what they share."
        )
    count = math.ceil((length - overlap) / (tile - overlap))
    return np.floor(np.linspace(0, length - tile, count)).astype(np.int64)
