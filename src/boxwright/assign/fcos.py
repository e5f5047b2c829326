"""FCOS's points: near the centre of a box, on the level that fits its size."""

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND
from boxwright.geometry.torch_boxes import box_area, nearest_and_farthest_side


@torch.no_grad()
def fcos_assign(
    points: Tensor,
    strides: Tensor,
    ranges: Tensor,
    gt_boxes: Tensor,
    gt_mask: Tensor,
    radius: float = 1.5,
) -> Tensor:
    """Give each point the smallest box it may answer for.

    Tian et al., FCOS: A Simple and Strong Anchor-Free Object Detector, TPAMI 2020, section 3.

    Args:
        points: (P, 2) pixels.
        strides: (P,) of each point's level.
        ranges: (P, 2): a point answers for boxes whose farthest side is within, in pixels.
        gt_boxes: (B, G, 4) xyxy pixels, padded.
        gt_mask: (B, G) bool.
        radius: of the centre region in strides; 0: anywhere in the box.

    Returns:
        matched_gt: (B, P) int64, -1 for background.
    """
    if gt_boxes.shape[1] == 0:
        return torch.full((len(gt_boxes), len(points)), BACKGROUND, device=points.device)
    boxes = gt_boxes[:, :, None]  # (B, G, 1, 4)
    nearest, farthest = nearest_and_farthest_side(points, boxes)  # (B, G, P)
    allowed = nearest > 0
    if radius > 0:
        centers = (boxes[..., :2] + boxes[..., 2:]) / 2
        reach = strides[:, None] * radius
        region = torch.cat([centers - reach, centers + reach], dim=-1)
        # The region never leaves its box.
        region = torch.cat(
            [torch.maximum(region[..., :2], boxes[..., :2]), torch.minimum(region[..., 2:], boxes[..., 2:])],
            dim=-1,
        )
        allowed = nearest_and_farthest_side(points, region)[0] > 0
    allowed &= (farthest >= ranges[:, 0]) & (farthest <= ranges[:, 1]) & gt_mask[:, :, None]
    area = torch.where(allowed, box_area(gt_boxes)[:, :, None], torch.inf)
    smallest, matched_gt = area.min(dim=1)  # (B, P)
    return torch.where(smallest.isinf(), BACKGROUND, matched_gt)
