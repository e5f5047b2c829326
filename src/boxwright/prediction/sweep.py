"""Oriented boxes from a detector of upright ones: it predicts each image at several angles.

An upright box is tightest where the object lies along the axes. The boxes that several angles give an
object are all hulls of one rectangle; the one that explains them best is the object's, at an angle that may
lie between those that were tried.
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
SURE = 0.5  # of an object's best score: boxes below it don't say how large it is
EPS = 1e-9
STEPS = 90  # headings tried in a quarter turn
FEW = 3  # angles that have seen an object; of fewer the tightest box is taken as it is
OVERLAP = 0.3  # IoU from which two objects of a class are one


def sweep_angles(count: int) -> list[float]:
    """`count` angles in a quarter turn, after which upright boxes are the same again; radians."""
    return [n * math.pi / 2 / count for n in range(count)]


@torch.no_grad()
def sweep_images(model: Detector, images: Tensor, sizes: Tensor, angles: Sequence[float]) -> list[Detections]:
    """Oriented detections of images (B, 3, H, W) whose content is `sizes` (B, 2), width and height.

    Args:
        model: of upright boxes, in eval mode.
        images: 0..255.
        sizes: pixels.
        angles: that the images are rotated by, radians.

    Returns:
        For each image boxes (N, 5) in its pixels, best first.
    """
    found: list[list[np.ndarray]] = [[] for _ in images]
    for n, angle in enumerate(angles):
        rotated, side = rotate_images(images, sizes, angle, model.stride)
        extent = torch.full_like(sizes, float(side))
        for image, detections in enumerate(model.decode(full_precision(model(rotated)), extent)):
            rows = _home(detections, sizes[image].cpu().numpy(), side, angle)
            found[image].append(np.column_stack([rows, np.full(len(rows), float(n))]))
    limit = model.selection.max_detections
    return [fuse_sweep(np.concatenate(rows), angles, limit) for rows in found]


def rotate_images(images: Tensor, sizes: Tensor, angle: float, stride: int = 32) -> tuple[Tensor, int]:
    """Images (B, 3, H, W) with their content rotated clockwise on the screen, in the middle of a square.

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


def fuse_sweep(rows: np.ndarray, angles: Sequence[float], limit: int) -> Detections:
    """One detection an object, from rows of cx, cy, w, h, angle, score, label and the sweep's angle's number.

    Its box is the one whose hulls at all angles are nearest to what was found there; its score is the mean
    over the angles of the best, 0 where an angle has none.
    """
    group, leaders = _objects(rows)
    best = np.zeros((len(leaders), len(angles)))  # score of each object's best box at each angle
    order = np.argsort(rows[:, 5], kind="stable")
    places = group[order], rows[order, 7].astype(int)
    best[places] = rows[order, 5]  # the last, best one stays
    chosen = np.zeros(best.shape, dtype=int)
    chosen[places] = order
    weight = np.where(best >= SURE * best.max(axis=1, initial=0, keepdims=True), best, 0)
    seen = rows[chosen]  # (N, K, 8)
    center = (seen[..., :2] * weight[..., None]).sum(1) / weight.sum(1, keepdims=True)
    found = np.column_stack([center, fit_hulls(seen[..., 2:4], weight, np.array(angles))])
    score, label = best.mean(axis=1), rows[leaders, 6].astype(np.int64)
    kept = nms(found, score, OVERLAP, label)[:limit]
    boxes, scores = (torch.from_numpy(values[kept]).float() for values in (found, score))
    return Detections(boxes, scores, torch.from_numpy(label[kept]))


def _objects(rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """(R,) the object of each row, and the row of each object's best box."""
    group = np.full(len(rows), -1)
    leaders: list[int] = []
    short = rows[:, 2:4].min(axis=1, initial=np.inf)
    for n in np.argsort(-rows[:, 5], kind="stable"):
        if group[n] >= 0:
            continue
        gap = np.hypot(*(rows[:, :2] - rows[n, :2]).T)
        near = (gap <= ALIKE * np.minimum(short, short[n])) & (rows[:, 6] == rows[n, 6])
        near[n] = True
        group[near & (group < 0)] = len(leaders)
        leaders.append(int(n))
    return group, leaders


def fit_hulls(sides: np.ndarray, weight: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The rectangles whose upright hulls, rotated by each of some angles, have given sides: least squares
    over width and height at each of `STEPS` headings, and the heading that leaves least. Many would explain
    what fewer than `FEW` angles have seen: there the tightest hull is the rectangle.

    Args:
        sides: (N, K, 2) width and height of the hulls.
        weight: (N, K), 0 where an angle hasn't seen the object.
        angles: (K,) that the image was rotated by, radians.

    Returns:
        (N, 3) width, height and angle, the width the longer.
    """
    headings = np.arange(STEPS) * (math.pi / 2 / STEPS)
    cos, sin = (np.abs(f(headings[:, None] + angles)) for f in (np.cos, np.sin))  # (S, K)
    wide, high = weight * sides[..., 0], weight * sides[..., 1]  # (N, K)
    # Normal equations of |cos| w + |sin| h = wide and |sin| w + |cos| h = high, (N, S).
    own = weight.sum(axis=1, keepdims=True)
    cross = weight @ (2 * cos * sin).T
    first, second = wide @ cos.T + high @ sin.T, wide @ sin.T + high @ cos.T
    scale = np.maximum(own**2 - cross**2, EPS * own**2)
    w, h = (own * first - cross * second) / scale, (own * second - cross * first) / scale
    gained = np.where((w > 0) & (h > 0), w * first + h * second, 0)
    row, place = np.arange(len(sides)), gained.argmax(axis=1)
    w, h, angle = w[row, place], h[row, place], headings[place]
    few = (weight > 0).sum(axis=1) < FEW
    tightest = np.where(weight > 0, sides.prod(axis=2), np.inf).argmin(axis=1)
    w, h = (np.where(few, sides[row, tightest, n], side) for n, side in enumerate((w, h)))
    angle = np.where(few, -angles[tightest], angle)
    tall = h > w
    return np.column_stack([np.where(tall, h, w), np.where(tall, w, h), angle + tall * (math.pi / 2)])


def _home(found: Detections, size: np.ndarray, side: int, angle: float) -> np.ndarray:
    """Rows of cx, cy, w, h, angle, score and label, in the image as it was, of upright boxes in a rotated
    one; those whose centres lie beside it are left out.
    """
    boxes = found.boxes.double().cpu().numpy()
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2 - side / 2).T
    cos, sin = math.cos(angle), math.sin(angle)
    center = np.stack([cos * x + sin * y, cos * y - sin * x], axis=1) + size / 2
    sides = boxes[:, 2:] - boxes[:, :2]
    scores, labels = found.scores.double().cpu().numpy(), found.labels.cpu().numpy()
    rows = np.column_stack([center, sides, np.full(len(boxes), -angle), scores, labels])
    return rows[((center >= 0) & (center <= size)).all(axis=1)]
