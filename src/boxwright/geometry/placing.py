"""Boxes moved by an affine matrix, and what a frame shows of them: for each sample of a training.

A dozen boxes cost NumPy thirty calls of a microsecond or more; here they cost one.
"""

import math

import numpy as np

from boxwright.geometry.compilation import kernel
from boxwright.geometry.kernels import halves, hull_of, overlap

MOST_CORNERS = 19  # of four, if each side of a frame added as many as it can


@kernel
def moved_boxes(boxes, oriented, matrix):
    """Boxes (N, 5) cx, cy, w, h, angle by a (2, 3) matrix; the hulls of those that aren't `oriented` (N,)."""
    result = np.zeros((len(boxes), 5))
    own = halves(boxes)
    for n in range(len(boxes)):
        x, y, w, h, cos, sin = own[n]
        result[n, 0] = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
        result[n, 1] = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
        # Half the sides: an affine image of a rectangle is a parallelogram.
        along_x = (matrix[0, 0] * cos + matrix[0, 1] * sin) * w
        along_y = (matrix[1, 0] * cos + matrix[1, 1] * sin) * w
        down_x = (matrix[0, 1] * cos - matrix[0, 0] * sin) * h
        down_y = (matrix[1, 1] * cos - matrix[1, 0] * sin) * h
        if oriented[n]:
            result[n, 2] = 2 * math.hypot(along_x, along_y)
            result[n, 3] = 2 * math.hypot(down_x, down_y)
            result[n, 4] = math.atan2(along_y, along_x)
        else:
            result[n, 2] = 2 * (abs(along_x) + abs(down_x))
            result[n, 3] = 2 * (abs(along_y) + abs(down_y))
    return result


@kernel
def visible_parts(boxes, width, height):
    """Upright hulls (N, 4) xyxy of what of boxes (N, 5) lies in a frame, 0 where nothing does, and its share
    (N,) of them.
    """
    hulls, shares = np.zeros((len(boxes), 4)), np.ones(len(boxes))
    own = halves(boxes)
    frame = np.array([[width / 2, height / 2, width / 2, height / 2, 1.0, 0.0]])
    for n in range(len(boxes)):
        hulls[n] = hull_of(own, n)
        if hulls[n, 0] < 0 or hulls[n, 1] < 0 or hulls[n, 2] > width or hulls[n, 3] > height:
            shares[n] = overlap(own, n, frame, 0, True)
            hulls[n] = _hull_inside(own, n, width, height) if shares[n] > 0 else (0.0, 0.0, 0.0, 0.0)
    return hulls, shares


@kernel
def _hull_inside(own, n, width, height):
    """Left, top, right and bottom of what of row `n` lies in a frame; 0 of nothing.

    The frame's sides cut one after another: Sutherland and Hodgman, Reentrant Polygon Clipping, CACM 1974.
    """
    x, y, w, h, cos, sin = own[n]
    points, cut = np.empty((MOST_CORNERS, 2)), np.empty((MOST_CORNERS, 2))
    for i, (u, v) in enumerate(((-w, -h), (w, -h), (w, h), (-w, h))):
        points[i, 0], points[i, 1] = x + u * cos - v * sin, y + u * sin + v * cos
    limits, count = (0.0, width, 0.0, height), 4
    for side in range(4):
        axis, inwards = side // 2, 1 - 2 * (side % 2)
        kept = 0
        for i in range(count):
            j = (i + 1) % count
            start = inwards * (points[i, axis] - limits[side])
            end = inwards * (points[j, axis] - limits[side])
            if start >= 0:
                cut[kept] = points[i]
                kept += 1
            if start * end < 0:
                cut[kept] = points[i] + start / (start - end) * (points[j] - points[i])
                cut[kept, axis] = limits[side]
                kept += 1
        points, cut, count = cut, points, kept
    if count == 0:
        return 0.0, 0.0, 0.0, 0.0
    xs, ys = points[:count, 0], points[:count, 1]
    return xs.min(), ys.min(), xs.max(), ys.max()
