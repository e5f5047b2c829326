"""IoU and its relatives over arrays of boxes, pairwise and aligned.

Boxes are (N, 4) x, y, w, h for upright or (N, 5) cx, cy, w, h, angle for oriented ones; float64 pixels, y
down, angle in radians, positive from x towards y, of any size. All results are float64.
"""

import numpy as np

from boxwright.errors import ConfigError
from boxwright.geometry.compilation import kernel
from boxwright.geometry.kernels import ORIENTED, halves, hull_of, overlap

KINDS = ("iou", "coverage", "giou", "diou", "ciou")


def prepare(boxes: np.ndarray) -> np.ndarray:
    """Boxes as the kernels take them.

    Raises:
        ConfigError: neither (N, 4) nor (N, 5), not finite, or of negative size.
    """
    boxes = np.ascontiguousarray(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise ConfigError(f"boxes of shape {boxes.shape}, expected (N, 4) xywh or (N, 5) cxcywh and angle.")
    if not np.isfinite(boxes).all() or (boxes[:, 2:4] < 0).any():
        raise ConfigError("boxes must be finite, with width and height not negative.")
    return halves(boxes) if boxes.shape[1] == 5 else boxes


def pairwise_iou(a: np.ndarray, b: np.ndarray, kind: str = "iou") -> np.ndarray:
    """Every box of `a` with every box of `b`.

    Args:
        a: (N, 4 or 5).
        b: (M, 4 or 5), upright or oriented as `a` is.
        kind: "iou"; "coverage", intersection over the area of `a`, as crowd and ignore regions are matched;
            for upright boxes also "giou" (Rezatofighi et al., CVPR 2019), "diou" and "ciou" (Zheng et al.,
            Distance-IoU Loss, AAAI 2020, eq. 7 and 10).

    Returns:
        (N, M); 0 where the quotient has no area below it.

    Raises:
        ConfigError: shapes that don't fit, or an unknown kind.
    """
    a, b = _both(a, b, kind)
    result = np.zeros((len(a), len(b)))
    if kind in ("iou", "coverage"):
        _pairwise(a, b, kind == "coverage", result)
    else:
        _pairwise_penalized(a, b, KINDS.index(kind), result)
    return result


def aligned_iou(a: np.ndarray, b: np.ndarray, kind: str = "iou") -> np.ndarray:
    """Row by row of `a` (N, 4 or 5) and `b` (N, the same); (N,). Kinds as in `pairwise_iou`.

    Raises:
        ConfigError: shapes that don't fit, or an unknown kind.
    """
    a, b = _both(a, b, kind)
    if len(a) != len(b):
        raise ConfigError(f"{len(a)} boxes beside {len(b)}, expected as many.")
    result = np.zeros(len(a))
    if kind in ("iou", "coverage"):
        _aligned(a, b, kind == "coverage", result)
    else:
        _aligned_penalized(a, b, KINDS.index(kind), result)
    return result


def _both(a: np.ndarray, b: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    if kind not in KINDS:
        raise ConfigError(f"kind '{kind}', expected one of {', '.join(KINDS)}.")
    a, b = prepare(a), prepare(b)
    if a.shape[1] != b.shape[1]:
        raise ConfigError("upright boxes beside oriented ones; give both an angle.")
    if a.shape[1] == ORIENTED and kind not in ("iou", "coverage"):
        raise ConfigError(f"'{kind}' is defined for upright boxes only.")
    return a, b


@kernel
def _pairwise(a, b, over_a, result):
    hull = np.empty((4, len(b)))
    for j in range(len(b)):
        hull[0, j], hull[1, j], hull[2, j], hull[3, j] = hull_of(b, j)
    left, top, right, bottom = hull
    for i in range(len(a)):
        x0, y0, x1, y1 = hull_of(a, i)
        for j in range(len(b)):
            # Most pairs are far apart: they cost a comparison or two.
            if left[j] < x1 and right[j] > x0 and top[j] < y1 and bottom[j] > y0:
                result[i, j] = overlap(a, i, b, j, over_a)


@kernel
def _aligned(a, b, over_a, result):
    for i in range(len(a)):
        result[i] = overlap(a, i, b, i, over_a)


@kernel
def _pairwise_penalized(a, b, kind, result):
    for i in range(len(a)):
        for j in range(len(b)):
            result[i, j] = _penalized(a, i, b, j, kind)


@kernel
def _aligned_penalized(a, b, kind, result):
    for i in range(len(a)):
        result[i] = _penalized(a, i, b, i, kind)


@kernel
def _penalized(a, i, b, j, kind):
    """GIoU, DIoU or CIoU of two upright boxes; `kind` as in KINDS."""
    iou = overlap(a, i, b, j, False)
    width = max(a[i, 0] + a[i, 2], b[j, 0] + b[j, 2]) - min(a[i, 0], b[j, 0])
    height = max(a[i, 1] + a[i, 3], b[j, 1] + b[j, 3]) - min(a[i, 1], b[j, 1])
    area_a, area_b = a[i, 2] * a[i, 3], b[j, 2] * b[j, 3]
    if kind == 2:
        # intersection = iou * union and a + b = union + intersection.
        union, hull = (area_a + area_b) / (1 + iou), width * height
        return iou - (hull - union) / hull if hull > 0 else iou
    dx, dy = a[i, 0] - b[j, 0] + (a[i, 2] - b[j, 2]) / 2, a[i, 1] - b[j, 1] + (a[i, 3] - b[j, 3]) / 2
    diagonal = width * width + height * height
    result = iou - (dx * dx + dy * dy) / diagonal if diagonal > 0 else iou
    if kind == 4:
        turn = 2 / np.pi * (np.arctan2(a[i, 2], a[i, 3]) - np.arctan2(b[j, 2], b[j, 3]))
        v = turn * turn
        if v > 0:
            result -= v * v / (1 - iou + v)
    return result
