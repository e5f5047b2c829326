"""Adaptive training sample selection: each box sets its own IoU threshold."""

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND
from boxwright.geometry.torch_boxes import are_inside, pairwise_iou

LEAST_INSIDE = 0.01  # px that an anchor's centre lies within its box, as the original has it


@torch.no_grad()
def atss_assign(
    anchors: Tensor, level_sizes: list[int], gt_boxes: Tensor, gt_mask: Tensor, topk: int = 9
) -> Tensor:
    """Give each box the anchors near its centre whose IoU is above what is usual among the nearest.

    Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
    Selection, CVPR 2020, algorithm 1. An anchor wanted by several boxes goes to the one it overlaps most.

    Args:
        anchors: (A, 4) xyxy pixels, levels one after another.
        level_sizes: anchors of each level.
        gt_boxes: (B, G, 4) xyxy pixels, padded.
        gt_mask: (B, G) bool.
        topk: nearest anchors a level that a box considers.

    Returns:
        matched_gt: (B, A) int64, -1 for background.
    """
    if gt_boxes.shape[1] == 0:
        return torch.full((len(gt_boxes), len(anchors)), BACKGROUND, device=anchors.device)
    iou = pairwise_iou(gt_boxes, anchors)  # (B, G, A)
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    gt_centers = (gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2
    candidates = nearest_of_levels(centers, level_sizes, gt_centers, topk)  # (B, G, K)
    overlap = iou.gather(2, candidates)
    threshold = overlap.mean(dim=2, keepdim=True) + overlap.std(dim=2, keepdim=True)
    inside = are_inside(centers, gt_boxes[:, :, None], LEAST_INSIDE)  # (B, G, A)
    chosen = (overlap >= threshold) & inside.gather(2, candidates) & gt_mask[:, :, None]
    wanted = torch.full_like(iou, -1.0).scatter_(2, candidates, torch.where(chosen, overlap, -1.0))
    best, matched_gt = wanted.max(dim=1)  # (B, A)
    return torch.where(best >= 0, matched_gt, BACKGROUND)


def nearest_of_levels(points: Tensor, level_sizes: list[int], gt_centers: Tensor, topk: int) -> Tensor:
    """(B, G, K) indices of the `topk` points (P, 2) of each level nearest to each centre (B, G, 2)."""
    x, y = (gt_centers[..., n, None] - points[:, n] for n in (0, 1))
    distance = (x.square() + y.square()).sqrt()  # (B, G, P)
    nearest, start = [], 0
    for size in level_sizes:
        level = distance[:, :, start : start + size]
        nearest.append(level.topk(min(topk, size), dim=2, largest=False).indices + start)
        start += size
    return torch.cat(nearest, dim=2)
