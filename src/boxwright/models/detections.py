"""From dense scores and boxes to detections: one top-k, one suppression for the batch, a vote on each box."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.geometry.iou import pairwise_iou as numpy_iou
from boxwright.geometry.nms import nms as numpy_nms
from boxwright.geometry.torch_boxes import pairwise_iou
from boxwright.geometry.torch_nms import grouped_nms
from boxwright.models.shapes import is_exporting, size_of

# IoU from which boxes of one class vote together; that of oriented boxes falls faster.
SAME_OBJECT, SAME_ORIENTED_OBJECT = 0.7, 0.5


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first.

    Attributes:
        boxes: (N, 4) xyxy, or (N, 5) cx, cy, w, h and angle, pixels of the network's input.
        scores: (N,) in [0, 1].
        labels: (N,) int64.
        landmarks: (N, LANDMARKS, 2) x, y in pixels; None from a detector that finds none.
        heading_certainty: (N,) how far several views agree on where the width points, from 0 for as many
            either way to 1; None where nothing tells.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    landmarks: Tensor | None = None
    heading_certainty: Tensor | None = None

    def __getitem__(self, rows: Tensor | slice) -> "Detections":
        """Some of them, by their places, a mask or a slice."""
        more = (None if t is None else t[rows] for t in (self.landmarks, self.heading_certainty))
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows], *more)


def concatenate(parts: Sequence[Detections]) -> Detections:
    """Detections of one image, one after the other; at least one part."""
    landmarks = [d.landmarks for d in parts if d.landmarks is not None]
    boxes, scores, labels = (torch.cat([getattr(d, n) for d in parts]) for n in ("boxes", "scores", "labels"))
    return Detections(boxes, scores, labels, torch.cat(landmarks) if landmarks else None)


@dataclass(frozen=True)
class Selection:
    """How dense predictions are thinned out.

    Attributes:
        score_threshold: below it nothing is kept.
        iou_threshold: of non-maximum suppression within a class.
        max_detections: an image.
        candidates: an image, before suppression.
        per_level: as many candidates from each level of the pyramid, as MMDetection has it.
        vote: what stays takes the mean box of the candidates on it, see `vote`.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.6
    max_detections: int = 300
    candidates: int = 1000
    per_level: bool = False
    vote: bool = False

    def limited_to(self, count: int) -> "Selection":
        """The same selection with another limit of detections an image, and at least as many candidates: with
        fewer, a crowd would be cut without the limit being reached.
        """
        return replace(self, max_detections=count, candidates=max(self.candidates, count))


@dataclass(frozen=True)
class Scored:
    """Boxes and scores of all places of a batch, of which detections are chosen.

    Attributes:
        boxes: (B, P, 4) xyxy or (B, P, 5) cx, cy, w, h and angle, pixels; or what makes (N, 4 or 5) of them,
            of images (N,), priors (N,) and labels (N,), where making all would take long or each class has a
            box of its own.
        scores: (B, P, C) in [0, 1].
        level_sizes: (L,) priors of each level, on the CPU; needed where candidates are taken per level.
        quality: (B, P) in [0, 1], multiplies the scores of what passed threshold and top-k by class alone.
        landmarks: (B, P, LANDMARKS, 2) x, y in pixels.
        one_each: places are a set in which each object has one, and none suppresses another.
    """

    boxes: Tensor | Callable[[Tensor, Tensor, Tensor], Tensor]
    scores: Tensor
    level_sizes: Tensor | None = None
    quality: Tensor | None = None
    landmarks: Tensor | None = None
    one_each: bool = False

    def applied(self, selection: Selection) -> Selection:
        """The selection as it is for these."""
        if not self.one_each:
            return selection
        return replace(selection, iou_threshold=1.0, candidates=selection.max_detections, per_level=False)

    def candidates(self, selection: Selection) -> tuple[Tensor, Tensor, Tensor]:
        """The best scores of each image, with their places and classes, each (B, K)."""
        sizes = [self.scores.shape[1]]
        if selection.per_level and self.level_sizes is not None:
            sizes = self.level_sizes.tolist()
        tops, start = [], 0
        for level in self.scores.split(sizes, dim=1):
            values, point, label = _top_scores(level, selection.candidates)
            tops.append((values, point + start, label))
            start += level.shape[1]
        best, point, label = (torch.cat(parts, dim=1) for parts in zip(*tops))
        return best, point, label

    def boxes_of(self, image: Tensor, point: Tensor, label: Tensor) -> Tensor:
        """(N, 4 or 5) boxes of images, places and labels, (N,) each."""
        return self.boxes[image, point] if isinstance(self.boxes, Tensor) else self.boxes(image, point, label)


