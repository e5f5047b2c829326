"""One-to-one assignment of predictions and boxes at the least cost (Hungarian method)."""

import numpy as np
import torch
from torch import Tensor

from boxwright.assign import BACKGROUND

GREATEST = 1e9  # in place of a cost that isn't a number, so that such a prediction is taken last


@torch.no_grad()
def hungarian_assign(cost: Tensor, gt_mask: Tensor) -> Tensor:
    """Give each box a prediction of its own, so that the sum of costs is least.

    Carion et al., End-to-End Object Detection with Transformers, ECCV 2020, equation 1. All layers and images
    travel to the processor at once: the only wait for the device in a training step. On a
    processor a batched auction isn't faster (`benchmarks/matching.py`).

    Args:
        cost: (B, L, Q, G) of each prediction and box, of L sets of predictions an image.
        gt_mask: (B, G) bool, False where padded or an ignore region.

    Returns:
        matched_gt: (B, L, Q) int64, the box of each prediction, -1 for background. Where there are more boxes
        than predictions, the dearest are left out.
    """
    from scipy.optimize import linear_sum_assignment  # a quarter of a second of imports

    batch, layers, queries, groups = cost.shape
    if groups == 0:
        return torch.full((batch, layers, queries), BACKGROUND, device=cost.device)
    mask = gt_mask[:, None, None].expand(-1, layers, 1, -1)
    table = torch.cat([cost.float(), mask.float()], dim=2).cpu().numpy()  # (B, L, Q + 1, G)
    costs = np.nan_to_num(table[:, :, :-1], nan=GREATEST, posinf=GREATEST, neginf=GREATEST)
    matched = np.full((batch, layers, queries), BACKGROUND)
    for image in range(batch):
        boxes = np.flatnonzero(table[image, 0, -1])
        for layer in range(layers):
            rows, columns = linear_sum_assignment(costs[image, layer][:, boxes])
            matched[image, layer, rows] = boxes[columns]
    return torch.from_numpy(matched).to(cost.device)


@torch.no_grad()
def most_voted(matched_gt: Tensor, groups: int) -> Tensor:
    """What most layers have assigned to each prediction.

    Peng et al., D-FINE, ICLR 2025, section 4.2 (the union set of global optimal matching).

    Args:
        matched_gt: (B, L, Q) int64, -1 for background.
        groups: G, padded boxes an image.

    Returns:
        (B, Q) int64, the box that most of the layers with a box have, the first of equals; -1 where all
        have none.
    """
    if groups == 0:
        return matched_gt[:, 0]
    boxes = torch.arange(groups, device=matched_gt.device)
    votes, first = (matched_gt[..., None] == boxes).sum(1).max(-1)  # (B, Q)
    return torch.where(votes > 0, first, BACKGROUND)
