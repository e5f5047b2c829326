"""An image looked at in several flips, and the boxes of all of them fused.

Boxes of one object from different views err differently: their mean is better than the best of them, and
an object that all views see is likelier than one that a single view sees. Fusing by weighted means follows
Solovyev et al., Weighted Boxes Fusion, Image and Vision Computing 2021, on clusters that NMS chooses.
"""

import torch
from torch import Tensor
from torchvision.ops import nms

from boxwright.config.experiment import View
from boxwright.geometry.torch_boxes import pairwise_iou
from boxwright.models.detections import Detections

SAME_OBJECT = 0.7  # IoU from which boxes of one class vote together


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
    x1, y1, x2, y2 = detections.boxes[:, [1, 0, 3, 2] if transposed else [0, 1, 2, 3]].unbind(-1)
    if 2 in flips:
        x1, x2 = size[0] - x2, size[0] - x1
    if 1 in flips:
        y1, y2 = size[1] - y2, size[1] - y1
    return Detections(torch.stack([x1, y1, x2, y2], dim=-1), detections.scores, detections.labels)


def _parts(view: View) -> tuple[list[int], bool]:
    """Axes of a (3, H, W) image to flip, and whether they are swapped afterwards."""
    flips = view.removeprefix("transposed").removeprefix("-")
    return {"horizontal": [2], "vertical": [1], "both": [1, 2]}.get(flips, []), view.startswith("transposed")


def fuse_views(views: list[list[Detections]], iou_threshold: float, max_detections: int) -> list[Detections]:
    """One list of detections from those of each view.

    NMS chooses the objects. An object's box is the mean, weighted by score, of the boxes of its class that
    overlap it by `SAME_OBJECT`; its score is the mean over views of the best of these, 0 where a view has
    none.

    Args:
        views: for each view the detections of each image, in common coordinates.
        iou_threshold: of NMS within a class.
        max_detections: an image.
    """
    if len(views) == 1:
        return views[0]
    return [_fuse_image(list(of_image), iou_threshold, max_detections) for of_image in zip(*views)]


def _fuse_image(found: list[Detections], iou_threshold: float, max_detections: int) -> Detections:
    boxes = torch.cat([d.boxes for d in found])
    scores = torch.cat([d.scores for d in found])
    labels = torch.cat([d.labels for d in found])
    if len(boxes) == 0:
        return found[0]
    view = torch.cat([torch.full_like(d.labels, n) for n, d in enumerate(found)])
    extent = boxes.max() - boxes.min() + 1
    apart = boxes.double() + (labels.double() * extent.double())[:, None]
    chosen = nms(apart, scores.double(), iou_threshold)

    same_label = labels[chosen, None] == labels[None]
    votes = (pairwise_iou(boxes[chosen], boxes) >= SAME_OBJECT) & same_label  # (N, M)
    # The chosen box votes for itself even where it has no area to overlap.
    votes[torch.arange(len(chosen), device=boxes.device), chosen] = True
    weights = votes * scores
    fused = weights @ boxes / weights.sum(1, keepdim=True).clamp(min=1e-12)
    by_view = [(weights * (view == n)).amax(1) for n in range(len(found))]
    mean = torch.stack(by_view).mean(0)
    order = mean.argsort(descending=True, stable=True)[:max_detections]
    return Detections(fused[order], mean[order], labels[chosen][order])
