"""SimOTA: each box takes its cheapest priors, more of them the better its predictions are."""

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND
from boxwright.geometry.torch_boxes import are_inside, pairwise_iou

FAR = 1e5  # cost of a prior that isn't both in its box and near its centre
EPS = 1e-7


@torch.no_grad()
def simota_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_mask: Tensor,
    radius: float = 2.5,
    topk: int = 10,
    iou_weight: float = 3.0,
) -> Tensor:
    """Give each box its k priors of least cost, k being the sum of its `topk` best IoUs.

    Ge et al., YOLOX: Exceeding YOLO Series in 2021, section 2.1 (SimOTA). A prior that several boxes chose
    goes to the one it costs least.

    Args:
        scores: (B, P, C) in [0, 1], objectness included.
        boxes: (B, P, 4) predicted, xyxy pixels.
        points: (P, 2) middles of the priors' cells, pixels.
        strides: (P,).
        gt_boxes: (B, G, 4) xyxy pixels, padded.
        gt_labels: (B, G) int64.
        gt_mask: (B, G) bool, the boxes to assign.
        radius: of the region around a centre, strides.
        topk: of the IoUs that are summed, and so the most priors a box gets.
        iou_weight: of -ln(IoU) beside the cross-entropy of the classes.

    Returns:
        matched_gt: (B, P) int64, -1 for background.
    """
    batch, count, _ = scores.shape
    if gt_boxes.shape[1] == 0:
        return torch.full((batch, count), BACKGROUND, device=points.device)
    in_box, near = regions(points, strides, gt_boxes, radius)
    candidate = ((in_box | near) & gt_mask[:, :, None]).any(dim=1, keepdim=True)  # (B, 1, P)
    iou = pairwise_iou(gt_boxes, boxes) * candidate  # (B, G, P)
    # The root, since a score is class times objectness.
    cost = (
        classification_cost(scores.sqrt(), gt_labels)
        - iou_weight * (iou + EPS).log()
        + FAR * ~(in_box & near)
    )
    cost = torch.where(candidate & gt_mask[:, :, None], cost, torch.inf)

    most = min(topk, count)
    wanted = iou.topk(most, dim=2).values.sum(2).int().clamp(min=1)  # (B, G)
    cheapest = cost.topk(most, dim=2, largest=False)
    taken = (torch.arange(most, device=points.device) < wanted[:, :, None]) & cheapest.values.isfinite()
    chosen = torch.zeros_like(in_box).scatter_(2, cheapest.indices, taken)
    least, matched_gt = torch.where(chosen, cost, torch.inf).min(dim=1)  # (B, P)
    return torch.where(least.isfinite(), matched_gt, BACKGROUND)


def regions(points: Tensor, strides: Tensor, gt_boxes: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """(B, G, P) bool: points inside each box, and within `radius` strides of its centre along both axes."""
    boxes = gt_boxes[:, :, None]  # (B, G, 1, 4)
    in_box = are_inside(points, boxes)
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    near = ((points - centers).abs() < radius * strides[:, None]).all(-1)
    return in_box, near


def classification_cost(scores: Tensor, gt_labels: Tensor) -> Tensor:
    """(B, G, P): cross-entropy of priors' scores (B, P, C) with each box's label (B, G), all classes summed.

    All classes but the label cost the same for every box, so no (B, G, P, C) tensor is made.
    """
    absent = -(1 - scores).log().clamp(min=-100)  # (B, P, C), clamped as binary_cross_entropy does
    present = -scores.log().clamp(min=-100)
    index = gt_labels[:, :, None].expand(-1, -1, scores.shape[1])
    of_label = (present - absent).transpose(1, 2).gather(1, index)
    return absent.sum(-1)[:, None] + of_label
