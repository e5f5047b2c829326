"""Samplers: which of the assigned priors enter a loss, and with what weight.

All take masks over padded batches, (B, P), and give weights of the same shape, without a loop over images.
"""

import torch
from torch import Tensor


@torch.no_grad()
def hard_negatives(
    losses: Tensor, positive: Tensor, negative: Tensor, ratio: float = 3.0, least: float = 0.0
) -> Tensor:
    """The negatives of greatest loss, `ratio` for each positive of their image; (B, P) bool.

    Liu et al., SSD, ECCV 2016, section 2.2 (hard negative mining).

    Args:
        losses: (B, P).
        positive, negative: (B, P) bool.
        ratio: of negatives to positives.
        least: negatives of an image.
    """
    return _greatest(losses, negative, (ratio * positive.sum(1, keepdim=True)).clamp(min=least))


@torch.no_grad()
def random_sample(
    positive: Tensor,
    negative: Tensor,
    count: int,
    positive_share: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`count` priors an image by chance, at most `positive_share` of them positive; (B, P) bool.

    Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1.3. Negatives take the place of missing positives.

    Args:
        positive, negative: (B, P) bool.
        count: an image.
        positive_share: at most.
        generator: of the draws.
    """
    # Drawn prior by prior, so that padding at the end changes no other's.
    chance = torch.rand(positive.T.shape, device=positive.device, generator=generator).T
    return ohem_sample(chance, positive, negative, count, positive_share)


@torch.no_grad()
def ohem_sample(
    losses: Tensor, positive: Tensor, negative: Tensor, count: int, positive_share: float
) -> Tensor:
    """The `count` priors of greatest loss an image, at most `positive_share` of them positive; (B, P) bool.

    Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining, CVPR 2016.
    """
    most = torch.full_like(positive[:, :1], int(count * positive_share), dtype=torch.long)
    hard = _greatest(losses, positive, most)
    return hard | _greatest(losses, negative, count - hard.sum(1, keepdim=True))


@torch.no_grad()
def prime_weights(
    iou: Tensor, matched_gt: Tensor, gt_labels: Tensor, losses: Tensor, power: float = 2.0, bias: float = 0.0
) -> Tensor:
    """Weights of positives by how good they are among those of their box and class; (B, P), 1 for others.

    Cao et al., Prime Sample Attention in Object Detection, CVPR 2020, section 4.1 (IoU-HLR, ISR-P): the best
    positives of all boxes of a class come first, then the second best, and so on, by IoU among equals;
    weights fall from 1 with the rank, and are scaled so that the positives' loss stays what it was.

    Args:
        iou: (B, P) of the predicted boxes with their truth.
        matched_gt: (B, P) int64, -1 for background.
        gt_labels: (B, G) int64.
        losses: (B, P) classification losses of the priors.
        power: that the falling weight is raised to.
        bias: of the last rank.
    """
    batch, count = iou.shape
    groups = gt_labels.shape[1]
    positive = (matched_gt >= 0).flatten()
    if groups == 0:
        return torch.ones_like(iou)
    image = torch.arange(batch, device=iou.device)[:, None]
    box = torch.where(matched_gt >= 0, image * groups + matched_gt, batch * groups).flatten()
    # Background is a class of its own beyond all others.
    label = gt_labels.gather(1, matched_gt.clamp(min=0)).flatten()
    label = torch.where(positive, label, gt_labels.max() + 1)
    overlap = iou.flatten()
    rank_in_box = _rank_in_group(-overlap, box)
    rank = _rank_in_group(-overlap, label, first=rank_in_box)
    most = (torch.where(positive, rank, -1).max() + 1).clamp(min=1)
    weight = (bias + (1 - bias) * (most - rank) / most).clamp(min=0) ** power
    loss = losses.flatten()
    scale = (loss * positive).sum() / (loss * weight * positive).sum().clamp(min=1e-12)
    return torch.where(positive, weight * scale, 1.0).view(batch, count)


def _greatest(values: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """(B, P) bool: the `count` (B, 1) greatest values of each row among those allowed."""
    order = torch.where(among, values, -torch.inf).argsort(dim=1, descending=True)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return among & (torch.empty_like(order).scatter_(1, order, places) < count)


def _rank_in_group(key: Tensor, group: Tensor, first: Tensor | None = None) -> Tensor:
    """(N,) place of each element in its group, by `first` where given, then by `key`, ascending."""
    order = key.argsort(stable=True)
    for column in (group,) if first is None else (first, group):
        order = order[column[order].argsort(stable=True)]
    places = torch.arange(len(key), device=key.device)
    sorted_group = group[order]
    starts = torch.searchsorted(sorted_group, sorted_group)
    return torch.empty_like(order).scatter_(0, order, places - starts)
