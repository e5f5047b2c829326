"""Task-aligned assignment: points that classify and localise a box well are assigned to it."""

from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND
from boxwright.geometry.torch_boxes import are_inside, pairwise_iou


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
    """
    iou = pairwise_iou(gt_boxes, boxes)  # (B, G, P)
    inside = are_inside(points, gt_boxes[:, :, None])
    return choose_aligned(scores, iou, inside & gt_mask[:, :, None], gt_labels, topk, alpha, beta)


@torch.no_grad()
def choose_aligned(
    scores: Tensor,
    iou: Tensor,
    candidate: Tensor,
    gt_labels: Tensor,
    topk: int = 10,
    alpha: float = 1.0,
    beta: float = 6.0,
) -> TaskAligned:
    """The same of given overlaps, whatever they are of.

    Args:
        scores: (B, P, C) in [0, 1].
        iou: (B, G, P) of truth and predictions.
        candidate: (B, G, P) bool, points that may be assigned to a box.
        gt_labels: (B, G) int64.
        topk: points a box.
    """
    batch, groups, count = iou.shape
    if groups == 0:
        none = torch.full((batch, count), BACKGROUND, device=scores.device)
        return TaskAligned(none, scores.new_zeros(batch, count))
    label_scores = scores.transpose(1, 2).gather(1, gt_labels[:, :, None].expand(-1, -1, count))
    alignment = label_scores.pow(alpha) * iou.pow(beta) * candidate  # (B, G, P)

    best = alignment.topk(min(topk, count), dim=2).indices
    chosen = torch.zeros_like(candidate).scatter_(2, best, True) & candidate & (alignment > 0)
    wanted_iou = torch.where(chosen, iou, -1.0)
    matched_gt = wanted_iou.argmax(dim=1)  # (B, P)
    positive = chosen.any(dim=1)
    winner = torch.zeros_like(chosen).scatter_(1, matched_gt[:, None], True)
    chosen = chosen & winner

    won = alignment * chosen
    peak_alignment = won.amax(dim=2, keepdim=True).clamp(min=torch.finfo(won.dtype).tiny)
    peak_iou = (iou * chosen).amax(dim=2, keepdim=True)
    quality = (won / peak_alignment * peak_iou).amax(dim=1)
    return TaskAligned(torch.where(positive, matched_gt, BACKGROUND), quality)
