"""Losses on boxes, one value a box: nothing is summed here."""

import torch
from torch import Tensor

from boxwright.geometry.torch_boxes import aligned_iou, generalized_iou


def giou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - GIoU of (..., 4) xyxy boxes; (...). Rezatofighi et al., CVPR 2019."""
    return 1 - generalized_iou(boxes, gt_boxes)


def log_iou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """-ln(IoU) of (..., 4) xyxy boxes, IoU at least 1e-6; (...). Yu et al., UnitBox, ACM MM 2016."""
    return -aligned_iou(boxes, gt_boxes).clamp(min=1e-6).log()


def squared_iou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - IoU^2 of (..., 4) xyxy boxes; (...). As YOLOX (2021) trains."""
    return 1 - aligned_iou(boxes, gt_boxes).square()


def smooth_l1_loss(deltas: Tensor, targets: Tensor, beta: float = 0.0) -> Tensor:
    """Quadratic below `beta`, linear above, summed over the last axis; (...). `beta` 0 is the L1 loss.

    Girshick, Fast R-CNN, ICCV 2015, equation 3.
    """
    distance = (deltas - targets).abs()
    if beta > 0:
        distance = torch.where(distance < beta, distance.square() / (2 * beta), distance - beta / 2)
    return distance.sum(-1)


def distribution_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with the two bins beside each target, weighted by nearness.

    Li et al., Generalized Focal Loss, NeurIPS 2020, equation 6.

    Args:
        logits: (..., R + 1) over the bins 0 .. R.
        targets: (...) in [0, R], clamped into it.
    """
    last = logits.shape[-1] - 1
    targets = targets.clamp(0, last - 1e-3)
    left = targets.long()
    nearness = left + 1 - targets
    log_probability = logits.log_softmax(-1)
    at_left = log_probability.gather(-1, left[..., None])[..., 0]
    at_right = log_probability.gather(-1, left[..., None] + 1)[..., 0]
    return -(nearness * at_left + (1 - nearness) * at_right)
