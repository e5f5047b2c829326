"""Pictures that show a piece of the same place: moved, turned, nearer or farther.

Key points of an image are found in others by their descriptors, and a pair counts where many of them lie as
one shift, turn and scale puts them. Mirrored copies are left to `auditing.duplicates`.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import cv2
import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from boxwright.geometry.compilation import kernel

LONGEST, POINTS = 768, 400  # px of an image that is looked at, and key points of it
FAINT = 7  # grey values by which a corner differs from what is around it: thermal pictures have few
BANDS, BAND = 16, 16  # of a descriptor's 256 bits, and bits of each
BLOCK = 2000  # images of an index: some 300 MB
CANDIDATES = 5  # images that an image is compared with, those that share most bands with it
NEAR = 3.0  # px within which a key point lies where it should
AGREED = 25  # key points that must
SCALES = (0.25, 4.0)

OVERLAP_SCHEMA: dict[str, pl.DataType] = {
    "first": pl.Int64(),  # place of an image of an earlier part
    "second": pl.Int64(),  # of a later part
    "share": pl.Float64(),  # of the second's area that the first shows
    "points": pl.Int64(),  # that agree
    "turned": pl.Float64(),  # degrees by which the first is turned into the second, clockwise
    "scale": pl.Float64(),  # pixels of the second a pixel of the first
}


@dataclass(frozen=True)
class Points:
    """Key points of an image: places (N, 2) in its pixels, descriptors (N, 32) uint8, and (width, height)."""

    places: np.ndarray
    descriptors: np.ndarray
    size: tuple[int, int]


NONE = Points(np.zeros((0, 2)), np.zeros((0, 32), np.uint8), (1, 1))


@dataclass(frozen=True)
class Fit:
    """How a place in one image lies in another.

    Attributes:
        share: of the second's area that the first shows.
        points: that agree.
        moved: (2, 3) what turns, scales and shifts a point of the first (x, y, 1) into the second.
    """

    share: float
    points: int
    moved: np.ndarray

    @property
    def scale(self) -> float:
        """Pixels of the second a pixel of the first."""
        return math.hypot(self.moved[0, 0], self.moved[1, 0])

    @property
    def turned(self) -> float:
        """Radians by which the first is turned into the second, clockwise."""
        return math.atan2(self.moved[1, 0], self.moved[0, 0])


def find_overlaps(points: Sequence[Points], parts: Sequence[int]) -> pl.DataFrame:
    """For each image the one of an earlier part that shows most of it, most first; `OVERLAP_SCHEMA`.

    Args:
        points: of each image.
        parts: the number of each one's part.
    """
    part = np.asarray(parts)
    best: dict[int, tuple[int, Fit]] = {}
    for later in np.unique(part)[1:]:
        for first, second, fit in _pairs(points, np.flatnonzero(part < later), np.flatnonzero(part == later)):
            found = first, fit
            best[second] = max(best.get(second, found), found, key=lambda pair: pair[1].share)
    rows = [
        (first, second, fit.share, fit.points, math.degrees(fit.turned), fit.scale)
        for second, (first, fit) in best.items()
    ]
    table = pl.DataFrame(rows, schema=OVERLAP_SCHEMA, orient="row")
    return table.sort("share", descending=True)


def find_places(points: Sequence[Points]) -> np.ndarray:
    """(I,) the number of the place that each image shows: images that overlap are of one, and so are theirs.

    Args:
        points: of each image; one without any is a place of its own.
    """
    ends = np.array([pair[:2] for pair in find_pairs(points)], dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(len(points), len(points)))
    return connected_components(graph, directed=False)[1]


def find_pairs(points: Sequence[Points], most: int = CANDIDATES) -> Iterator[tuple[int, int, Fit]]:
    """Images that overlap, each with `most` others of a block at most; some pairs come both ways."""
    every = np.arange(len(points))
    return _pairs(points, every, every, most)


def _pairs(
    points: Sequence[Points], first: np.ndarray, second: np.ndarray, most: int = CANDIDATES
) -> Iterator[tuple[int, int, Fit]]:
    """Of an image of each list; an index holds so many of the first at a time."""
    for start in range(0, len(first), BLOCK):
        block = first[start : start + BLOCK].tolist()
        index = _Index([points[n] for n in block])
        with ThreadPoolExecutor() as pool:
            for n, fits in zip(
                second.tolist(), pool.map(index.fits, [points[n] for n in second], repeat(most))
            ):
                yield from ((block[other], n, fit) for other, fit in fits)


def points_of(grey: np.ndarray) -> Points:
    """ORB's (Rublee et al., ICCV 2011) of an image (H, W) uint8."""
    height, width = grey.shape
    factor = min(1.0, LONGEST / max(grey.shape))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    found, descriptors = cv2.ORB.create(POINTS, fastThreshold=FAINT).detectAndCompute(small, None)
    if descriptors is None:
        return NONE
    places = np.array([point.pt for point in found]) * [width / size[0], height / size[1]]
    return Points(places, descriptors, (width, height))


