"""One image ready for a batch, and several put together into one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from boxwright.config.augment import AugmentConfig
from boxwright.data.transforms import jitter_colors

MARGIN = 0.1  # around a pasted object, in shares of its shorter side: there it is blended
HIDDEN = 0.2  # most of another box that it may hide
PLACES = 10  # tried for it
SIZES = (32, 96)  # from which an object is medium and large, as COCO has them


@dataclass(frozen=True)
class Sample:
    """One image ready for a batch; arrays as in `Batch`, unpadded."""

    pixels: np.ndarray  # (H, W, 3) uint8
    boxes: np.ndarray  # (N, 4) float64 xyxy
    rotated: np.ndarray  # (N, 5) float64 cx, cy, w, h, angle
    oriented: np.ndarray  # (N,) bool
    labels: np.ndarray  # (N,)
    ignore: np.ndarray  # (N,) bool
    landmarks: np.ndarray  # (N, LANDMARKS, 2) float64, NaN where there are none
    index: int  # of the image; of a mixed one, of its first
    matrix: np.ndarray  # (2, 3), original to input pixels


def mosaic(parts: Sequence[Sample], corners: Sequence[tuple[int, int]], canvas: tuple[int, int]) -> Sample:
    """Samples side by side: each lies with its upper left at its corner (x, y) of a canvas (width, height).

    Bochkovskiy et al., YOLOv4, 2020, section 3.3.
    """
    pixels = np.empty((canvas[1], canvas[0], 3), dtype=np.uint8)
    moved = []
    for part, (x, y) in zip(parts, corners, strict=True):
        height, width = part.pixels.shape[:2]
        pixels[y : y + height, x : x + width] = part.pixels
        matrix = part.matrix + np.array([[0.0, 0.0, x], [0.0, 0.0, y]])
        shift = np.array([x, y, 0.0, 0.0, 0.0])
        moved.append(
            replace(
                part,
                boxes=part.boxes + np.array([x, y, x, y]),
                rotated=part.rotated + shift,
                landmarks=part.landmarks + shift[:2],
                matrix=matrix,
            )
        )
    return _joined(moved, pixels)


def mixup(first: Sample, second: Sample, share: float) -> Sample:
    """Two samples of one size in one picture, the first with `share` of the light; the objects of both.

    Zhang et al., Bag of Freebies for Training Object Detection Neural Networks, 2019, section 3.1.
    """
    return _joined([first, second], cv2.addWeighted(first.pixels, share, second.pixels, 1 - share, 0))


def paste(sample: Sample, other: Sample, rng: np.random.Generator) -> Sample:
    """A sample with an object of another one, at a place where it hides little, its border blended.

    Dwibedi et al., Cut, Paste and Learn, ICCV 2017, section 5.3; of boxes in place of masks. Where the other
    has no whole object, or there is no place, the sample stays as it is.
    """
    height, width = sample.pixels.shape[:2]
    margin = np.maximum(2, MARGIN * (other.boxes[:, 2:] - other.boxes[:, :2]).min(axis=1, initial=np.inf))
    start = np.floor(other.boxes[:, :2] - margin[:, None]).astype(int)
    end = np.ceil(other.boxes[:, 2:] + margin[:, None]).astype(int)
    limit = np.minimum(other.pixels.shape[1::-1], (width, height))
    whole = (start >= 0).all(1) & (end <= other.pixels.shape[1::-1]).all(1) & (end - start < limit).all(1)
    choices = np.flatnonzero(whole & ~other.ignore)
    if not len(choices):
        return sample
    n = int(rng.choice(choices))
    (x, y), (right, bottom) = start[n], end[n]
    corner = _free_place(sample, (right - x, bottom - y), rng)
    if corner is None:
        return sample
    shift = np.array(corner) - (x, y)
    alpha = _soft_mask(other.rotated[n], (x, y, right, bottom), float(margin[n]))[..., None]
    part = (slice(corner[1], corner[1] + bottom - y), slice(corner[0], corner[0] + right - x))
    pixels = sample.pixels.copy()
    mixed = alpha * other.pixels[y:bottom, x:right] + (1 - alpha) * pixels[part]
    pixels[part] = np.rint(mixed).astype(np.uint8)
    pasted = replace(
        other,
        boxes=other.boxes[n : n + 1] + np.tile(shift, 2),
        rotated=other.rotated[n : n + 1] + np.array([*shift, 0, 0, 0]),
        oriented=other.oriented[n : n + 1],
        labels=other.labels[n : n + 1],
        ignore=other.ignore[n : n + 1],
        landmarks=other.landmarks[n : n + 1] + shift,
    )
    return _joined([sample, pasted], pixels)


def recolor_objects(sample: Sample, augment: AugmentConfig, rng: np.random.Generator) -> Sample:
    """A sample in which some objects have other colours than what is around them, their borders blended.

    Chen et al., Scale-aware Automatic Augmentation for Object Detection, CVPR 2021, section 3.2: objects of
    other sizes want other changes.
    """
    if not any(augment.object_colors):
        return sample  # and nothing is drawn, so that a seed stays what it was
    size = np.sqrt(sample.rotated[:, 2] * sample.rotated[:, 3])
    chance = np.array(augment.object_colors)[np.digitize(size, SIZES)]
    chosen = np.flatnonzero((rng.random(len(size)) < chance) & ~sample.ignore)
    pixels = sample.pixels.copy()
    for n in chosen:
        margin = max(2.0, MARGIN * float((sample.boxes[n, 2:] - sample.boxes[n, :2]).min()))
        x, y = np.maximum(np.floor(sample.boxes[n, :2] - margin), 0).astype(int)
        right, bottom = np.minimum(np.ceil(sample.boxes[n, 2:] + margin), pixels.shape[1::-1]).astype(int)
        part = pixels[y:bottom, x:right]
        alpha = _soft_mask(sample.rotated[n], (x, y, right, bottom), margin)[..., None]
        part[:] = np.rint(alpha * jitter_colors(part, augment, rng) + (1 - alpha) * part).astype(np.uint8)
    return replace(sample, pixels=pixels)


def _free_place(sample: Sample, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int] | None:
    """Upper left x, y of a rectangle (width, height) that hides little of any box; None: none was found."""
    height, width = sample.pixels.shape[:2]
    for _ in range(PLACES):
        corner = np.array([rng.integers(width - size[0] + 1), rng.integers(height - size[1] + 1)])
        shared = np.minimum(sample.boxes[:, 2:], corner + size) - np.maximum(sample.boxes[:, :2], corner)
        area = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(1)
        if (shared.clip(min=0).prod(1) <= HIDDEN * area).all():
            return int(corner[0]), int(corner[1])
    return None


def _soft_mask(box: np.ndarray, window: tuple[int, int, int, int], margin: float) -> np.ndarray:
    """(H, W) float32 of a window x1, y1, x2, y2: 1 in a box cx, cy, w, h, angle, falling to 0 around it."""
    x, y, right, bottom = window
    corners = cv2.boxPoints(((box[0] - x, box[1] - y), (box[2], box[3]), float(np.degrees(box[4]))))
    mask = np.zeros((bottom - y, right - x), dtype=np.float32)
    cv2.fillConvexPoly(mask, np.rint(corners * 16).astype(np.int32), 1.0, shift=4)
    return cv2.GaussianBlur(mask, (0, 0), max(0.5, margin / 3))


def _joined(parts: Sequence[Sample], pixels: np.ndarray) -> Sample:
    names = ("boxes", "rotated", "oriented", "labels", "ignore", "landmarks")
    together = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Sample(pixels, **together, index=parts[0].index, matrix=parts[0].matrix)
