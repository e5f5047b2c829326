"""Detections of plain tensor operations, as many rows for every image: what a graph in another runtime wants.

The same choice as `select_detections`, of boxes that are compared all with all.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.geometry.torch_boxes import pairwise_iou
from boxwright.geometry.torch_rotated import as_hulls, rotated_iou
from boxwright.models.detections import (
    SAME_OBJECT,
    SAME_ORIENTED_OBJECT,
    Detections,
    Scored,
    Selection,
    mean_of_votes,
)
from boxwright.models.points import rows_of
from boxwright.models.shapes import is_exporting

PASSES = 24  # of suppression in a graph


def select_padded(scored: Scored, selection: Selection) -> Detections:
    """The best boxes of each class and image.

    Args:
        scored: of B images.
        selection: thresholds and limits.

    Returns:
        Boxes (B, K, 4 or 5), scores (B, K), labels (B, K) and landmarks of K = `max_detections` places, or of
        all candidates where these are fewer: best first, with a score of 0 where an image has less.
    """
    selection = scored.applied(selection)
    best, point, label = scored.candidates(selection)
    image = torch.arange(best.shape[0], device=best.device)[:, None].expand_as(best)
    there = best > selection.score_threshold
    if scored.quality is not None:
        best = best * scored.quality.gather(1, point)
    boxes = scored.boxes_of(image.flatten(), point.flatten(), label.flatten())
    boxes = boxes.unflatten(0, best.shape)
    first = 0 if boxes.shape[-1] == 5 else boxes[..., :2]
    there = there & (boxes[..., 2:4] > first).all(-1)
    limit = min(selection.max_detections, best.shape[1])
    best, order = torch.where(there, best, 0.0).topk(best.shape[1], dim=1)
    # Those with a score come first: mostly a few hundred, of which all pairs are soon compared.
    used = (best > 0).sum(dim=1).amax().clamp(min=1)
    best, order = best[:, :used], order[:, :used]
    landmarks = (
        None if scored.landmarks is None else scored.landmarks[image[:, :used], point.gather(1, order)]
    )
    found = Detections(rows_of(boxes, order), best, label.gather(1, order), landmarks)
    kept, iou = best, None
    if selection.iou_threshold < 1 or selection.vote:
        iou = overlaps(found)
        kept = best * stay(iou > selection.iou_threshold)
    scores, rows = F.pad(kept, (0, limit)).topk(limit, dim=1)
    rows = torch.minimum(rows, used - 1)
    chosen = Detections(
        rows_of(found.boxes, rows),
        scores,
        found.labels.gather(1, rows),
        None if landmarks is None else rows_of(landmarks.flatten(2), rows).unflatten(2, landmarks.shape[2:]),
    )
    if iou is None or not selection.vote:
        return chosen
    least = SAME_ORIENTED_OBJECT if boxes.shape[-1] == 5 else SAME_OBJECT
    itself = rows[..., None] == torch.arange(iou.shape[2], device=rows.device)
    votes = (rows_of(iou, rows) >= least) | itself
    voted, points = mean_of_votes(votes * found.scores[:, None], chosen.boxes, found)
    return Detections(voted, scores, chosen.labels, points)


def overlaps(found: Detections) -> Tensor:
    """(B, N, N) IoU of boxes of one image and class, 0 of others."""
    same = found.labels[:, :, None] == found.labels[:, None]
    if found.boxes.shape[-1] == 4:
        return pairwise_iou(found.boxes, found.boxes) * same
    # Exact overlaps of those alone whose hulls meet.
    hulls = as_hulls(found.boxes)
    gap = (hulls[:, :, None, :2] - hulls[:, None, :, :2]).abs()
    reach = (hulls[:, :, None, 2:4] + hulls[:, None, :, 2:4]) / 2
    image, one, other = ((gap < reach).all(-1) & same).nonzero().unbind(1)
    iou = rotated_iou(found.boxes[image, one], found.boxes[image, other])
    return torch.zeros_like(gap[..., 0]).index_put((image, one, other), iou)


def stay(lies_on: Tensor) -> Tensor:
    """Which of boxes, best first, greedy suppression keeps; (B, N) float32.

    After n passes the n best are right whatever the others are, see `grouped_nms`. A graph has `PASSES`:
    enough for chains of so many boxes of which each lies on the next.

    Args:
        lies_on: (B, N, N) bool, pairs of which only one can stay.
    """
    on_better = lies_on.triu(1).float()
    kept = torch.ones_like(on_better[:, :1])
    for _ in range(PASSES if is_exporting() else lies_on.shape[1]):
        before, kept = kept, (kept @ on_better < 0.5).to(on_better.dtype)
        if not is_exporting() and torch.equal(before, kept):
            break
    return kept[:, 0]
