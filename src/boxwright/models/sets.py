"""What detectors that predict a set share: one-to-one matching, losses of all layers at once, decoding.

Boxes are those of `set_boxes`, N numbers each; sets of L layers stand side by side, (B, L, Q, ...).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.assign import Assignment
from boxwright.assign.hungarian import hungarian_assign
from boxwright.assign.max_iou import covered
from boxwright.data.targets import Targets
from boxwright.models.detections import Scored
from boxwright.models.oriented import head_boxes
from boxwright.models.points import one_hot, targets_of_points
from boxwright.models.set_boxes import kind_of

IGNORE_COVERAGE = 0.5  # share inside an ignore region from which a prediction isn't background
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0  # of the cost of a class


@dataclass(frozen=True)
class Costs:
    """Weights of the costs of a match.

    Attributes:
        cls: of the class.
        l1: of the distance of the boxes.
        giou: of their GIoU.
        softmax: classes exclude each other, and the cost is less the probability; else that of the focal
            loss.
    """

    cls: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    softmax: bool = False


@torch.no_grad()
def match_sets(logits: Tensor, boxes: Tensor, targets: Targets, gt_boxes: Tensor, costs: Costs) -> Tensor:
    """The cheapest one-to-one match of each layer.

    Carion et al., DETR, ECCV 2020, section 3.1; with focal costs as in Deformable DETR.

    Args:
        logits: (B, L, Q, C).
        boxes: (B, L, Q, N).
        targets: the truth.
        gt_boxes: (B, G, ...) of it, see `UprightSets.truth`.
        costs: weights.

    Returns:
        (B, L, Q) int64, -1 for background.
    """
    index = targets.labels[:, None, None].expand(-1, *logits.shape[1:3], -1)
    if costs.softmax:
        cls_cost = -logits.float().softmax(-1).gather(3, index)
    else:
        own = logits.float().gather(3, index).sigmoid()  # (B, L, Q, G)
        background = (1 - FOCAL_ALPHA) * own**FOCAL_GAMMA * -(1 - own + 1e-8).log()
        cls_cost = FOCAL_ALPHA * (1 - own) ** FOCAL_GAMMA * -(own + 1e-8).log() - background
    l1, unlike = kind_of(boxes).costs(boxes.float()[:, :, :, None], gt_boxes[:, None, None])
    return hungarian_assign(costs.cls * cls_cost + costs.l1 * l1 + costs.giou * unlike, targets.mask)


def assign_last(outputs: dict[str, Tensor], targets: Targets, costs: Costs) -> Assignment:
    """The last layer's predictions, each matched with at most one box."""
    logits, boxes = outputs["cls_logits"][:, -1:], outputs["boxes"][:, -1:]
    gt_boxes = kind_of(boxes).truth(targets, outputs["image_size"])
    matched_gt = match_sets(logits, boxes, targets, gt_boxes, costs)[:, 0]
    return Assignment(matched_gt, torch.zeros_like(matched_gt, dtype=torch.bool))


@dataclass(frozen=True)
class Matched:
    """The truth of each prediction of L layers.

    Attributes:
        positive: (B, L, Q) bool.
        gt_boxes: (B, L, Q, ...), anything where not positive.
        gt_labels: (B, L, Q) int64.
    """

    positive: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor


def truth_of_sets(matched_gt: Tensor, targets: Targets, gt_boxes: Tensor) -> Matched:
    """The truth that `matched_gt` (B, L, Q) names."""
    flat = matched_gt.flatten(1)
    shared = replace(targets, boxes=gt_boxes)
    positive, own_boxes, own_labels = targets_of_points(flat, shared)
    shape = matched_gt.shape
    return Matched(positive.view(shape), own_boxes.view(*shape, -1), own_labels.view(shape))


def box_losses(boxes: Tensor, matched: Matched) -> tuple[Tensor, Tensor]:
    """L1 distances and 1 - GIoU, or what stands in its place, of positives, 0 elsewhere; (B, L, Q) both."""
    l1, unlike = kind_of(boxes).losses(boxes, matched.gt_boxes)
    return torch.where(matched.positive, l1, 0.0), torch.where(matched.positive, unlike, 0.0)


