"""Task-aligned assignment: points that classify and localise a box well are assigned to it."""

from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND
from boxwright.geometry.torch_boxes import are_inside, pairwise_iou

REACH = 0.75  # strides of the finest level, from a box's centre


class TaskAligned(NamedTuple):
    matched_gt: Tensor  # (B, P) int64, -1 for background
    quality: Tensor  # (B, P) in [0, 1]: the classification target, 0 for background


@torch.no_grad()
def task_aligned_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_mask: Tensor,
    topk: int = 10,
    alpha: float = 1.0,
    beta: float = 6.0,
    reach: Tensor | float = 0.0,
) -> TaskAligned:
    """Give each box its `topk` points of greatest alignment score^alpha * IoU^beta.

    Feng et al., TOOD: Task-aligned One-stage Object Detection, ICCV 2021, section 3.2. The quality is the
    alignment, scaled for each box so that its best point gets the box's best IoU. A point wanted by
    several boxes goes to the one it overlaps most.

    Args:
        scores: (B, P, C) in [0, 1].
        boxes: (B, P, 4) predicted, xyxy pixels.
        points: (P, 2) pixels.
        gt_boxes: (B, G, 4) xyxy pixels, padded.
        gt_labels: (B, G) int64.
        gt_mask: (B, G) bool, the boxes to assign.
        topk: points a box.
        reach: see `are_candidates`.
    """
    iou = pairwise_iou(gt_boxes, boxes)  # (B, G, P)
    candidate = are_candidates(points, gt_boxes, reach) & gt_mask[:, :, None]
    every = torch.arange(len(points), device=points.device).expand_as(iou)
    return choose_aligned(scores, every, iou, candidate, gt_labels, topk, alpha, beta)


def are_candidates(points: Tensor, gt_boxes: Tensor, reach: Tensor | float) -> Tensor:
    """(B, G, P) bool: points (P, 2) inside boxes (B, G, 4), or within `reach` px of the centre along x and y,
    so that a box between the points has some.
    """
    center = (gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2
    low, high = gt_boxes[..., :2].minimum(center - reach), gt_boxes[..., 2:].maximum(center + reach)
    return are_inside(points, torch.cat([low, high], dim=-1)[:, :, None])


@torch.no_grad()
def choose_aligned(
    scores: Tensor,
    places: Tensor,
    iou: Tensor,
    candidate: Tensor,
    gt_labels: Tensor,
    topk: int = 10,
    alpha: float = 1.0,
    beta: float = 6.0,
) -> TaskAligned:
    """The same of given overlaps, whatever they are of, with K points a box that are looked at.

    Args:
        scores: (B, P, C) in [0, 1].
        places: (B, G, K) int64, the points; none twice for a box.
        iou: (B, G, K) of truth and predictions.
        candidate: (B, G, K) bool, points that may be assigned to a box.
        gt_labels: (B, G) int64.
        topk: points a box.
    """
    batch, count, classes = scores.shape
    groups = gt_labels.shape[1]
    own_class = places * classes + gt_labels[:, :, None]
    label_scores = scores.flatten(1).gather(1, own_class.flatten(1)).view_as(iou)
    alignment, best = (label_scores.pow(alpha) * iou.pow(beta) * candidate).topk(
        min(topk, iou.shape[2]), dim=2
    )
    iou, place = iou.gather(2, best), places.gather(2, best).flatten(1)

    # Of the boxes that want a point the one that it overlaps most gets it, the first of equals.
    wanted_iou = torch.where(alignment > 0, iou, -1.0).flatten(1)
    most = wanted_iou.new_zeros(batch, count).scatter_reduce(1, place, wanted_iou, "amax").gather(1, place)
    box = torch.arange(groups, device=iou.device)[:, None].expand_as(iou).flatten(1)
    first = torch.where(wanted_iou == most, box, groups)
    matched_gt = place.new_full((batch, count), groups).scatter_reduce(1, place, first, "amin")
    won = (matched_gt.gather(1, place) == box).view_as(iou)

    alignment, iou = alignment * won, iou * won
    peak = alignment.amax(dim=2, keepdim=True).clamp(min=torch.finfo(iou.dtype).tiny)
    shares = (alignment / peak * iou.amax(dim=2, keepdim=True)).flatten(1)
    quality = shares.new_zeros(batch, count).scatter_reduce(1, place, shares, "amax")
    return TaskAligned(torch.where(matched_gt < groups, matched_gt, BACKGROUND), quality)
