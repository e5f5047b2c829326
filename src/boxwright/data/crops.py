"""Square pictures of single boxes, rotated so that their headings point right."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from boxwright.data.images import load_image
from boxwright.data.tables import Tables
from boxwright.data.transforms import PAD_VALUE, resize
from boxwright.errors import DataError

SIDE = 96  # px
MARGIN = 1.25  # side of a crop in the longer side of its box


def cut_crops(
    tables: Tables, rows: np.ndarray, tell: Callable[[int], None] = lambda count: None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut boxes out of their images, on all cores; each image is opened once.

    Args:
        tables: with images whose files are known.
        rows: (N,) of boxes.
        tell: called after each image with how many boxes were looked at.

    Returns:
        (M,) the rows whose image can be read, in their order, and (M, SIDE, SIDE, 3) uint8.
    """
    image_id = tables.boxes["image_id"].to_numpy()[rows]
    boxes = tables.rotated()[rows]
    crops = np.zeros((len(rows), SIDE, SIDE, 3), np.uint8)
    known = np.zeros(len(rows), dtype=bool)

    def cut(image: int) -> None:
        mine = np.flatnonzero(image_id == image)
        pixels = pixels_of(tables, image)
        if pixels is not None:
            for n in mine.tolist():
                crops[n] = cut_out(pixels, boxes[n])
            known[mine] = True
        tell(len(mine))

    with ThreadPoolExecutor() as pool:
        list(pool.map(cut, np.unique(image_id).tolist()))
    return rows[known], crops[known]


def pixels_of(tables: Tables, image: int) -> np.ndarray | None:
    """(H, W, 3) uint8, None of an image that can't be read: `boxwright data check` tells why."""
    row = tables.images.row(image, named=True)
    size = None if row["width"] is None else (row["width"], row["height"])
    try:
        return load_image(row["path"], size) if row["path"] else None
    except DataError:
        return None


def cut_out(pixels: np.ndarray, box: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """The surroundings of a box cx, cy, w, h, angle; what lies beyond the image is grey.

    Args:
        pixels: (H, W, 3) uint8.
        box: (5,).
        margin: side of the crop in the longer side of the box.

    Returns:
        (SIDE, SIDE, 3) uint8.
    """
    cx, cy, w, h, angle = box
    side = margin * max(w, h, 1.0)
    reach = side * math.sqrt(0.5) + 2
    left, top = max(0, int(cx - reach)), max(0, int(cy - reach))
    window = pixels[top : max(top, math.ceil(cy + reach)), left : max(left, math.ceil(cx + reach))]
    if not window.size:
        return np.full((SIDE, SIDE, 3), PAD_VALUE, np.uint8)
    height, width = window.shape[:2]
    factor = min(1.0, SIDE / side)
    small = max(1, round(width * factor)), max(1, round(height * factor))
    window = resize(window, small)
    # A pixel of the crop, continuous, to one of the window.
    across, down = small[0] / width, small[1] / height
    step = side / SIDE
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * step
    turn = np.diag([across, down]) @ turn
    middle = np.array([(cx - left) * across, (cy - top) * down])
    # OpenCV puts whole numbers on the middles of pixels.
    shift = middle - 0.5 - turn @ np.full(2, (SIDE - 1) / 2)
    matrix = np.column_stack([turn, shift])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(window, matrix, (SIDE, SIDE), flags=flags, borderValue=(PAD_VALUE,) * 3)
