"""Turned boxes out of a detector of upright ones: it looks at each image at several angles.

An upright box is tightest where the object lies along the axes: of the boxes that several angles give an
object, the smallest is the one to keep, and the angle of its image is the object's.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.data.transforms import PAD_VALUE
from boxwright.geometry.nms import nms
from boxwright.models.detections import Detections
from boxwright.models.detector import Detector, full_precision

ALIKE = 0.5  # of the shorter side, that centres of one object's boxes lie within
SURE = 0.5  # of an object's best score: boxes below it don't compete for the tightest
OVERLAP = 0.3  # IoU from which two objects of a class are one


def sweep_angles(count: int) -> list[float]:
    """`count` angles in a quarter turn, after which upright boxes are the same again; radians."""
    return [n * math.pi / 2 / count for n in range(count)]


@torch.no_grad()
def sweep_images(model: Detector, images: Tensor, sizes: Tensor, angles: Sequence[float]) -> list[Detections]:
    """Turned detections of images (B, 3, H, W) whose content is `sizes` (B, 2), width and height.

    Args:
        model: of upright boxes, in eval mode.
        images: 0..255.
        sizes: pixels.
        angles: that the images are turned by, radians.

    Returns:
        For each image boxes (N, 5) in its pixels, best first.
    """
    found: list[list[np.ndarray]] = [[] for _ in images]
    for n, angle in enumerate(angles):
        turned, side = turn_images(images, sizes, angle, model.stride)
        extent = torch.full_like(sizes, float(side))
        for image, detections in enumerate(model.decode(full_precision(model(turned)), extent)):
            rows = _home(detections, sizes[image].cpu().numpy(), side, angle)
            found[image].append(np.column_stack([rows, np.full(len(rows), float(n))]))
    limit = model.selection.max_detections
    return [fuse_sweep(np.concatenate(rows), len(angles), limit, images.device) for rows in found]


def turn_images(images: Tensor, sizes: Tensor, angle: float, stride: int = 32) -> tuple[Tensor, int]:
    """Images (B, 3, H, W) with their content turned clockwise on the screen, in the middle of a square.

    Returns:
        (B, 3, S, S), and S, which holds the content at any angle.
    """
    side = math.ceil(float(sizes.square().sum(1).sqrt().max()) / stride) * stride
    steps = torch.arange(side, device=images.device, dtype=torch.float32) + 0.5 - side / 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    cos, sin = math.cos(angle), math.sin(angle)
    middle = sizes[:, :, None, None] / 2
    source = torch.stack([cos * x + sin * y, cos * y - sin * x]) + middle  # (B, 2, S, S)
    height, width = images.shape[-2:]
    extent = torch.tensor([width, height], device=images.device, dtype=torch.float32)[:, None, None]
    grid = (source / extent * 2 - 1).permute(0, 2, 3, 1)
    inside = ((source >= 0) & (source <= sizes[:, :, None, None])).all(1, keepdim=True)
    sampled = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return torch.where(inside, sampled, float(PAD_VALUE)), side


def fuse_sweep(rows: np.ndarray, angles: int, limit: int, device: torch.device | str = "cpu") -> Detections:
    """One detection an object, from rows of cx, cy, w, h, angle, score, label and the sweep's angle.

    Its box is the tightest among the confident ones; its score is the mean over the angles of the best, 0
    where an angle has none.
    """
    boxes, scores, labels = [], [], []
    order = np.argsort(-rows[:, 5], kind="stable")
    free = np.ones(len(rows), dtype=bool)
    short = rows[:, 2:4].min(axis=1)
    for n in order:
        if not free[n]:
            continue
        gap = np.hypot(*(rows[:, :2] - rows[n, :2]).T)
        mine = np.flatnonzero(
            free & (rows[:, 6] == rows[n, 6]) & (gap <= ALIKE * np.minimum(short, short[n]))
        )
        free[mine] = False
        free[n] = False
        sure = mine[rows[mine, 5] >= SURE * rows[n, 5]] if len(mine) else np.array([n])
        tightest = sure[np.argmin(rows[sure, 2] * rows[sure, 3])]
        best = np.zeros(angles)
        np.maximum.at(best, rows[mine, 7].astype(int), rows[mine, 5])
        boxes.append(rows[tightest, :5])
        scores.append(best.mean())
        labels.append(rows[n, 6])
    found = np.array(boxes).reshape(-1, 5)
    score, label = np.array(scores), np.array(labels, dtype=np.int64)
    kept = nms(found, score, OVERLAP, label)[:limit]
    return Detections(
        torch.from_numpy(found[kept]).float().to(device),
        torch.from_numpy(score[kept]).float().to(device),
        torch.from_numpy(label[kept]).to(device),
    )


def _home(found: Detections, size: np.ndarray, side: int, angle: float) -> np.ndarray:
    """Rows of cx, cy, w, h, angle, score and label, in the image as it was, of upright boxes in a turned one;
    those whose centres lie beside it are left out.
    """
    boxes = found.boxes.double().cpu().numpy()
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2 - side / 2).T
    cos, sin = math.cos(angle), math.sin(angle)
    center = np.stack([cos * x + sin * y, cos * y - sin * x], axis=1) + size / 2
    sides = boxes[:, 2:] - boxes[:, :2]
    scores, labels = found.scores.double().cpu().numpy(), found.labels.cpu().numpy()
    rows = np.column_stack([center, sides, np.full(len(boxes), -angle), scores, labels])
    return rows[((center >= 0) & (center <= size)).all(axis=1)]
