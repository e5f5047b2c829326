"""What an image is like, in a few numbers: for finding it again, and for what is wrong with it."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from boxwright.auditing.overlaps import NONE, Points, points_of
from boxwright.data.images import load_image
from boxwright.errors import DataError

SIDE, LOW = 32, 8  # px of the thumbnail, frequencies along an axis that the hash holds
SHARP_SIDE = 512  # px, longest side at which sharpness is measured
ORIENTATIONS = (
    "same",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180 degrees",
    "transposed",
    "turned by 90 degrees clockwise",
    "turned by 90 degrees counterclockwise",
    "transposed along the other diagonal",
)


@dataclass(frozen=True)
class Fingerprints:
    """Of I images.

    Attributes:
        digests: (I,) SHA-256 of the files, empty where one can't be read.
        problems: (I,) why an image can't be read as its labels say, empty for most.
        hashes: (I,) uint64, the signs of the lowest frequencies, row by row.
        thumbnails: (I, SIDE, SIDE) uint8, grey.
        brightness, contrast: (I,) mean and deviation of the grey values, 0 to 255.
        sharpness: (I,) deviation of the Laplacian.
        points: (I,) key points, of `auditing.overlaps`; none where they weren't wanted.
    """

    digests: np.ndarray
    problems: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    sharpness: np.ndarray
    points: list[Points]


def fingerprint(
    paths: Sequence[str | None],
    sizes: Sequence[tuple[int, int] | None],
    tell: Callable[[int], None] = lambda count: None,
    points: bool = False,
) -> Fingerprints:
    """Look at image files, on all cores.

    The hash follows Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section
    3.2.1, with 0 in place of the median: a mirror image then turns the signs of odd frequencies, and a turned
    one swaps the axes.

    Args:
        paths: None: unknown.
        sizes: width and height that the labels state, which the files must have; None: they state none.
        tell: called after each image.
        points: look for key points too.
    """

    def look(path: str | None, size: tuple[int, int] | None) -> tuple:
        found = _look(path, size, points)
        tell(1)
        return found

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(look, paths, sizes))
    columns = [list(column) for column in zip(*rows)] or [[] for _ in range(8)]
    digests, problems, hashes, thumbnails, brightness, contrast, sharpness, found = columns
    return Fingerprints(
        np.array(digests, dtype=object),
        np.array(problems, dtype=object),
        np.array(hashes, dtype=np.uint64),
        np.array(thumbnails, dtype=np.uint8).reshape(len(paths), SIDE, SIDE),
        np.array(brightness, dtype=float),
        np.array(contrast, dtype=float),
        np.array(sharpness, dtype=float),
        found,
    )


def _look(path: str | None, size: tuple[int, int] | None, points: bool) -> tuple:
    blank = np.zeros((SIDE, SIDE), np.uint8)
    if path is None:
        return "", "no file is known for it", 0, blank, np.nan, np.nan, np.nan, NONE
    try:
        grey = cv2.cvtColor(load_image(path, size), cv2.COLOR_RGB2GRAY)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (DataError, OSError) as error:
        return "", str(error), 0, blank, np.nan, np.nan, np.nan, NONE
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    factor = min(1.0, SHARP_SIDE / max(grey.shape))
    sharp = [max(1, round(side * factor)) for side in grey.shape[::-1]]
    sized = cv2.resize(grey, sharp, interpolation=cv2.INTER_AREA)
    sharpness = float(cv2.Laplacian(sized, cv2.CV_32F).std())
    found = points_of(grey) if points else NONE
    return digest, "", _hash(small), small, float(grey.mean()), float(grey.std()), sharpness, found


def _hash(thumbnail: np.ndarray) -> int:
    """64 bits, of which the first, the mean, is 0."""
    low = cv2.dct(thumbnail.astype(np.float32))[:LOW, :LOW].flatten()
    bits = low > 0
    bits[0] = False
    return int(sum(1 << n for n in np.flatnonzero(bits).tolist()))


def oriented_hashes(hashes: np.ndarray) -> np.ndarray:
    """(I, 8) the hashes of the images in each of `ORIENTATIONS`."""
    row, column = np.divmod(np.arange(LOW * LOW), LOW)
    bit = np.uint64(1) << np.arange(LOW * LOW, dtype=np.uint64)
    odd_x, odd_y = (np.bitwise_or.reduce(bit[axis % 2 == 1]) for axis in (column, row))
    swapped = np.zeros_like(hashes)
    for n in range(LOW * LOW):
        there = (hashes >> np.uint64(n)) & np.uint64(1)
        swapped |= there << np.uint64(column[n] * LOW + row[n])
    turns = (np.uint64(0), odd_x, odd_y, odd_x ^ odd_y)
    # The mean has no sign, and its bit stays 0.
    return np.stack([h ^ t for h in (hashes, swapped) for t in turns], axis=1)


def oriented(thumbnails: np.ndarray, orientation: int) -> np.ndarray:
    """Thumbnails (..., S, S) in one of `ORIENTATIONS`."""
    moved = np.swapaxes(thumbnails, -1, -2) if orientation >= 4 else thumbnails
    if orientation % 4 in (1, 3):
        moved = moved[..., ::-1]
    return moved[..., ::-1, :] if orientation % 4 in (2, 3) else moved
