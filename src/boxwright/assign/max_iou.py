"""Max-IoU assignment of anchors, with low-quality matches and ignore regions."""

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND, Assignment
from boxwright.geometry.torch_boxes import pairwise_coverage, pairwise_iou


@torch.no_grad()
def max_iou_assign(
    anchors: Tensor,
    gt_boxes: Tensor,
    gt_mask: Tensor,
    ignore_mask: Tensor | None,
    positive_iou: float = 0.5,
    negative_iou: float = 0.4,
    low_quality: bool = True,
    ignore_coverage: float = 0.5,
    every_peak: bool = True,
    peak_to_best: bool = False,
    least_peak: float = 0.0,
) -> Assignment:
    """Give each anchor the box it overlaps most, if that is enough.

    Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1.2; thresholds of Lin et al., Focal Loss for Dense
    Object Detection, ICCV 2017, section 4.

    Args:
        anchors: (A, 4) xyxy pixels, or each image's own, (B, A, 4).
        gt_boxes: (B, G, 4) xyxy pixels, padded; objects and ignore regions.
        gt_mask: (B, G) bool, objects.
        ignore_mask: (B, G) bool, ignore regions; None: there are none.
        positive_iou: from this IoU an anchor is positive.
        negative_iou: below it is background; between the two it doesn't count.
        low_quality: the best anchors of a box are positive whatever their IoU (but not at 0).
        every_peak: of several best anchors of a box all are positive; False: the first, as in SSD.
        peak_to_best: such an anchor is assigned to the box that it overlaps most, as in torchvision.
        least_peak: IoU that a box's best anchor needs for that.
        ignore_coverage: background anchors with this share inside an ignore region don't count.
    """
    if gt_boxes.shape[1] == 0:
        shape = (len(gt_boxes), anchors.shape[-2])
        none = torch.full(shape, BACKGROUND, device=anchors.device)
        return Assignment(none, torch.zeros_like(none, dtype=torch.bool))
    # What isn't an object has no area, so it overlaps nothing.
    iou = pairwise_iou(gt_boxes * gt_mask[:, :, None], anchors)  # (B, G, A)
    best_iou, best_gt = iou.max(dim=1)  # (B, A)
    positive = best_iou >= positive_iou
    if low_quality:
        peak = iou.amax(dim=2, keepdim=True)
        is_peak = iou == torch.where((peak > 0) & (peak >= least_peak), peak, torch.inf)
        if not every_peak:
            first = torch.zeros_like(is_peak).scatter_(2, iou.argmax(dim=2, keepdim=True), True)
            is_peak &= first
        forced = last_of(is_peak)
        if not peak_to_best:
            best_gt = torch.where(forced >= 0, forced, best_gt)
        positive = positive | (forced >= 0)
    ignored = ~positive & (best_iou >= negative_iou)
    if ignore_mask is not None:
        ignored |= ~positive & covered(anchors, gt_boxes, ignore_mask, ignore_coverage)
    return Assignment(torch.where(positive, best_gt, BACKGROUND), ignored)


def last_of(is_peak: Tensor) -> Tensor:
    """(B, A) of the boxes whose best anchor each is, (B, G, A), the last, as in the originals; -1: none."""
    order = torch.arange(1, is_peak.shape[1] + 1, dtype=torch.int16, device=is_peak.device)[:, None]
    return (is_peak * order).amax(dim=1).long() - 1


def covered(anchors: Tensor, gt_boxes: Tensor, ignore_mask: Tensor, share: float) -> Tensor:
    """(B, A) bool: anchors with this share of theirs inside an ignore region."""
    coverage = pairwise_coverage(anchors, gt_boxes) * ignore_mask[:, None]  # (B, A, G)
    return coverage.amax(dim=2) >= share
