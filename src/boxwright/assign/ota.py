"""Optimal transport assignment: boxes supply labels, anchors demand them, and the cheapest plan is taken."""

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND
from boxwright.assign.simota import FAR, classification_cost, regions
from boxwright.geometry.torch_boxes import pairwise_iou

EPS = 1e-7


@torch.no_grad()
def ota_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_mask: Tensor,
    radius: float = 2.5,
    topk: int = 20,
    iou_weight: float = 1.5,
    epsilon: float = 0.1,
    iterations: int = 50,
) -> Tensor:
    """Give each point the box, or the background, that sends it most in the optimal plan.

    Ge et al., OTA: Optimal Transport Assignment for Object Detection, CVPR 2021, section 3: each box supplies
    as many labels as the sum of its `topk` best IoUs (dynamic k), the background supplies the rest, each
    point demands one; the plan is found by Sinkhorn's iteration (Cuturi, NeurIPS 2013), in logarithms.

    Args:
        scores: (B, P, C) in [0, 1].
        boxes: (B, P, 4) predicted, xyxy pixels.
        points: (P, 2) pixels.
        strides: (P,).
        gt_boxes: (B, G, 4) xyxy pixels, padded.
        gt_labels: (B, G) int64.
        gt_mask: (B, G) bool, the boxes to assign.
        radius: of the region around a centre outside of which a point costs `FAR` more, strides.
        topk: of the IoUs that are summed.
        iou_weight: of -ln(IoU) beside the cross-entropy of the classes.
        epsilon: of the entropy in the plan.
        iterations: Sinkhorn's.

    Returns:
        matched_gt: (B, P) int64, -1 for background.
    """
    batch, count, _ = scores.shape
    groups = gt_boxes.shape[1]
    if groups == 0:
        return torch.full((batch, count), BACKGROUND, device=points.device)
    in_box, near = regions(points, strides, gt_boxes, radius)
    iou = pairwise_iou(gt_boxes, boxes)  # (B, G, P)
    allowed = in_box & near & gt_mask[:, :, None]
    cost = classification_cost(scores, gt_labels) - iou_weight * (iou + EPS).log() + FAR * ~allowed
    background = -(1 - scores).log().clamp(min=-100).sum(-1)  # (B, P)
    cost = torch.cat([cost, background[:, None]], dim=1).double()  # (B, G + 1, P)

    supply = (iou * in_box).topk(min(topk, count), dim=2).values.sum(2).int().clamp(min=1) * gt_mask
    rest = (count - supply.sum(1, keepdim=True)).clamp(min=0)
    supply = torch.cat([supply, rest], dim=1).double()
    plan = _sinkhorn(cost, supply, epsilon, iterations)
    best = plan.argmax(dim=1)  # (B, P)
    legal = torch.cat([allowed, torch.ones_like(allowed[:, :1])], dim=1).gather(1, best[:, None])[:, 0]
    return torch.where((best < groups) & legal, best, BACKGROUND)


def _sinkhorn(cost: Tensor, supply: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Logarithms of the plan (B, N, P) from suppliers (B, N) to points that demand 1 each."""
    kernel = -cost / epsilon
    log_supply = supply.log()  # -inf for those who have nothing
    rows = torch.zeros_like(log_supply)
    columns = torch.zeros_like(cost[:, 0])
    for _ in range(iterations):
        rows = log_supply - torch.logsumexp(kernel + columns[:, None], dim=2)
        columns = -torch.logsumexp(kernel + rows[:, :, None], dim=1)
    return kernel + rows[:, :, None] + columns[:, None]
