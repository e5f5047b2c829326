"""Losses on boxes, one value a box: nothing is summed here."""

import math

import torch
from torch import Tensor

from boxwright.geometry.torch_boxes import aligned_iou, complete_iou, distance_iou, generalized_iou


def giou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - GIoU of (..., 4) xyxy boxes; (...). Rezatofighi et al., CVPR 2019."""
    return 1 - generalized_iou(boxes, gt_boxes)


def diou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - DIoU of (..., 4) xyxy boxes; (...). Zheng et al., Distance-IoU Loss, AAAI 2020, equation 7."""
    return 1 - distance_iou(boxes, gt_boxes)


def ciou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - CIoU of (..., 4) xyxy boxes; (...). Zheng et al., Distance-IoU Loss, AAAI 2020, equation 10."""
    return 1 - complete_iou(boxes, gt_boxes)


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


def balanced_l1_loss(deltas: Tensor, targets: Tensor, alpha: float = 0.5, gamma: float = 1.5) -> Tensor:
    """Smooth L1 whose slope rises faster near zero, summed over the last axis; (...).

    Pang et al., Libra R-CNN: Towards Balanced Learning for Object Detection, CVPR 2019, equations 7 to 9.

    Args:
        deltas, targets: (..., 4).
        alpha: the larger, the steeper near zero.
        gamma: slope from 1 on.
    """
    distance = (deltas - targets).abs()
    b = math.exp(gamma / alpha) - 1
    near = alpha / b * (b * distance + 1) * torch.log1p(b * distance) - alpha * distance
    return torch.where(distance < 1, near, gamma * distance + gamma / b - alpha).sum(-1)


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
