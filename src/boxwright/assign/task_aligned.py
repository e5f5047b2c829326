"""Task-aligned assignment: points that classify and localise a box well are assigned to it."""

from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND
from boxwright.geometry.torch_boxes import are_inside, pairwise_iou

REACH = 0.75  # strides of the finest level, from a box's centre
# Of points and boxes compared at a time: as many as a processor's caches hold, as a card's memory does.
PAIRS, PAIRS_OF_A_CARD = 2**19, 2**25


class TaskAligned(NamedTuple):
    matched_gt: Tensor  # (B, P) int64, -1 for background
    quality: Tensor  # (B, P) in [0, 1]: the classification target, 0 for background


class _Wanted(NamedTuple):
    """The points that each box wants most, K of them."""

    alignment: Tensor  # (B, G, K), 0 where none is meant
    iou: Tensor  # (B, G, K)
    place: Tensor  # (B, G, K) int64


@torch.no_grad()
def task_aligned_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_mask: Tensor,
    topk: int = 10,
    alpha: float = 1.0,
    beta: float = 6.0,
    reach: Tensor | float = 0.0,
) -> TaskAligned:
    """Give each box its `topk` points of greatest alignment score^alpha * IoU^beta.

    Feng et al., TOOD: Task-aligned One-stage Object Detection, ICCV 2021, section 3.2. The quality is the
    alignment, scaled for each box so that its best point gets the box's best IoU. A point wanted by
    several boxes goes to the one it overlaps most.

    Args:
        scores: (B, P, C) in [0, 1].
        boxes: (B, P, 4) predicted, xyxy pixels.
        points: (P, 2) pixels.
        gt_boxes: (B, G, 4) xyxy pixels, padded.
        gt_labels: (B, G) int64.
        gt_mask: (B, G) bool, the boxes to assign.
        topk: points a box.
        reach: see `are_candidates`.
    """
    class_scores = scores.transpose(1, 2)
    pairs = PAIRS if points.device.type == "cpu" else PAIRS_OF_A_CARD
    each = max(1, pairs // max(1, boxes[..., 0].numel()))  # boxes of an image
    wanted = []
    for some_boxes, labels, mask in zip(
        *(part.split(each, dim=1) for part in (gt_boxes, gt_labels, gt_mask))
    ):
        iou = pairwise_iou(some_boxes, boxes)  # (B, each, P)
        candidate = are_candidates(points, some_boxes, reach) & mask[:, :, None]
        own_scores = class_scores.gather(1, labels[:, :, None].expand_as(iou))
        wanted.append(_wanted_points(own_scores, iou, candidate, topk, alpha, beta))
    return _settle(_Wanted(*(torch.cat(parts, dim=1) for parts in zip(*wanted))), len(points))


def are_candidates(points: Tensor, gt_boxes: Tensor, reach: Tensor | float) -> Tensor:
    """(B, G, P) bool: points (P, 2) inside boxes (B, G, 4), or within `reach` px of the centre along x and y,
    so that a box between the points has some.
    """
    center = (gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2
    low, high = gt_boxes[..., :2].minimum(center - reach), gt_boxes[..., 2:].maximum(center + reach)
    return are_inside(points, torch.cat([low, high], dim=-1)[:, :, None])


@torch.no_grad()
def choose_aligned(
    scores: Tensor,
    places: Tensor,
    iou: Tensor,
    candidate: Tensor,
    gt_labels: Tensor,
    topk: int = 10,
    alpha: float = 1.0,
    beta: float = 6.0,
) -> TaskAligned:
    """The same of given overlaps, whatever they are of, with K points a box that are looked at.

    Args:
        scores: (B, P, C) in [0, 1].
        places: (B, G, K) int64, the points; none twice for a box.
        iou: (B, G, K) of truth and predictions.
        candidate: (B, G, K) bool, points that may be assigned to a box.
        gt_labels: (B, G) int64.
        topk: points a box.
    """
    own_class = places * scores.shape[2] + gt_labels[:, :, None]
    own_scores = scores.flatten(1).gather(1, own_class.flatten(1)).view_as(iou)
    wanted = _wanted_points(own_scores, iou, candidate, topk, alpha, beta)
    return _settle(wanted._replace(place=places.gather(2, wanted.place)), scores.shape[1])


def _wanted_points(
    scores: Tensor, iou: Tensor, candidate: Tensor, topk: int, alpha: float, beta: float
) -> _Wanted:
    """Of points (B, G, K), whose scores are those of the boxes' classes, the best for each box."""
    alignment, best = (scores.pow(alpha) * iou.pow(beta) * candidate).topk(min(topk, iou.shape[2]), dim=2)
    return _Wanted(alignment, iou.gather(2, best), best)


def _settle(wanted: _Wanted, count: int) -> TaskAligned:
    """Which box has each of `count` points."""
    alignment, iou, place = wanted
    batch, groups, _ = iou.shape
    place = place.flatten(1)
    # Of the boxes that want a point the one that it overlaps most gets it, the first of equals.
    wanted_iou = torch.where(alignment > 0, iou, -1.0).flatten(1)
    most = wanted_iou.new_zeros(batch, count).scatter_reduce(1, place, wanted_iou, "amax").gather(1, place)
    box = torch.arange(groups, device=iou.device)[:, None].expand_as(iou).flatten(1)
    first = torch.where(wanted_iou == most, box, groups)
    matched_gt = place.new_full((batch, count), groups).scatter_reduce(1, place, first, "amin")
    won = (matched_gt.gather(1, place) == box).view_as(iou)

    alignment, iou = alignment * won, iou * won
    peak = alignment.amax(dim=2, keepdim=True).clamp(min=torch.finfo(iou.dtype).tiny)
    shares = (alignment / peak * iou.amax(dim=2, keepdim=True)).flatten(1)
    quality = shares.new_zeros(batch, count).scatter_reduce(1, place, shares, "amax")
    return TaskAligned(torch.where(matched_gt < groups, matched_gt, BACKGROUND), quality)
