"""From dense scores and boxes to detections: one top-k, one non-maximum suppression for the batch."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

from boxwright.geometry.nms import nms as rotated_nms


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first.

    Attributes:
        boxes: (N, 4) xyxy, or (N, 5) cx, cy, w, h and angle, pixels of the network's input.
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
        per_level: as many candidates from each level of the pyramid, as MMDetection has it.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.6
    max_detections: int = 300
    candidates: int = 1000
    per_level: bool = False


@torch.no_grad()
def select_detections(
    boxes: Tensor,
    scores: Tensor,
    selection: Selection,
    level_sizes: Tensor | None = None,
    quality: Tensor | None = None,
) -> list[Detections]:
    """Choose the best boxes of each class and image.

    Args:
        boxes: (B, P, 4) xyxy or (B, P, 5) cx, cy, w, h and angle, pixels.
        scores: (B, P, C) in [0, 1].
        selection: thresholds and limits.
        level_sizes: (L,) priors of each level, on the CPU; needed where candidates are taken per level.
        quality: (B, P) in [0, 1], multiplies the scores of what passed threshold and top-k by class alone.
    """
    batch, _, classes = scores.shape
    sizes = [scores.shape[1]]
    if selection.per_level and level_sizes is not None:
        sizes = level_sizes.tolist()
    tops, start = [], 0
    for size in sizes:
        flat = scores[:, start : start + size].flatten(1)  # (B, size * C)
        values, places = flat.topk(min(selection.candidates, flat.shape[1]), dim=1)
        tops.append((values, places + start * classes))
        start += size
    best, index = (torch.cat(parts, dim=1) for parts in zip(*tops))
    point, label = index // classes, index % classes
    candidates = boxes.gather(1, point[:, :, None].expand(-1, -1, boxes.shape[-1]))  # (B, K, 4 or 5)
    image = torch.arange(batch, device=boxes.device)[:, None].expand_as(best)

    turned = boxes.shape[-1] == 5
    # A box that was clipped to nothing is no detection.
    has_area = (candidates[..., 2:4] > (0 if turned else candidates[..., :2])).all(-1)
    kept = (best > selection.score_threshold) & has_area
    if quality is not None:
        best = best * quality.gather(1, point)
    candidates, best, label, image = candidates[kept], best[kept], label[kept], image[kept]
    if len(best) == 0:
        empty = Detections(candidates, best, label)
        return [empty] * batch
    group = image * classes + label
    survivors = suppress(candidates, best, group, selection.iou_threshold)
    # They are sorted by score, so each image's survivors are in order.
    found = []
    for n in range(batch):
        rows = survivors[image[survivors] == n][: selection.max_detections]
        found.append(Detections(candidates[rows], best[rows], label[rows]))
    return found


def suppress(boxes: Tensor, scores: Tensor, group: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression of boxes (N, 4) xyxy or (N, 5); those of different groups (N,) never meet.

    Returns:
        Indices that stay, best first.
    """
    if boxes.shape[1] == 5:
        # On the CPU, which looks at near neighbours alone.
        boxes5, scores5, group5 = (t.cpu().numpy() for t in (boxes, scores, group))
        return torch.from_numpy(rotated_nms(boxes5, scores5, iou_threshold, group5)).to(boxes.device)
    # Those of another group are moved out of reach; doubles keep the fractions.
    extent = boxes.max() - boxes.min() + 1
    offset = group.double() * extent.double()
    return nms(boxes.double() + offset[:, None], scores.double(), iou_threshold)
