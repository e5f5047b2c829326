"""What point-based detectors share between assignment and loss."""

import torch
from torch import Tensor

from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import boxes_to_distances


def targets_of_points(matched_gt: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """The truth each prior answers for.

    Background priors get some box and label, which their zero weight must silence.

    Args:
        matched_gt: (B, P) int64, -1 for background.
        targets: padded truth.

    Returns:
        positive: (B, P) bool.
        gt_boxes: (B, P, 4).
        gt_labels: (B, P).
    """
    positive = matched_gt >= 0
    if targets.boxes.shape[1] == 0:
        return positive, targets.boxes.new_zeros(*matched_gt.shape, 4), matched_gt.clamp(min=0)
    index = matched_gt.clamp(min=0)
    gt_boxes = targets.boxes.gather(1, index[:, :, None].expand(-1, -1, 4))
    return positive, gt_boxes, targets.labels.gather(1, index)


def background_weight(points: Tensor, targets: Targets, positive: Tensor) -> Tensor:
    """(B, P) float: 0 for background points inside an ignore region, else 1."""
    if targets.boxes.shape[1] == 0:
        return torch.ones_like(positive, dtype=points.dtype)
    inside = boxes_to_distances(points, targets.boxes[:, :, None]).amin(-1) > 0  # (B, G, P)
    in_ignored = (inside & targets.ignore[:, :, None]).any(dim=1)
    return (positive | ~in_ignored).to(points.dtype)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(...) int64 to (..., num_classes) bool. torch's own looks at the values first, and waits for them."""
    return labels[..., None] == torch.arange(num_classes, device=labels.device)