@torch.no_grad()
def select_detections(scored: Scored, selection: Selection) -> list[Detections]:
    """Choose the best boxes of each class and image."""
    batch, _, classes = scored.scores.shape
    selection = scored.applied(selection)
    best, point, label = scored.candidates(selection)
    image = torch.arange(batch, device=best.device)[:, None].expand_as(best)
    kept = best > selection.score_threshold
    if scored.quality is not None:
        best = best * scored.quality.gather(1, point)
    best, image, point, label = best[kept], image[kept], point[kept], label[kept]
    candidates = scored.boxes_of(image, point, label)
    # A box that was clipped to nothing is no detection.
    first = 0 if candidates.shape[1] == 5 else candidates[:, :2]
    has_area = (candidates[:, 2:4] > first).all(-1)
    points = None if scored.landmarks is None else scored.landmarks[image, point]
    found, image = Detections(candidates, best, label, points)[has_area], image[has_area]
    if len(image) == 0:
        return [found] * batch
    group = image * classes + found.labels
    survivors = suppress(found.boxes, found.scores, group, selection.iou_threshold)
    # They are sorted by score, so each image's survivors are in order.
    each = [survivors[image[survivors] == n][: selection.max_detections] for n in range(batch)]
    if not selection.vote:
        return [found[rows] for rows in each]
    ends = image.bincount(minlength=batch).cumsum(0).tolist()
    return [
        vote(found[start:end], rows - start)[0]
        for start, end, rows in zip([0, *ends], ends, each, strict=False)
    ]


