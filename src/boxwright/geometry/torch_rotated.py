"""Turned boxes as tensors: the differentiable twin of `kernels.turned_intersection`.

Boxes are (..., 5) cx, cy, w, h, angle; pixels and radians, positive from x towards y.
"""

import torch
from torch import Tensor

from boxwright.geometry.torch_boxes import EPS


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
    under = _under_edges(xs.roll(-1, -1), ys.roll(-1, -1), xs, ys, half_a[..., :1], half_a[..., 1:])
    return under.sum(dim=-1).clamp(min=0)


def rotated_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 5) that broadcast against each other; (...), 0 where neither has area."""
    intersection = rotated_intersection(a, b)
    areas = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3]
    return intersection / (areas - intersection).clamp(min=EPS)


def pairwise_rotated_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every (..., N, 5) with every (..., M, 5); (..., N, M)."""
    return rotated_iou(a[..., :, None, :], b[..., None, :, :])


def _under_edges(x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """Integral of clamp(y, +-height) dx along the part of each edge within +-width."""
    left, right = _clamp(x0, width), _clamp(x1, width)
    slope = (y1 - y0) / _nonzero(x1 - x0)
    start, end = y0 + (left - x0) * slope, y1 + (right - x1) * slope
    low, high = _clamp(start, height), _clamp(end, height)
    rise = end - start
    sloped = ((low - start) * low + (high - low) * (low + high) * 0.5 + (end - high) * high) / _nonzero(rise)
    flat = (low + high) * 0.5
    # A rise below rounding would make the quotient noise; there both means are the same.
    steep = rise.abs() > 8 * torch.finfo(rise.dtype).eps * (start.abs() + end.abs())
    return (right - left) * torch.where(steep, sloped, flat)


def _clamp(values: Tensor, limit: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(values, -limit), limit)


def _nonzero(values: Tensor) -> Tensor:
    return torch.where(values == 0, torch.ones_like(values), values)
