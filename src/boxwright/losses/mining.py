"""Which negatives a loss looks at."""

import torch
from torch import Tensor


@torch.no_grad()
def hard_negatives(losses: Tensor, positive: Tensor, negative: Tensor, ratio: float = 3.0) -> Tensor:
    """The negatives of greatest loss, `ratio` for each positive of their image.

    Liu et al., SSD, ECCV 2016, section 2.2 (hard negative mining).

    Args:
        losses: (B, A).
        positive, negative: (B, A) bool.
        ratio: of negatives to positives.

    Returns:
        (B, A) bool.
    """
    ranked = torch.where(negative, losses, -torch.inf).argsort(dim=1, descending=True)
    places = torch.arange(losses.shape[1], device=losses.device).expand_as(ranked)
    rank = torch.empty_like(ranked).scatter_(1, ranked, places)
    return negative & (rank < ratio * positive.sum(1, keepdim=True))
