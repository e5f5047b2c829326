"""One affine warp an image, then colour. Boxes move by the same matrix; nothing is edited in place."""

import math

import cv2
import numpy as np

from boxwright.config.augment import AugmentConfig
from boxwright.data.tables import MIRRORED
from boxwright.geometry.placing import moved_boxes, visible_parts

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
    # Floats in place of arrays: a sample has few numbers, and NumPy takes a microsecond to look at any.
    scaled, widened, turned, quarter, mirrored, upended, *placed = rng.random(8).tolist()
    scale = math.exp(_between(math.log(augment.scale[0]), math.log(augment.scale[1]), scaled))
    aspect = math.exp(_between(-augment.aspect, augment.aspect, widened) / 2)
    angle = math.radians(_between(-augment.rotate, augment.rotate, turned))
    angle += math.pi / 2 if quarter < augment.quarter_turn else 0.0
    flip_x = -1 if mirrored < augment.flip_horizontal else 1
    flip_y = -1 if upended < augment.flip_vertical else 1
    wider, higher = scale * aspect, scale / aspect
    cos, sin = math.cos(angle), math.sin(angle)
    rows = [(flip_x * cos * wider, -flip_x * sin * higher), (flip_y * sin * wider, flip_y * cos * higher)]
    aim = None  # an object, and the place on the canvas where it is wanted
    if objects is not None and len(objects) and rng.random() < augment.focus:
        wanted = rng.uniform(0.1, 0.9, 2).tolist()
        aim = objects[rng.integers(len(objects))].tolist(), wanted
    matrix = np.empty((2, 3))
    for axis, (a, b) in enumerate(rows):
        # Content smaller than the canvas lies anywhere within it, larger content is cropped anywhere.
        room = canvas[axis] - abs(a) * size[0] - abs(b) * size[1]
        first = min(0, a * size[0]) + min(0, b * size[1])
        low, high = min(room, 0) - first, max(room, 0) - first
        start = _between(low, high, placed[axis])
        if aim is not None:
            (x, y), wanted = aim
            start = min(max(wanted[axis] * canvas[axis] - a * x - b * y, low), high)
        matrix[axis] = a, b, start
    return matrix


def warp(pixels: np.ndarray, matrix: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Warp (H, W, 3) by a matrix over continuous coordinates onto `canvas` (width, height)."""
    left, top, right, bottom = _source(matrix, canvas)
    part = pixels[top:bottom, left:right]
    if not part.size:
        return np.full((canvas[1], canvas[0], 3), PAD_VALUE, dtype=np.uint8)
    # OpenCV's coordinates name pixel centres: half a pixel off ours.
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (left + 0.5, top + 0.5) - 0.5
    # It moves four channels in a third of the time of three.
    four = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)
    moved = cv2.warpAffine(four, shifted, canvas, flags=cv2.INTER_LINEAR, borderValue=(PAD_VALUE,) * 4)
    return cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB)


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (..., 2) by a (2, 3) matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def transform_landmarks(landmarks: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Landmarks (N, LANDMARKS, 2) by a (2, 3) matrix: in a mirror the left eye is the right one."""
    moved = transform_points(landmarks, matrix)
    mirrors = matrix[0, 0] * matrix[1, 1] < matrix[0, 1] * matrix[1, 0]
    return moved[:, list(MIRRORED)] if mirrors else moved


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
    return moved_boxes(np.ascontiguousarray(boxes, dtype=np.float64), oriented, matrix)


def transform_oriented(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The same of boxes that all have an angle."""
    return transform_rotated(boxes, np.ones(len(boxes), dtype=bool), matrix)


def visible_part(boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Upright hulls, (N, 4) xyxy, of what of boxes (N, 5) lies in an image of `size`, and its share (N,).

    The hull of the part, not the part of the hull: an oriented box that leaves the image may be much smaller
    inside it.
    """
    return visible_parts(np.ascontiguousarray(boxes, dtype=np.float64), float(size[0]), float(size[1]))


def compose(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """The (2, 3) matrix that applies `first`, then `then`."""
    together = then[:, :2] @ first
    together[:, 2] += then[:, 2]
    return together


def invert(matrix: np.ndarray) -> np.ndarray:
    """The (2, 3) inverse of a (2, 3) matrix."""
    return np.linalg.inv(np.concatenate([matrix, [[0.0, 0.0, 1.0]]]))[:2]


def jitter_colors(pixels: np.ndarray, augment: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Random brightness, contrast around the middle grey, and gains of channels, in one pass over them."""
    brighter, *gains, harder = (_between(-1, 1, share) for share in rng.random(5).tolist())
    contrast = 1 + harder * augment.contrast
    gain = (1 + brighter * augment.brightness) * contrast
    change = np.zeros((3, 4))
    change[range(3), range(3)] = [gain * (1 + own * augment.color) for own in gains]
    change[:, 3] = 128 * (1 - contrast)
    return cv2.transform(pixels, change)


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _source(matrix: np.ndarray, canvas: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the pixels that a warp onto a canvas (width, height) looks at."""
    width, height = canvas
    sides = []
    for across, down, start in cv2.invertAffineTransform(matrix).tolist():
        low = start + min(0, across * width) + min(0, down * height)
        extent = abs(across) * width + abs(down) * height
        sides.append((max(0, math.floor(low) - 1), max(0, math.ceil(low + extent) + 1)))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom
