"""FCOS's points: near the centre of a box, on the level that fits its size."""

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND
from boxwright.geometry.torch_boxes import are_inside, box_area


@torch.no_grad()
def fcos_assign(
    points: Tensor,
    strides: Tensor,
    ranges: Tensor,
    gt_boxes: Tensor,
    gt_mask: Tensor,
    radius: float = 1.5,
) -> Tensor:
    """Assign each point to the smallest box that it may be assigned to.

    Tian et al., FCOS: A Simple and Strong Anchor-Free Object Detector, TPAMI 2020, section 3.

    Args:
        points: (P, 2) pixels.
        strides: (P,) of each point's level.
        ranges: (P, 2): a point is assigned to boxes whose farthest side is within, in pixels.
        gt_boxes: (B, G, 4) xyxy pixels, padded.
        gt_mask: (B, G) bool.
        radius: of the centre region in strides; 0: anywhere in the box.

    Returns:
        matched_gt: (B, P) int64, -1 for background.
    """
    if gt_boxes.shape[1] == 0:
        return torch.full((len(gt_boxes), len(points)), BACKGROUND, device=points.device)
    x, y = points.T.contiguous()
    x1, y1, x2, y2 = gt_boxes[..., None].unbind(2)  # (B, G, 1) each
    # Bounds are moved to the points, of which there are few, and not to every pair: comparisons cost least.
    allowed = are_inside(points, gt_boxes[:, :, None]) & gt_mask[..., None]  # (B, G, P)
    if radius > 0:
        reach = strides * radius
        for place, center in ((x, (x1 + x2) / 2), (y, (y1 + y2) / 2)):
            allowed &= (place + reach > center) & (place - reach < center)
    farthest = torch.maximum(torch.maximum(x - x1, x2 - x), torch.maximum(y - y1, y2 - y))
    allowed &= (farthest >= ranges[:, 0]) & (farthest <= ranges[:, 1])
    area = torch.where(allowed, box_area(gt_boxes)[:, :, None], torch.inf)
    smallest, matched_gt = area.min(dim=1)  # (B, P)
    return torch.where(smallest.isinf(), BACKGROUND, matched_gt)