class _Index:
    """Finds images with descriptors like those of another: those that share a band of their bits."""

    def __init__(self, images: list[Points]):
        self.images = images
        self.owner = np.repeat(np.arange(len(images), dtype=np.int32), [len(i.places) for i in images])
        keys = _keys(np.concatenate([image.descriptors for image in images]))
        self.order = np.argsort(keys, axis=1, kind="stable").astype(np.int32)
        bounds = np.arange((1 << BAND) + 1)
        self.starts = np.stack([np.searchsorted(own[order], bounds) for own, order in zip(keys, self.order)])

    def fits(self, image: Points, most: int) -> list[tuple[int, Fit]]:
        """Which others show a piece of this one's place, `most` at most."""
        votes = np.zeros(len(self.images), np.int64)
        _vote(_keys(image.descriptors), self.starts, self.order, self.owner, votes)
        likely = np.argsort(-votes, kind="stable")[: most + 1].tolist()
        others = [n for n in likely if votes[n] >= AGREED and self.images[n] is not image]
        fits = [(n, _fit(self.images[n], image)) for n in others[:most]]
        return [(n, fit) for n, fit in fits if fit is not None]


def _keys(descriptors: np.ndarray) -> np.ndarray:
    """(BANDS, N) uint16, the bits of each descriptor in bands; neighbouring bits are in different ones."""
    bits = np.unpackbits(descriptors, axis=1).reshape(len(descriptors), BAND, BANDS)
    packed = np.packbits(np.ascontiguousarray(bits.swapaxes(1, 2)), axis=2)
    return np.ascontiguousarray(packed.view(np.uint16)[..., 0].T)


@kernel
def _vote(keys, starts, order, owner, votes):  # pragma: no cover
    """Count for each image how often a descriptor of its shares a band with one of `keys`."""
    for band in range(keys.shape[0]):
        for point in range(keys.shape[1]):
            key = keys[band, point]
            for place in range(starts[band, key], starts[band, key + 1]):
                votes[owner[order[band, place]]] += 1


def _fit(first: Points, second: Points) -> Fit | None:
    """Of a pair that shows a piece of the same place."""
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first.descriptors, second.descriptors)
    if len(matches) < AGREED:
        return None
    source = first.places[[m.queryIdx for m in matches]].astype(np.float32)
    target = second.places[[m.trainIdx for m in matches]].astype(np.float32)
    near = NEAR * max(1.0, max(second.size) / LONGEST)
    moved, agree = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=near)
    if moved is None or int(agree.sum()) < AGREED:
        return None
    if not SCALES[0] <= math.hypot(moved[0, 0], moved[1, 0]) <= SCALES[1]:
        return None
    (w, h), (width, height) = first.size, second.size
    corners = np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]]) @ moved.T
    whole = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    area, _ = cv2.intersectConvexConvex(corners.astype(np.float32), whole)
    return Fit(area / (width * height), int(agree.sum()), moved)