@torch.no_grad()
def overlaps_of(boxes: Tensor, matched: Matched) -> Tensor:
    """(B, L, Q) IoU of positives with their truth, 0 elsewhere."""
    return kind_of(boxes).overlaps(boxes, matched.gt_boxes) * matched.positive


def quality_class_loss(
    logits: Tensor, quality: Tensor, labels: Tensor, positive: Tensor, matching_aware: bool
) -> Tensor:
    """Cross-entropy against the overlap of each positive's box; (B, L, Q).

    Varifocal loss (Zhang et al., VarifocalNet, CVPR 2021, equation 2) with the weights of RT-DETR; or the
    matching-aware loss of Huang et al., DEIM, CVPR 2025, equation 3, which costs a confident score on a
    poor match.

    Args:
        logits: (B, L, Q, C).
        quality: (B, L, Q) IoU of positives, 0 elsewhere.
        labels: (B, L, Q).
        positive: (B, L, Q) bool.
        matching_aware: DEIM's loss.
    """
    is_label = one_hot(labels, logits.shape[-1]) & positive[..., None]
    wanted = is_label * quality[..., None]
    score = logits.detach().sigmoid()
    if matching_aware:
        wanted = wanted**1.5
        weight = torch.where(is_label, 1.0, score**1.5)
    else:
        weight = torch.where(is_label, wanted, 0.75 * score**2)
    return F.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="none").sum(-1)


def quality_set_losses(
    logits: Tensor,
    boxes: Tensor,
    matched_cls: Matched,
    matched_box: Matched,
    counted: Tensor,
    matching_aware: bool,
) -> dict[str, Tensor]:
    """Sums over all layers of the class loss `cls`, and of `l1` and `giou`, each (B,).

    Args:
        logits: (B, L, Q, C).
        boxes: (B, L, Q, N).
        matched_cls, matched_box: the truth of each prediction for its class and for its box.
        counted: (B, L, Q) 1 where the class loss counts.
        matching_aware: see `quality_class_loss`.
    """
    quality = overlaps_of(boxes.detach(), matched_cls)
    cls_loss = quality_class_loss(
        logits.float(), quality, matched_cls.gt_labels, matched_cls.positive, matching_aware
    )
    l1, giou = box_losses(boxes, matched_box)
    return {"cls": (cls_loss * counted).sum((1, 2)), "l1": l1.sum((1, 2)), "giou": giou.sum((1, 2))}


def not_ignored(boxes: Tensor, matched: Matched, targets: Targets, image_size: Tensor) -> Tensor:
    """(B, L, Q) 1 where a prediction counts: a positive, or background outside of ignore regions."""
    if not targets.any_ignored or targets.boxes.shape[1] == 0:
        return torch.ones_like(matched.positive, dtype=boxes.dtype)
    corners = kind_of(boxes).hulls(boxes.detach(), image_size).flatten(1, 2)
    inside = covered(corners, targets.boxes, targets.ignore, IGNORE_COVERAGE).view_as(matched.positive)
    return (matched.positive | ~inside).to(boxes.dtype)


def score_sets(outputs: dict[str, Tensor], scores: Tensor, sizes: Tensor) -> Scored:
    """The last layer's boxes by scores (B, Q, C), of which none suppresses another."""
    last = outputs["boxes"][:, -1]
    boxes, inside = kind_of(last).found(last, outputs["image_size"], sizes)
    if "headings" in outputs:
        boxes = head_boxes(boxes, {"headings": outputs["headings"]}, long_edge=True)
    return Scored(boxes, scores * inside, one_each=True)


def count_of_queries(queries: int, targets: Targets) -> Tensor:
    """(B, G) predictions that each object could get: none where there are more objects than predictions."""
    place = targets.mask.cumsum(1)
    return torch.where(targets.mask & (place <= queries), queries, 0)
