"""Boxes as tensors: the differentiable, batched twins of `kernels`. Boxes are xyxy pixels."""

import math

import torch
from torch import Tensor

EPS = 1e-7  # keeps a quotient of areas defined for boxes without area


def box_area(boxes: Tensor) -> Tensor:
    """Area of (..., 4) boxes."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Area of the overlap of (..., 4) boxes that broadcast against each other."""
    # Coordinate by coordinate and in place: all pairs of a crowded image are too many for memory to be fast.
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = (
        [side.contiguous() for side in boxes.unbind(-1)] for boxes in (a, b)
    )
    width = torch.minimum(ax2, bx2).sub_(torch.maximum(ax1, bx1)).clamp_(min=0)
    height = torch.minimum(ay2, by2).sub_(torch.maximum(ay1, by1)).clamp_(min=0)
    return width.mul_(height)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every (..., N, 4) with every (..., M, 4); (..., N, M), 0 where both have no area."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    overlap = intersection(a, b)
    union = (box_area(a) + box_area(b)).sub_(overlap).clamp_(min=EPS)
    return overlap.div_(union)


def aligned_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 4) that broadcast against each other; (...)."""
    overlap = intersection(a, b)
    return overlap / (box_area(a) + box_area(b) - overlap).clamp(min=EPS)


def pairwise_coverage(a: Tensor, b: Tensor) -> Tensor:
    """Share of every (..., N, 4) that lies in every (..., M, 4); (..., N, M)."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    return intersection(a, b) / box_area(a).clamp(min=EPS)


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of boxes that broadcast against each other; (...).

    Rezatofighi et al., Generalized Intersection over Union, CVPR 2019, algorithm 1.
    """
    overlap = intersection(a, b)
    union = box_area(a) + box_area(b) - overlap
    width, height = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).unbind(-1)
    hull = width * height
    return overlap / union.clamp(min=EPS) - (hull - union) / hull.clamp(min=EPS)


def distance_iou(a: Tensor, b: Tensor) -> Tensor:
    """DIoU of boxes that broadcast against each other: IoU less the squared distance of centres in diagonals
    of the common hull; (...).

    Zheng et al., Distance-IoU Loss, AAAI 2020, equation 7.
    """
    gap = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    return aligned_iou(a, b) - gap.square().sum(-1) / hull.square().sum(-1).clamp(min=EPS)


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """CIoU of boxes that broadcast against each other: DIoU less what the aspect ratios differ by; (...).

    Zheng et al., Distance-IoU Loss, AAAI 2020, equations 8 to 11; the trade-off has no gradient.
    """
    (aw, ah), (bw, bh) = ((box[..., 2:] - box[..., :2]).clamp(min=EPS).unbind(-1) for box in (a, b))
    aspect = 4 / math.pi**2 * ((bw / bh).atan() - (aw / ah).atan()).square()
    with torch.no_grad():
        trade_off = aspect / (1 - aligned_iou(a, b) + aspect).clamp(min=EPS)
    return distance_iou(a, b) - trade_off * aspect


def distances_to_boxes(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes (..., 4) from points (..., 2) and their distances left, top, right, bottom (..., 4)."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def boxes_to_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances left, top, right, bottom (..., 4) from points (..., 2) to the sides of boxes (..., 4)."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def are_inside(points: Tensor, boxes: Tensor, least: float = 0.0) -> Tensor:
    """Whether points (..., 2) lie in boxes (..., 4) that broadcast, farther than `least` from every side."""
    (x, y), (x1, y1, x2, y2) = (
        [side.contiguous() for side in tensor.unbind(-1)] for tensor in (points, boxes)
    )
    return (x > x1 + least) & (x < x2 - least) & (y > y1 + least) & (y < y2 - least)


def clip_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (B, N, 4) cut at their images' borders; `sizes` (B, 2) are widths and heights."""
    limit = torch.cat([sizes, sizes], dim=-1)[:, None].to(boxes)  # (B, 1, 4)
    return torch.minimum(boxes.clamp(min=0), limit)
