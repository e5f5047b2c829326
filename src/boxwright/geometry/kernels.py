"""How much two boxes overlap, upright or oriented: the arithmetic under every match, NMS and fusion.

Upright boxes are rows x, y, w, h. Oriented boxes are rows cx, cy, w/2, h/2, cos, sin, made by `halves` of
cx, cy, w, h, angle. The number of columns (4 or 6) tells which; an oriented box needs its sine and cosine
once, not once a pair.
"""

import math

import numpy as np

from boxwright.geometry.compilation import kernel

UPRIGHT, ORIENTED = 4, 6  # columns
TINY = 1e-200  # px, whose inverse is finite


@kernel
def halves(boxes):
    """Rows cx, cy, w/2, h/2, cos, sin of (N, 5) cx, cy, w, h, angle."""
    result = np.empty((len(boxes), ORIENTED))
    for i in range(len(boxes)):
        result[i, 0], result[i, 1] = boxes[i, 0], boxes[i, 1]
        result[i, 2], result[i, 3] = boxes[i, 2] / 2, boxes[i, 3] / 2
        result[i, 4], result[i, 5] = math.cos(boxes[i, 4]), math.sin(boxes[i, 4])
    return result


@kernel
def area(boxes, i):
    """Area of row `i`."""
    return boxes[i, 2] * boxes[i, 3] if boxes.shape[1] == UPRIGHT else 4 * boxes[i, 2] * boxes[i, 3]


@kernel
def hull_of(boxes, i):
    """Left, top, right and bottom of the upright hull of row `i`."""
    if boxes.shape[1] == UPRIGHT:
        return boxes[i, 0], boxes[i, 1], boxes[i, 0] + boxes[i, 2], boxes[i, 1] + boxes[i, 3]
    x, y, w, h, cos, sin = (
        boxes[i, 0],
        boxes[i, 1],
        boxes[i, 2],
        boxes[i, 3],
        abs(boxes[i, 4]),
        abs(boxes[i, 5]),
    )
    reach_x, reach_y = w * cos + h * sin, w * sin + h * cos
    return x - reach_x, y - reach_y, x + reach_x, y + reach_y


@kernel
def overlap(a, i, b, j, over_a):
    """IoU of row `i` of `a` and row `j` of `b`, or intersection over the first one's area; 0 without area."""
    if a.shape[1] == UPRIGHT:
        return upright_overlap(a[i, 0], a[i, 1], a[i, 2], a[i, 3], b[j, 0], b[j, 1], b[j, 2], b[j, 3], over_a)
    intersection = rotated_intersection(a, i, b, j)
    if intersection <= 0:
        return 0.0
    area_a = area(a, i)
    return intersection / (area_a if over_a else area_a + area(b, j) - intersection)


@kernel
def upright_overlap(ax, ay, aw, ah, bx, by, bw, bh, over_a):
    """`overlap` of two xywh boxes.

    The operations stand in the order of COCO's maskApi.c (bbIou), so that results agree to the last bit.
    """
    w = min(ax + aw, bx + bw) - max(ax, bx)
    if w <= 0:
        return 0.0
    h = min(ay + ah, by + bh) - max(ay, by)
    if h <= 0:
        return 0.0
    intersection = w * h
    union = aw * ah if over_a else aw * ah + bw * bh - intersection
    return intersection / union


@kernel
def rotated_intersection(a, i, b, j):
    """Area that two oriented boxes share.

    In the frame of the first, whose sides then lie along the axes, the area is the integral over x within
    its width of the other's upper minus its lower boundary, both clamped to the first one's height: a sum
    over the four edges, each alone. Nothing is decided (which corner lies inside, which edges cross), so
    equal and touching boxes are no special cases, and an error of rounding stays one.
    """
    dx, dy = b[j, 0] - a[i, 0], b[j, 1] - a[i, 1]
    wa, ha, wb, hb = a[i, 2], a[i, 3], b[j, 2], b[j, 3]
    reach_a, reach_b = wa + ha, wb + hb
    if abs(dx) > reach_a + reach_b or abs(dy) > reach_a + reach_b:
        return 0.0
    ca, sa, cb, sb = a[i, 4], a[i, 5], b[j, 4], b[j, 5]
    px, py = ca * dx + sa * dy, ca * dy - sa * dx
    cos, sin = ca * cb + sa * sb, ca * sb - sa * cb
    ux, uy, vx, vy = cos * wb, sin * wb, -sin * hb, cos * hb
    if abs(px) >= wa + abs(ux) + abs(vx) or abs(py) >= ha + abs(uy) + abs(vy):
        return 0.0
    # Corners in order; an edge along (ux, uy) or (vx, vy) and back.
    x0, y0 = px - ux - vx, py - uy - vy
    x1, y1 = px + ux - vx, py + uy - vy
    x2, y2 = px + ux + vx, py + uy + vy
    x3, y3 = px - ux + vx, py - uy + vy
    total = _under_edge(x1, y1, x0, y0, wa, ha) + _under_edge(x2, y2, x1, y1, wa, ha)
    total += _under_edge(x3, y3, x2, y2, wa, ha) + _under_edge(x0, y0, x3, y3, wa, ha)
    area_a = 4 * wa * ha
    # Below this lies only what rounding leaves of boxes that don't meet.
    return min(total, area_a, 4 * wb * hb) if total > 1e-14 * area_a else 0.0


@kernel
def _under_edge(x0, y0, x1, y1, width, height):
    """Integral of clamp(y, +-height) dx along the part of an edge that lies within +-width."""
    left, right = min(max(x0, -width), width), min(max(x1, -width), width)
    # Of an edge that is next to upright the slope would be infinite, and the area is nothing.
    if left == right or abs(x1 - x0) < TINY:
        return 0.0
    slope = (y1 - y0) / (x1 - x0)
    # From the nearer end each, so that an end that isn't cut keeps its own bits.
    start, end = y0 + (left - x0) * slope, y1 + (right - x1) * slope
    low, high = min(max(start, -height), height), min(max(end, -height), height)
    if start == end:
        return (right - left) * low
    # Flat until it enters the height, sloped within, flat after it has left: (low - start) * low +
    # (high - low) * (low + high) / 2 + (end - high) * high over the rise, counted from `low`, so that a small
    # rise far outside leaves no rounding to be blown up.
    rise = high - low
    return (right - left) * (low + rise * (rise * 0.5 + (end - high)) / (end - start))
