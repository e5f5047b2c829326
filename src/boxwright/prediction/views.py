"""An image looked at in several flips, and the boxes of all of them fused.

Boxes of one object from different views err differently: their mean is better than the best of them, and
an object that all views see is likelier than one that a single view sees. Fusing by weighted means follows
Solovyev et al., Weighted Boxes Fusion, Image and Vision Computing 2021, on clusters that NMS chooses.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from boxwright.config.experiment import View
from boxwright.data.tables import MIRRORED
from boxwright.models.detections import Detections, concatenate, suppress, vote


def to_view(images: Tensor, sizes: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Flip the content of images, then swap its axes where the view is transposed.

    Args:
        images: (B, 3, H, W).
        sizes: (B, 2) width and height of the content, which lies at the top left and stays there.
        view: which flips.

    Returns:
        Images (B, 3, H, W) or (B, 3, W, H), and their sizes.
    """
    flips, transposed = _parts(view)
    if flips:
        images = images.clone()
        for image, (width, height) in zip(images, sizes.int().tolist()):
            image[:, :height, :width] = image[:, :height, :width].flip(flips)
    return (images.transpose(2, 3), sizes.flip(1)) if transposed else (images, sizes)


def from_view(detections: Detections, size: Tensor, view: View) -> Detections:
    """Detections in a view in the coordinates of the image, whose content is `size` (width, height)."""
    flips, transposed = _parts(view)
    landmarks = detections.landmarks
    if landmarks is not None:
        landmarks = _landmarks_from_view(landmarks, size, flips, transposed)
    if detections.boxes.shape[1] == 5:
        boxes = _oriented_from_view(detections.boxes, size, flips, transposed)
        return replace(detections, boxes=boxes, landmarks=landmarks)
    x1, y1, x2, y2 = detections.boxes[:, [1, 0, 3, 2] if transposed else [0, 1, 2, 3]].unbind(-1)
    if 2 in flips:
        x1, x2 = size[0] - x2, size[0] - x1
    if 1 in flips:
        y1, y2 = size[1] - y2, size[1] - y1
    return replace(detections, boxes=torch.stack([x1, y1, x2, y2], dim=-1), landmarks=landmarks)


def _landmarks_from_view(landmarks: Tensor, size: Tensor, flips: list[int], transposed: bool) -> Tensor:
    """Landmarks (N, LANDMARKS, 2) of a view in the coordinates of the image: in a mirror left is right."""
    x, y = landmarks.flip(-1).unbind(-1) if transposed else landmarks.unbind(-1)
    if 2 in flips:
        x = size[0] - x
    if 1 in flips:
        y = size[1] - y
    moved = torch.stack([x, y], dim=-1)
    return moved[:, list(MIRRORED)] if (len(flips) + transposed) % 2 else moved


def _oriented_from_view(boxes: Tensor, size: Tensor, flips: list[int], transposed: bool) -> Tensor:
    """Boxes (N, 5) of a view in the coordinates of the image; headings are kept."""
    cx, cy, w, h, angle = boxes.unbind(-1)
    if transposed:
        cx, cy, angle = cy, cx, math.pi / 2 - angle
    if 2 in flips:
        cx, angle = size[0] - cx, math.pi - angle
    if 1 in flips:
        cy, angle = size[1] - cy, -angle
    return torch.stack([cx, cy, w, h, angle], dim=-1)


def _parts(view: View) -> tuple[list[int], bool]:
    """Axes of a (3, H, W) image to flip, and whether they are swapped afterwards."""
    flips = view.removeprefix("transposed").removeprefix("-")
    return {"horizontal": [2], "vertical": [1], "both": [1, 2]}.get(flips, []), view.startswith("transposed")


def fuse_views(
    views: list[list[Detections]], iou_threshold: float, max_detections: int, headings: bool = False
) -> list[Detections]:
    """One list of detections from those of each view.

    NMS chooses the objects. An object's box is the mean, weighted by score, of the boxes of its class that
    overlap it enough; its score is the mean over views of the best of these, 0 where a view has
    none.

    Args:
        views: for each view the detections of each image, in common coordinates.
        iou_threshold: of NMS within a class.
        max_detections: an image.
        headings: angles are those of fronts; how far the views agree on them is told.
    """
    if len(views) == 1:
        return views[0]
    return [_fuse_image(list(of_image), iou_threshold, max_detections, headings) for of_image in zip(*views)]


def _fuse_image(
    found: list[Detections], iou_threshold: float, max_detections: int, headings: bool
) -> Detections:
    together = concatenate(found)
    if len(together.boxes) == 0:
        return replace(found[0], heading_certainty=found[0].scores if headings else None)
    view = torch.cat([torch.full_like(d.labels, n) for n, d in enumerate(found)])
    chosen = suppress(together.boxes, together.scores, together.labels, iou_threshold)
    fused, weights = vote(together, chosen)
    by_view = [(weights * (view == n)).amax(1) for n in range(len(found))]
    certainty = _agreement(weights, fused.boxes, together.boxes) if headings else None
    fused = replace(fused, scores=torch.stack(by_view).mean(0), heading_certainty=certainty)
    return fused[fused.scores.argsort(descending=True, stable=True)[:max_detections]]


def _agreement(weights: Tensor, fused: Tensor, boxes: Tensor) -> Tensor:
    """(K,) how far boxes (N, 5) with weights (K, N) point where the fused boxes (K, 5) do, in [0, 1]; those
    that lie across say nothing.
    """
    ahead = (boxes[:, 4] - fused[:, 4:]).cos()
    weights = weights * (ahead.abs() > math.sqrt(0.5))
    return ((weights * ahead.sign()).sum(1) / weights.sum(1).clamp(min=1e-12)).clamp(min=0)
