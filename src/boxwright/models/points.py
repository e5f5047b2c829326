"""What point-based detectors share between assignment and loss."""

import torch
from torch import Tensor

from boxwright.assign import Assignment
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import are_inside
from boxwright.geometry.torch_rotated import are_inside_rotated


def rows_of(values: Tensor, rows: Tensor) -> Tensor:
    """(B, K, ...) rows (B, K) of values (B, N, ...)."""
    places = rows[(..., *[None] * (values.ndim - 2))]
    return values.gather(1, places.expand(-1, -1, *values.shape[2:]))


def targets_of_points(matched_gt: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """The truth assigned to each prior.

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
        width = targets.boxes.shape[2]
        return positive, targets.boxes.new_zeros(*matched_gt.shape, width), matched_gt.clamp(min=0)
    index = matched_gt.clamp(min=0)
    return positive, rows_of(targets.boxes, index), rows_of(targets.labels, index)


def rotated_of_points(matched_gt: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """As `targets_of_points`, of oriented boxes.

    Returns:
        gt_boxes: (B, P, 5).
        gt_oriented: (B, P) bool, whether they have an angle.
        gt_labels: (B, P).
    """
    index = matched_gt.clamp(min=0)
    if targets.boxes.shape[1] == 0:
        blank = targets.rotated.new_zeros(*matched_gt.shape, 5)
        return blank, torch.zeros_like(index, dtype=torch.bool), index
    return rows_of(targets.rotated, index), rows_of(targets.oriented, index), rows_of(targets.labels, index)


def assignment_in_rotated(points: Tensor, targets: Targets, matched_gt: Tensor) -> Assignment:
    """As `assignment_of_points`, with ignore regions that are oriented boxes."""
    if targets.boxes.shape[1] == 0 or not targets.any_ignored:
        return Assignment(matched_gt, torch.zeros_like(matched_gt, dtype=torch.bool))
    inside = are_inside_rotated(points, targets.rotated[:, :, None])  # (B, G, P)
    in_ignored = (inside & targets.ignore[:, :, None]).any(dim=1)
    return Assignment(matched_gt, in_ignored & (matched_gt < 0))


def assignment_of_points(points: Tensor, targets: Targets, matched_gt: Tensor) -> Assignment:
    """The matches (B, P), with background points (P, 2) inside an ignore region counting neither way."""
    if targets.boxes.shape[1] == 0 or not targets.any_ignored:
        return Assignment(matched_gt, torch.zeros_like(matched_gt, dtype=torch.bool))
    inside = are_inside(points, targets.boxes[:, :, None])  # (B, G, P)
    in_ignored = (inside & targets.ignore[:, :, None]).any(dim=1)
    return Assignment(matched_gt, in_ignored & (matched_gt < 0))


def assigned_first(quality: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The points of each image that boxes were assigned to, and some of the background beside them.

    Losses of boxes are of a few points alone, and no device has to be asked how many.

    Args:
        quality: (B, P), 0 for background.
        most: that can be assigned in an image.

    Returns:
        Quality and index, both (B, K).
    """
    found = quality.topk(min(most, quality.shape[1]), dim=1)
    return found.values, found.indices


def at_points(values: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """Values (B, K) at points (B, K), as (B, P) of `like`; 0 elsewhere.

    So a sum rounds alike, however many points were looked at.
    """
    return torch.zeros_like(like).scatter(1, index, values)


def count_priors(matched_gt: Tensor, targets: Targets) -> Tensor:
    """(B, G) how many priors (B, P) are assigned to each box."""
    batch, groups = targets.mask.shape
    counts = torch.zeros(batch, groups + 1, dtype=torch.long, device=matched_gt.device)
    # Background goes to a column of its own, which is cut off.
    place = torch.where(matched_gt < 0, groups, matched_gt)
    return counts.scatter_add_(1, place, torch.ones_like(place))[:, :-1]


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(...) int64 to (..., num_classes) bool. torch's own reads the values first, and so waits for them."""
    return labels[..., None] == torch.arange(num_classes, device=labels.device)
