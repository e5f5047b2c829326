"""Pictures made worse as cameras, networks and things in the way do: the boxes stay where they are."""

import cv2
import numpy as np

from boxwright.config.augment import AugmentConfig

BLUR = (0.4, 2.0)  # deviation of the Gaussian, pixels
QUALITY = (25, 80)  # of the JPEG
HOLES = (1, 4)  # rectangles, the last not included
HOLE = (0.05, 0.2)  # sides of one, in shares of the picture's


def degrade(pixels: np.ndarray, augment: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Blur, compress and cut out, each with its probability.

    Rectangles are cut out as in DeVries and Taylor, Improved Regularization of Convolutional Neural Networks
    with Cutout, 2017.

    Args:
        pixels: (H, W, 3) uint8; not changed.
        augment: the probabilities. Nothing is drawn for those that are 0, so that a seed stays what it was.
        rng: of the draws.
    """
    if augment.blur and rng.random() < augment.blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(*BLUR))
    if augment.jpeg and rng.random() < augment.jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*QUALITY))]
        _, encoded = cv2.imencode(".jpg", pixels, quality)  # which takes red for blue, and gives it back so
        pixels = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    if augment.cutout and rng.random() < augment.cutout:
        pixels = _cut_out(pixels, rng)
    return pixels


def _cut_out(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rectangles of the picture's mean colour."""
    pixels, size = pixels.copy(), np.array(pixels.shape[:2])
    color = pixels.mean(axis=(0, 1)).astype(np.uint8)
    for _ in range(rng.integers(*HOLES)):
        side = np.maximum(1, size * rng.uniform(*HOLE, 2)).astype(int)
        y, x = (rng.random(2) * (size - side)).astype(int)
        pixels[y : y + side[0], x : x + side[1]] = color
    return pixels
