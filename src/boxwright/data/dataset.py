"""Images and boxes as a detector trains on them.

A sample depends on the seed, the epoch and the image alone, never on which worker made it or what came
before: that is what makes a resumed run the same run.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch.utils.data import Dataset

from boxwright.config.augment import AugmentConfig
from boxwright.data.degrading import degrade
from boxwright.data.images import image_size, load_image
from boxwright.data.samples import Sample, mixup, mosaic, paste, recolor_objects
from boxwright.data.tables import LANDMARKS, Tables
from boxwright.data.targets import Batch, Targets
from boxwright.data.transforms import (
    PAD_VALUE,
    compose,
    fit_matrix,
    fitted_size,
    jitter_colors,
    random_matrix,
    resize,
    transform_landmarks,
    transform_points,
    transform_rotated,
    visible_part,
    warp,
)
from boxwright.errors import DataError

MOSAIC_CUT = 0.4  # that a cut between tiles lies off its place, at most, in tiles
MOSAIC_ZOOM = (1.0, 2.0)  # of each tile, beside its own scale, in tiles
MIXED_LIGHT = (0.45, 0.55)  # of the first of two images that are mixed, as DEIM has it


@dataclass(frozen=True)
class Corrected:
    """Places that crops are to lie around.

    Attributes:
        image: (M,) of each place.
        center: (M, 2) pixels of the image.
        gain: of an image that has such places, how many crops lie around one for each that lies around any
            object.
    """

    image: np.ndarray
    center: np.ndarray
    gain: float


class DetectionDataset(Dataset):
    """Samples of a box table.

    Args:
        tables: images, boxes and categories; never changed.
        image_size: (width, height) that images are fitted into.
        augment: random changes; None: none, the image lies fitted at the top left.
        seed: of all randomness.
        mixed_epochs: after which images are no longer put together; None: they always are.
        cache_bytes: memory for decoded pixels at training size; images beyond it are decoded each time.
        tight: changed images are as large as the image fitted, in place of `image_size`.
        corrected: what crops around objects lie around more often; None: all objects alike.

    Raises:
        DataError: an image has no path.
    """

    def __init__(
        self,
        tables: Tables,
        image_size: tuple[int, int],
        augment: AugmentConfig | None = None,
        seed: int = 0,
        cache_bytes: int = 0,
        mixed_epochs: int | None = None,
        tight: bool = False,
        corrected: Corrected | None = None,
    ):
        missing = tables.images.filter(tables.images["path"].is_null())
        if len(missing):
            raise DataError(f"{len(missing):,} images have no path, first {missing['file_name'][0]!r}.")
        self.tables = tables
        self.image_size = image_size
        self.augment = None if augment is None else augment.applied()
        self.seed = seed
        self.cache_bytes = cache_bytes
        self.mixed_epochs, self.tight = mixed_epochs, tight
        self._corrected: dict[int, np.ndarray] = {}  # centres by image
        if corrected is not None:
            own = np.unique(corrected.image)
            self._corrected = {int(n): corrected.center[corrected.image == n] for n in own}
            self._share = corrected.gain / (1 + corrected.gain)
        self._paths = tables.images["path"].to_list()
        self._sizes = [
            (w, h) if w is not None else None for w, h in tables.images.select("width", "height").iter_rows()
        ]
        has_area = ((tables.boxes["w"] > 0) & (tables.boxes["h"] > 0)).to_numpy()
        self._rows = tables.rows_by_image(has_area)
        self._rotated = tables.rotated()
        self._oriented = tables.boxes["angle"].is_not_null().to_numpy()
        self._landmarks = tables.landmarks()
        self._labels = tables.boxes["category_id"].to_numpy().astype(np.int64)
        self._ignore = (tables.boxes["crowd"] | tables.boxes["ignore"]).to_numpy()
        self._cache: dict[int, tuple[np.ndarray, tuple[int, int]]] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def fill_cache(self, tell: Callable[[int], None] = lambda count: None, threads: int = 4) -> int:
        """Decode images into the cache until its memory is used up; gives how many it holds.

        Args:
            tell: called with the number of images of each portion done.
            threads: that decode.

        Raises:
            DataError: images can't be read; all of them are counted, the first are named.
        """
        used, broken = 0, []
        with ThreadPoolExecutor(threads) as pool:
            # In portions, so that no more than a portion is decoded beyond the budget.
            for start in range(0, len(self), 4 * threads):
                portion = range(start, min(start + 4 * threads, len(self)))
                for index, decoded in zip(portion, pool.map(self._try_decode, portion)):
                    if isinstance(decoded, DataError):
                        broken.append(str(decoded))
                        continue
                    used += decoded[0].nbytes
                    if used <= self.cache_bytes:
                        self._cache[index] = decoded
                if used > self.cache_bytes:
                    break
                tell(len(portion))
        if broken:
            shown = "\n".join(broken[:10])
            raise DataError(f"{len(broken):,} images can't be used:\n{shown}")
        return len(self._cache)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """The sample of an image, or of an (epoch, image)."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        augment = self.augment
        if augment is None:
            pixels, original = self._cache.get(index) or self._decode(index)
            return self._sample(index, pixels, fit_matrix(original, self.image_size))
        rng = np.random.default_rng([self.seed, epoch, index])
        mixes = self.mixed_epochs is None or epoch < self.mixed_epochs
        canvas = augment.crop or (self._fitted(index) if self.tight else self.image_size)
        sample = self._drawn(index, canvas, augment, rng, mixes)
        if mixes and augment.mixup and rng.random() < augment.mixup:
            other = self._drawn(int(rng.integers(len(self))), canvas, augment, rng, mixes)
            sample = mixup(sample, other, rng.uniform(*MIXED_LIGHT))
        if mixes and augment.paste and rng.random() < augment.paste:
            other = self._drawn(int(rng.integers(len(self))), canvas, augment, rng, mixes)
            sample = paste(sample, other, rng)
        sample = recolor_objects(sample, augment, rng)
        return replace(sample, pixels=degrade(sample.pixels, augment, rng))

    def _drawn(
        self,
        index: int,
        canvas: tuple[int, int],
        augment: AugmentConfig,
        rng: np.random.Generator,
        mixes: bool,
    ) -> Sample:
        """An image with its random changes on a canvas (width, height), alone or as the first of a mosaic."""
        if not (mixes and augment.mosaic and rng.random() < augment.mosaic):
            return self._augmented(index, canvas, augment, rng)
        xs, ys = (
            [0, *(int((k + rng.uniform(-MOSAIC_CUT, MOSAIC_CUT)) / n * side) for k in range(1, n)), side]
            for n, side in zip(augment.mosaic_tiles, canvas)
        )
        tiles = [(x, y) for y in pairwise(ys) for x in pairwise(xs)]
        indices = [index, *rng.integers(len(self), size=len(tiles) - 1).tolist()]
        parts = []
        for own, ((left, right), (top, bottom)) in zip(indices, tiles):
            zoom = rng.uniform(*MOSAIC_ZOOM) / np.mean(augment.mosaic_tiles)
            zoomed = augment.model_copy(update={"scale": tuple(zoom * s for s in augment.scale)})
            parts.append(self._augmented(own, (right - left, bottom - top), zoomed, rng))
        return mosaic(parts, [(x[0], y[0]) for x, y in tiles], canvas)

    def _augmented(
        self, index: int, canvas: tuple[int, int], augment: AugmentConfig, rng: np.random.Generator
    ) -> Sample:
        """An image with its random changes on a canvas (width, height)."""
        pixels, original = self._cache.get(index) or self._decode(index)
        matrix = fit_matrix(original, self.image_size)
        rows = self._rows[index]
        objects = transform_points(self._wanted(index, rows, rng), matrix)
        change = random_matrix((pixels.shape[1], pixels.shape[0]), canvas, augment, rng, objects)
        changed = jitter_colors(warp(pixels, change, canvas), augment, rng)
        return self._sample(index, changed, compose(matrix, change))

    def _wanted(self, index: int, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N, 2) centres of what a crop may lie around, pixels of the image."""
        if index in self._corrected and rng.random() < self._share:
            return self._corrected[index]
        return self._rotated[rows, :2][~self._ignore[rows]]

    def truth(self, index: int) -> Sample:
        """The sample of an image without its random changes and without decoding it: the pixels are empty."""
        width, height = self._fitted(index)
        # No memory is written: every pixel is the same one.
        pixels = np.broadcast_to(np.uint8(PAD_VALUE), (height, width, 3))
        return self._sample(index, pixels, fit_matrix(self.size(index), self.image_size))

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of an image as it lies on the disk."""
        return self._sizes[index] or image_size(self._paths[index])[:2]

    def _fitted(self, index: int) -> tuple[int, int]:
        return fitted_size(self.size(index), self.image_size)

    def _sample(self, index: int, pixels: np.ndarray, matrix: np.ndarray) -> Sample:
        rows = self._rows[index]
        labels, ignore, oriented = self._labels[rows], self._ignore[rows], self._oriented[rows]
        rotated = transform_rotated(self._rotated[rows], oriented, matrix)
        landmarks = transform_landmarks(self._landmarks[rows], matrix)
        boxes, inside = visible_part(rotated, (pixels.shape[1], pixels.shape[0]))
        # Of an upright box, what is outside is unknown and doesn't matter.
        upright = ~oriented
        if upright.any():
            cut = boxes[upright]
            rotated[upright, :2] = (cut[:, :2] + cut[:, 2:]) / 2
            rotated[upright, 2:4] = cut[:, 2:] - cut[:, :2]
        kept = inside > 0
        if self.augment is not None:
            lost = inside < self.augment.min_visible
            if self.augment.cut == "drop":
                kept &= ~lost
            ignore = ignore | lost
        return Sample(
            pixels, boxes[kept], rotated[kept], oriented[kept], labels[kept], ignore[kept], landmarks[kept],
            index, matrix,
        )  # fmt: skip

    def _decode(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        pixels = load_image(self._paths[index], self._sizes[index])
        original = (pixels.shape[1], pixels.shape[0])
        return resize(pixels, fitted_size(original, self.image_size)), original

    def _try_decode(self, index: int) -> tuple[np.ndarray, tuple[int, int]] | DataError:
        try:
            return self._decode(index)
        except DataError as error:
            return error


def collate(
    samples: list[Sample], stride: int = 32, least: int = 0, size: tuple[int, int] | None = None
) -> Batch:
    """Pad samples to one size, a multiple of `stride` from `least` on, or (width, height) `size`, and their
    boxes to one number.
    """
    if size is None:
        sides = (max(least, *(s.pixels.shape[axis] for s in samples)) for axis in (1, 0))
        width, height = (-(-side // stride) * stride for side in sides)
    else:
        width, height = size
    pixels = np.full((len(samples), height, width, 3), PAD_VALUE, dtype=np.uint8)
    most = max(len(s.boxes) for s in samples)
    boxes, rotated = (np.zeros((len(samples), most, k), dtype=np.float32) for k in (4, 5))
    labels = np.zeros((len(samples), most), dtype=np.int64)
    landmarks = np.full((len(samples), most, LANDMARKS, 2), np.nan, dtype=np.float32)
    mask, ignore, oriented = (np.zeros((len(samples), most), dtype=bool) for _ in range(3))
    for n, sample in enumerate(samples):
        count = len(sample.boxes)
        pixels[n, : sample.pixels.shape[0], : sample.pixels.shape[1]] = sample.pixels
        boxes[n, :count], labels[n, :count] = sample.boxes, sample.labels
        rotated[n, :count], oriented[n, :count] = sample.rotated, sample.oriented
        landmarks[n, :count] = sample.landmarks
        mask[n, :count], ignore[n, :count] = ~sample.ignore, sample.ignore
    tensors = [torch.from_numpy(a) for a in (boxes, labels, mask, ignore, rotated, oriented, landmarks)]
    targets = Targets(*tensors, any_ignored=bool(ignore.any()))
    sizes = [(s.pixels.shape[1], s.pixels.shape[0]) for s in samples]
    return Batch(
        images=torch.from_numpy(pixels).permute(0, 3, 1, 2),
        sizes=torch.tensor(sizes, dtype=torch.float32),
        targets=targets,
        indices=torch.tensor([s.index for s in samples]),
        matrices=torch.from_numpy(np.stack([s.matrix for s in samples])),
    )
