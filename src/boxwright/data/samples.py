"""One image ready for a batch, and several put together into one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np


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


def _joined(parts: Sequence[Sample], pixels: np.ndarray) -> Sample:
    names = ("boxes", "rotated", "oriented", "labels", "ignore", "landmarks")
    together = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Sample(pixels, **together, index=parts[0].index, matrix=parts[0].matrix)
