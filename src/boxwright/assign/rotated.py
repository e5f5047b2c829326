"""Assigners for oriented boxes: those of the upright ones, with the overlap of rectangles.

The overlap of every point with every box would take most of a step, so each box is compared with the points
nearest to its centre on each level, as ATSS does.
"""

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND
from boxwright.assign.atss import nearest_of_levels
from boxwright.assign.task_aligned import REACH, TaskAligned, choose_aligned
from boxwright.geometry.torch_rotated import are_inside_rotated, as_seen, place_in_boxes, rotated_iou

NEAR = 13  # points a level


@torch.no_grad()
def rotated_task_aligned_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    level_sizes: list[int],
    gt_boxes: Tensor,
    gt_oriented: Tensor,
    gt_labels: Tensor,
    gt_mask: Tensor,
    topk: int = 10,
    alpha: float = 1.0,
    beta: float = 6.0,
) -> TaskAligned:
    """`task_aligned_assign` of oriented boxes.

    Args:
        scores: (B, P, C) in [0, 1].
        boxes: (B, P, 5) predicted.
        points: (P, 2) pixels, levels one after another, finest first.
        strides: (P,) pixels a point.
        level_sizes: points of each level.
        gt_boxes: (B, G, 5), padded.
        gt_oriented: (B, G) bool; of others the upright hull is compared.
        gt_labels: (B, G) int64.
        gt_mask: (B, G) bool, the boxes to assign.
        topk: points a box.
    """
    near = nearest_of_levels(points, level_sizes, gt_boxes[..., :2], NEAR)  # (B, G, K)
    inside = is_inside(points[near], strides[near], strides[0], gt_boxes[:, :, None])
    index = near.flatten(1)[..., None].expand(-1, -1, 5)
    predicted = boxes.gather(1, index).view(*near.shape, 5)
    overlap = rotated_iou(as_seen(predicted, gt_oriented[:, :, None]), gt_boxes[:, :, None])
    candidate = inside & gt_mask[:, :, None]
    return choose_aligned(scores, near, overlap.to(scores.dtype), candidate, gt_labels, topk, alpha, beta)


def is_inside(points: Tensor, strides: Tensor, finest: Tensor, boxes: Tensor) -> Tensor:
    """(...) bool: points (..., 2) inside boxes (..., 5); of the finest level also those within a cell of the
    centre, so that a box between the points has some.
    """
    reach = torch.where(strides == finest, strides, 0.0)[..., None] * REACH
    return are_inside_rotated(points, boxes, torch.maximum(boxes[..., 2:4] / 2, reach))


@torch.no_grad()
def rotated_fcos_assign(
    points: Tensor, strides: Tensor, ranges: Tensor, gt_boxes: Tensor, gt_mask: Tensor, radius: float = 1.5
) -> Tensor:
    """`fcos_assign` of oriented boxes (B, G, 5): inside, near and far are counted along the angle."""
    if gt_boxes.shape[1] == 0:
        return torch.full((len(gt_boxes), len(points)), BACKGROUND, device=points.device)
    place = place_in_boxes(points, gt_boxes[:, :, None]).abs()  # (B, G, P, 2)
    half = gt_boxes[:, :, None, 2:4] / 2
    reach = torch.minimum(half, strides[:, None] * radius) if radius > 0 else half
    farthest = (half + place).amax(-1)  # (B, G, P)
    allowed = (place < reach).all(-1) & (farthest >= ranges[:, 0]) & (farthest <= ranges[:, 1])
    allowed &= gt_mask[:, :, None]
    area = torch.where(allowed, gt_boxes[..., 2:4].prod(-1)[:, :, None], torch.inf)
    smallest, matched_gt = area.min(dim=1)  # (B, P)
    return torch.where(smallest.isinf(), BACKGROUND, matched_gt)


@torch.no_grad()
def rotated_atss_assign(
    points: Tensor,
    sides: Tensor,
    level_sizes: list[int],
    gt_boxes: Tensor,
    gt_mask: Tensor,
    topk: int = 9,
) -> Tensor:
    """`atss_assign` of oriented boxes (B, G, 5) and upright squares of `sides` (P,) pixels around points."""
    batch, groups, _ = gt_boxes.shape
    if groups == 0:
        return torch.full((batch, len(points)), BACKGROUND, device=points.device)
    near = nearest_of_levels(points, level_sizes, gt_boxes[..., :2], topk)  # (B, G, K)
    flat = torch.zeros_like(sides)
    anchors = torch.stack([points[:, 0], points[:, 1], sides, sides, flat], dim=-1)[near]
    boxes = gt_boxes[:, :, None]
    overlap = rotated_iou(anchors, boxes)  # (B, G, K)
    threshold = overlap.mean(dim=2, keepdim=True) + overlap.std(dim=2, keepdim=True)
    inside = are_inside_rotated(anchors[..., :2], boxes)
    chosen = (overlap >= threshold) & inside & gt_mask[:, :, None]
    wanted = overlap.new_full((batch, groups, len(points)), -1.0)
    best, matched_gt = wanted.scatter_(2, near, torch.where(chosen, overlap, -1.0)).max(dim=1)  # (B, P)
    return torch.where(best >= 0, matched_gt, BACKGROUND)
