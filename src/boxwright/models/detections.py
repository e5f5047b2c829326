"""From dense scores and boxes to detections: one top-k, one non-maximum suppression for the batch."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first.

    Attributes:
        boxes: (N, 4) xyxy, pixels of the network's input.
        scores: (N,) in [0, 1].
        labels: (N,) int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Selection:
    """How dense predictions are thinned out.

    Attributes:
        score_threshold: below it nothing is kept.
        iou_threshold: of non-maximum suppression within a class.
        max_detections: an image.
        candidates: an image, before suppression.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.6
    max_detections: int = 300
    candidates: int = 1000


@torch.no_grad()
def select_detections(boxes: Tensor, scores: Tensor, selection: Selection) -> list[Detections]:
    """Choose the best boxes of each class and image.

    Args:
        boxes: (B, P, 4) xyxy pixels.
        scores: (B, P, C) in [0, 1].
        selection: thresholds and limits.
    """
    batch, _, classes = scores.shape
    flat = scores.flatten(1)  # (B, P * C)
    best, index = flat.topk(min(selection.candidates, flat.shape[1]), dim=1)
    point, label = index // classes, index % classes
    candidates = boxes.gather(1, point[:, :, None].expand(-1, -1, 4))  # (B, K, 4)
    image = torch.arange(batch, device=boxes.device)[:, None].expand_as(best)

    kept = best > selection.score_threshold
    candidates, best, label, image = candidates[kept], best[kept], label[kept], image[kept]
    if len(best) == 0:
        empty = Detections(candidates, best, label)
        return [empty] * batch
    # Boxes of another image or class are moved out of reach; doubles keep the fractions.
    extent = candidates.max() - candidates.min() + 1
    offset = (image * classes + label).double() * extent.double()
    survivors = nms(candidates.double() + offset[:, None], best.double(), selection.iou_threshold)
    # nms sorts by score, so each image's survivors are in order.
    found = []
    for n in range(batch):
        rows = survivors[image[survivors] == n][: selection.max_detections]
        found.append(Detections(candidates[rows], best[rows], label[rows]))
    return found
