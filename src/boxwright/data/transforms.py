"""One affine warp an image, then colour. Boxes move by the same matrix; nothing is edited in place."""

import math

import cv2
import numpy as np

from boxwright.config.experiment import AugmentConfig
from boxwright.data.tables import MIRRORED
from boxwright.geometry.conventions import corners, from_corners
from boxwright.geometry.iou import aligned_iou
from boxwright.geometry.kernels import hulls_inside

PAD_VALUE = 114  # grey beside the content, near the mean of natural images

# Frames are small and workers are processes: threads of OpenCV's own only get in their way.
cv2.setNumThreads(0)


def fit_matrix(size: tuple[int, int], into: tuple[int, int]) -> np.ndarray:
    """The (2, 3) matrix that fits an image of `size` (width, height) into `into`, at its top left.

    The sides keep their ratio but for the rounding of the fitted size to whole pixels.
    """
    width, height = fitted_size(size, into)
    return np.array([[width / size[0], 0.0, 0.0], [0.0, height / size[1], 0.0]])


def fitted_size(size: tuple[int, int], into: tuple[int, int]) -> tuple[int, int]:
    """Width and height of an image of `size` once it is fitted into `into`."""
    factor = min(into[0] / size[0], into[1] / size[1])
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) to `size` (width, height): areas are averaged when shrinking."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    shrinks = size[0] < pixels.shape[1] or size[1] < pixels.shape[0]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def random_matrix(
    size: tuple[int, int],
    canvas: tuple[int, int],
    augment: AugmentConfig,
    rng: np.random.Generator,
    objects: np.ndarray | None = None,
) -> np.ndarray:
    """A (2, 3) matrix of random flip, turn, scale, aspect and place.

    Args:
        size: (width, height) of the content.
        canvas: (width, height) it goes to.
        augment: ranges.
        rng: source of randomness.
        objects: (N, 2) centres, pixels of the content, that a crop may lie around.
    """
    scale = math.exp(rng.uniform(*np.log(augment.scale)))
    aspect = math.exp(rng.uniform(-augment.aspect, augment.aspect) / 2)
    angle = math.radians(rng.uniform(-augment.rotate, augment.rotate))
    angle += math.pi / 2 if rng.random() < augment.quarter_turn else 0.0
    flip_x = -1 if rng.random() < augment.flip_horizontal else 1
    flip_y = -1 if rng.random() < augment.flip_vertical else 1
    cos, sin = math.cos(angle), math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([scale * aspect, scale / aspect])
    linear = np.diag([flip_x, flip_y]) @ linear
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size]) @ linear.T
    least, extent = corners.min(axis=0), np.ptp(corners, axis=0)
    # Content smaller than the canvas lies anywhere within it, larger content is cropped anywhere.
    room = np.array(canvas) - extent
    lowest, highest = np.minimum(room, 0), np.maximum(room, 0)
    place = rng.uniform(lowest, highest)
    if objects is not None and len(objects) and rng.random() < augment.focus:
        wanted = rng.uniform(0.1, 0.9, 2) * canvas  # of an object
        place = np.clip(wanted - linear @ objects[rng.integers(len(objects))] + least, lowest, highest)
    return np.concatenate([linear, (place - least)[:, None]], axis=1)


def warp(pixels: np.ndarray, matrix: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Warp (H, W, 3) by a matrix over continuous coordinates onto `canvas` (width, height)."""
    # OpenCV's coordinates name pixel centres: half a pixel off ours.
    half = np.array([0.5, 0.5])
    shifted = matrix.copy()
    shifted[:, 2] = matrix[:, :2] @ half + matrix[:, 2] - half
    border = (PAD_VALUE,) * 3
    return cv2.warpAffine(pixels, shifted, canvas, flags=cv2.INTER_LINEAR, borderValue=border)


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (..., 2) by a (2, 3) matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def transform_landmarks(landmarks: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Landmarks (N, LANDMARKS, 2) by a (2, 3) matrix: in a mirror the left eye is the right one."""
    moved = transform_points(landmarks, matrix)
    return moved[:, list(MIRRORED)] if np.linalg.det(matrix[:, :2]) < 0 else moved


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Upright hulls of transformed xyxy boxes (N, 4); exact where the matrix keeps axes on axes."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    moved = transform_points(corners, matrix)
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)


def transform_rotated(boxes: np.ndarray, oriented: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes (N, 5) cx, cy, w, h, angle by a (2, 3) matrix.

    Exact for `oriented` (N,) ones under turns, flips and scales; a shear makes parallelograms, which become
    rectangles by their mean sides. Of the others only the hull is known: they get the hull of its image.
    """
    moved = transform_points(corners(boxes), matrix)
    low, high = moved.min(axis=1), moved.max(axis=1)
    hulls = np.column_stack([(low + high) / 2, high - low, np.zeros(len(boxes))])
    return np.where(oriented[:, None], from_corners(moved), hulls)


def transform_oriented(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The same of boxes that all have an angle."""
    return transform_rotated(boxes, np.ones(len(boxes), dtype=bool), matrix)


def visible_part(boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Upright hulls, (N, 4) xyxy, of what of boxes (N, 5) lies in an image of `size`, and its share (N,).

    The hull of the part, not the part of the hull: an oriented box that leaves the image may be much smaller
    inside it.
    """
    limit = np.array(size, dtype=np.float64)
    points = corners(boxes)
    hulls = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    shares = np.ones(len(boxes))
    cut = ((hulls[:, :2] < 0) | (hulls[:, 2:] > limit)).any(axis=1)
    if cut.any():
        image = np.array([[*(limit / 2), *limit, 0.0]]).repeat(cut.sum(), axis=0)
        shares[cut] = aligned_iou(boxes[cut], image, "coverage")
        hulls[cut] = hulls_inside(points[cut], limit[0], limit[1])
    return hulls, shares


def compose(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """The (2, 3) matrix that applies `first`, then `then`."""
    return _square(then)[:2] @ _square(first)


def invert(matrix: np.ndarray) -> np.ndarray:
    """The (2, 3) inverse of a (2, 3) matrix."""
    return np.linalg.inv(_square(matrix))[:2]


def jitter_colors(pixels: np.ndarray, augment: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Random brightness, contrast and channel gains as one table of 256 values a channel."""
    gain = 1 + rng.uniform(-1, 1) * augment.brightness
    gains = gain * (1 + rng.uniform(-1, 1, 3) * augment.color)
    contrast = 1 + rng.uniform(-1, 1) * augment.contrast
    values = np.arange(256, dtype=np.float32)[:, None] * gains
    table = (values - 128) * contrast + 128
    return cv2.LUT(pixels, np.clip(np.rint(table), 0, 255).astype(np.uint8)[None])


def _square(matrix: np.ndarray) -> np.ndarray:
    return np.concatenate([matrix, [[0.0, 0.0, 1.0]]])
