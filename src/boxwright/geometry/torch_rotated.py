"""Oriented boxes as tensors: the differentiable twin of `kernels.rotated_intersection`.

Boxes are (..., 5) cx, cy, w, h, angle; pixels and radians, positive from x towards y.
"""

import torch
from torch import Tensor

from boxwright.geometry.torch_boxes import EPS

TINY = 1e-30  # px


def rotated_intersection(a: Tensor, b: Tensor) -> Tensor:
    """Area that boxes (..., 5), which broadcast against each other, share; (...).

    Exact, with the exact gradient wherever there is one: no corner is tested and no edge cut, see the kernel.
    Half precision is computed in float32.
    """
    kind = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    a, b = torch.broadcast_tensors(a.to(kind), b.to(kind))
    cos_a, sin_a, cos_b, sin_b = a[..., 4].cos(), a[..., 4].sin(), b[..., 4].cos(), b[..., 4].sin()
    dx, dy = (b[..., :2] - a[..., :2]).unbind(-1)
    x, y = cos_a * dx + sin_a * dy, cos_a * dy - sin_a * dx
    cos, sin = cos_a * cos_b + sin_a * sin_b, cos_a * sin_b - sin_a * cos_b
    half_a, half_b = a[..., 2:4] / 2, b[..., 2:4] / 2
    ux, uy = cos * half_b[..., 0], sin * half_b[..., 0]
    vx, vy = -sin * half_b[..., 1], cos * half_b[..., 1]
    xs = torch.stack([x - ux - vx, x + ux - vx, x + ux + vx, x - ux + vx], dim=-1)
    ys = torch.stack([y - uy - vy, y + uy - vy, y + uy + vy, y - uy + vy], dim=-1)
    # Against the order of the corners, so that the sum is the area and not its negative.
    next_xs, next_ys = (torch.cat([c[..., 1:], c[..., :1]], dim=-1) for c in (xs, ys))
    under = _under_edges(next_xs, next_ys, xs, ys, half_a[..., :1], half_a[..., 1:])
    return under.sum(dim=-1).clamp(min=0)


def rotated_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 5) that broadcast against each other; (...), 0 where neither has area."""
    intersection = rotated_intersection(a, b)
    areas = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3]
    return intersection / (areas - intersection).clamp(min=EPS)


def pairwise_rotated_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every (..., N, 5) with every (..., M, 5); (..., N, M)."""
    return rotated_iou(a[..., :, None, :], b[..., None, :, :])


def as_hulls(boxes: Tensor) -> Tensor:
    """The upright hulls of boxes (..., 5), as boxes (..., 5) with angle 0."""
    cos, sin = boxes[..., 4].cos().abs(), boxes[..., 4].sin().abs()
    w, h = boxes[..., 2:4].unbind(-1)
    sides = torch.stack([w * cos + h * sin, w * sin + h * cos, torch.zeros_like(w)], dim=-1)
    return torch.cat([boxes[..., :2], sides], dim=-1)


def as_seen(boxes: Tensor, oriented: Tensor) -> Tensor:
    """Boxes (..., 5) as truth knows them: whole where it is `oriented` (...), else their upright hulls."""
    return torch.where(oriented[..., None], boxes, as_hulls(boxes))


def place_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Points (..., 2) from the centres of boxes (..., 5) that broadcast, along and across their angles."""
    return torch.stack(_along_sides(points, boxes), dim=-1)


def are_inside_rotated(points: Tensor, boxes: Tensor, half: Tensor | None = None) -> Tensor:
    """Whether points (..., 2) lie in boxes (..., 5) that broadcast.

    `half` (..., 2) stands in place of half of the boxes' sides.
    """
    x, y = _along_sides(points, boxes)
    half_w, half_h = (boxes[..., 2:4] / 2 if half is None else half).unbind(-1)
    return (x.abs() < half_w) & (y.abs() < half_h)


def _along_sides(points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    x, y = points[..., 0] - boxes[..., 0], points[..., 1] - boxes[..., 1]
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    return cos * x + sin * y, cos * y - sin * x


def _under_edges(x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """Integral of clamp(y, +-height) dx along the part of each edge within +-width."""
    left, right = _clamp(x0, width), _clamp(x1, width)
    slope = (y1 - y0) / _nonzero(x1 - x0)
    start, end = y0 + (left - x0) * slope, y1 + (right - x1) * slope
    low, high = _clamp(start, height), _clamp(end, height)
    rise = high - low
    # Counted from `low`, as in the kernel; where nothing rises, `low` it is.
    mean = low + rise * (rise * 0.5 + (end - high)) / _nonzero(end - start)
    return (right - left) * mean


def _clamp(values: Tensor, limit: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(values, -limit), limit)


def _nonzero(values: Tensor) -> Tensor:
    """Values whose inverse is finite, 1 in place of others: those stand for nothing."""
    return torch.where(values.abs() < TINY, torch.ones_like(values), values)