def _top_scores(scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The greatest of scores (B, P, C), best first, with their places and classes, each (B, K).

    They lie in the `count` places whose best class is greatest, so that few scores need sorting.
    """
    classes, there = scores.shape[2], scores
    exporting = is_exporting()
    if exporting:  # however small its images are, a graph has `count` places, the last ones without a score
        scores = F.pad(scores, (0, 0, 0, count))
    point = scores.amax(-1).topk(min(count, scores.shape[1]), dim=1).indices
    rows = scores.gather(1, point[..., None].expand(-1, -1, classes)).flatten(1)
    values, index = rows.topk(min(count, rows.shape[1]), dim=1)
    point = point.gather(1, index // classes)
    if exporting:
        point = torch.minimum(point, size_of(there)[1].long() - 1)
    return values, point, index % classes


@torch.compiler.disable(recursive=True)  # kernels of its own, and as many rows as stay
def suppress(boxes: Tensor, scores: Tensor, group: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression of boxes (N, 4) xyxy or (N, 5); those of different groups (N,) never meet.

    Returns:
        Indices that stay, best first.
    """
    if iou_threshold >= 1:
        return scores.argsort(descending=True, stable=True)
    oriented, exporting = boxes.shape[1] == 5, is_exporting()
    if oriented or (boxes.device.type == "cpu" and not exporting):
        # On the CPU, where only near neighbours are compared.
        boxes = boxes if oriented else torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
        on_cpu = (t.detach().cpu().numpy() for t in (boxes, scores, group))
        at, score, label = on_cpu
        kept = numpy_nms(at, score, iou_threshold, label)
        return torch.from_numpy(kept).to(boxes.device)
    if not exporting:
        return grouped_nms(boxes, scores, group, iou_threshold)
    from torchvision.ops import nms  # a second of imports, which no one but an export waits for

    # Those of another group are moved out of reach. OpenVINO wants to know that a box has four sides.
    extent = boxes.max() - boxes.min() + 1
    return nms((boxes + (group * extent)[:, None]).view(-1, 4), scores, iou_threshold)


def choose(found: Detections, selection: Selection) -> Detections:
    """What stays of one image's candidates: suppression, the limit and the vote."""
    kept = suppress(found.boxes, found.scores, found.labels, selection.iou_threshold)
    kept = kept[: selection.max_detections]
    return vote(found, kept)[0] if selection.vote else found[kept]


def vote(found: Detections, chosen: Tensor) -> tuple[Detections, Tensor]:
    """Some detections of an image, each with the mean box and landmarks of those that lie on it.

    Gidaris and Komodakis, Object Detection via a Multi-region and Semantic Segmentation-aware CNN Model, ICCV
    2015, section 4; weighted by score.

    Args:
        found: N of one image.
        chosen: (K,) rows of it, which keep their scores and labels.

    Returns:
        K detections, and (K, N) the score of each vote, 0 where there is none.
    """
    boxes, best = found.boxes, found[chosen]
    oriented = boxes.shape[1] == 5
    iou = _rotated_iou(best.boxes, boxes) if oriented else pairwise_iou(best.boxes, boxes)
    votes = iou >= (SAME_ORIENTED_OBJECT if oriented else SAME_OBJECT)
    votes &= best.labels[:, None] == found.labels
    # The chosen box votes for itself even where it has no area to overlap.
    votes[torch.arange(len(chosen), device=boxes.device), chosen] = True
    scores = votes * found.scores
    boxes, landmarks = mean_of_votes(scores, best.boxes, found)
    return Detections(boxes, best.scores, best.labels, landmarks), scores


def mean_of_votes(votes: Tensor, chosen: Tensor, found: Detections) -> tuple[Tensor, Tensor | None]:
    """Means of the boxes and landmarks of M detections with weights (..., N, M), each spelled as the chosen
    box (..., N, 4 or 5) is.
    """
    weights = votes / votes.sum(-1, keepdim=True).clamp(min=1e-12)
    boxes, landmarks = found.boxes, found.landmarks
    mean = _mean_oriented(weights, chosen, boxes) if boxes.shape[-1] == 5 else weights @ boxes
    if landmarks is not None:
        landmarks = (weights @ landmarks.flatten(-2)).unflatten(-1, landmarks.shape[-2:])
    return mean, landmarks


def _rotated_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) IoU of boxes (N, 5) and (M, 5), on the CPU, where far pairs cost next to nothing."""
    found = numpy_iou(a.double().cpu().numpy(), b.double().cpu().numpy())
    return torch.from_numpy(found).to(a)


def _mean_oriented(weights: Tensor, chosen: Tensor, boxes: Tensor) -> Tensor:
    """(..., N, 5) means of boxes (..., M, 5) with weights (..., N, M), each spelled as the chosen box is.

    A rectangle rotated by a quarter turn with its sides exchanged is the same: the nearest spelling is taken.
    The heading is put to the vote.
    """
    turn = boxes[..., None, :, 4] - chosen[..., 4:]  # (..., N, M)
    quarters = torch.round(turn / (math.pi / 2))
    rest = turn - quarters * (math.pi / 2)
    crossed = quarters.long() % 2 == 1
    w, h = boxes[..., None, :, 2].expand_as(turn), boxes[..., None, :, 3].expand_as(turn)
    means = [(weights * v).sum(-1) for v in (torch.where(crossed, h, w), torch.where(crossed, w, h), rest)]
    angle = chosen[..., 4] + means[2]
    behind = (weights * turn.cos() * ~crossed).sum(-1) < 0
    angle = torch.where(behind, angle + math.pi, angle)
    return torch.cat([weights @ boxes[..., :2], torch.stack([means[0], means[1], angle], -1)], -1)
