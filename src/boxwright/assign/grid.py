"""YOLO's assignment: the cell that a box's centre lies in is assigned to it."""

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND, Assignment
from boxwright.assign.max_iou import covered, last_of
from boxwright.geometry.torch_boxes import pairwise_iou


@torch.no_grad()
def grid_assign(
    anchors: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_mask: Tensor,
    ignore_mask: Tensor | None,
    positive_iou: float = 0.5,
    negative_iou: float = 0.5,
    ignore_coverage: float = 0.5,
) -> Assignment:
    """Give each box its best anchor among those of the cells that its centre lies in.

    Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, section 2.1. Other anchors of such cells
    are assigned to a box that they overlap by more than `positive_iou`; anchors elsewhere that overlap a box
    by more than `negative_iou` don't count.

    Args:
        anchors: (A, 4) xyxy pixels, around the middles of their cells.
        strides: (A,) pixels a cell.
        gt_boxes: (B, G, 4) xyxy pixels, padded; objects and ignore regions.
        gt_mask: (B, G) bool, objects.
        ignore_mask: (B, G) bool, ignore regions; None: there are none.
        positive_iou, negative_iou: see above.
        ignore_coverage: background anchors with this share inside an ignore region don't count.
    """
    if gt_boxes.shape[1] == 0:
        none = torch.full((len(gt_boxes), len(anchors)), BACKGROUND, device=anchors.device)
        return Assignment(none, torch.zeros_like(none, dtype=torch.bool))
    iou = pairwise_iou(gt_boxes, anchors) * gt_mask[:, :, None]  # (B, G, A)
    cells = ((anchors[:, :2] + anchors[:, 2:]) / 2 / strides[:, None]).floor()
    gt_cells = ((gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2)[:, :, None] / strides[:, None]
    holds_center = (gt_cells.floor() == cells).all(-1) & gt_mask[:, :, None]  # (B, G, A)
    responsible = holds_center.any(dim=1)  # (B, A), for whichever box
    overlap = torch.where(responsible[:, None] & gt_mask[:, :, None], iou, -1.0)
    best_iou, best_gt = overlap.max(dim=1)  # (B, A)
    positive = responsible & (best_iou > positive_iou)
    peak = overlap.amax(dim=2, keepdim=True)
    is_peak = (overlap == peak) & (peak > 0)
    forced = last_of(is_peak)
    matched_gt = torch.where(forced >= 0, forced, best_gt)
    positive = positive | (forced >= 0)
    ignored = ~positive & (iou.amax(dim=1) > negative_iou)
    if ignore_mask is not None:
        ignored |= ~positive & covered(anchors, gt_boxes, ignore_mask, ignore_coverage)
    return Assignment(torch.where(positive, matched_gt, BACKGROUND), ignored)
