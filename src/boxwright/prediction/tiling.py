"""How images of any size are cut up for a detector."""

from dataclasses import dataclass, replace

import numpy as np

from boxwright.errors import ConfigError
from boxwright.geometry.tiling import MERGES, choose_tile, fit_tile, tile_windows
from boxwright.models.checkpoint import LoadedDetector
from boxwright.models.detections import Selection
from boxwright.models.detector import Detector

AREA = 4_500_000  # px of a tile, unless its size is given: large ones have less overlap
OVERLAP = 0.2  # of a tile's shorter side, where nobody knows how long objects are
CANDIDATES = 10_000  # of a tile, which the image's limit doesn't bind
EDGE = 2.0  # px of the network's input within which a box touches its tile's edge


@dataclass(frozen=True)
class Tiling:
    """How images are cut up.

    Attributes:
        size: greatest (width, height) of a tile as the network sees it, px; None: what suits an image, of
            `AREA` or less.
        overlap: pixels of it that neighbours have in common; objects longer than that are seen in pieces.
        scale: pixels of the network's input a pixel of the image.
        merge: of `merge_tiles`.
        iou_threshold: of `merge_tiles`.
        max_detections: an image.
    """

    size: tuple[int, int] | None
    overlap: float
    scale: float = 1.0
    merge: str = "fuse"
    iou_threshold: float = 0.4
    max_detections: int = 10_000

    def selection_of(self, selection: Selection) -> Selection:
        """How the detections of a tile are thinned out, where an image's are by `selection`."""
        kept = selection.limited_to(max(self.max_detections, CANDIDATES))
        # All boxes of an object are left for fusing: their mean is a better place than the best one's.
        return replace(kept, iou_threshold=1.0) if self.merge == "fuse" else kept

    def tile_of(self, size: tuple[int, int], model: Detector) -> tuple[int, int]:
        """(width, height) of the tiles of an image of `size`, as the network sees them."""
        seen = (size[0] * self.scale, size[1] * self.scale)
        if self.size is None:
            return choose_tile(seen, AREA, self.overlap, model.stride, model.least_side)
        width, height = (fit_tile(s, m, self.overlap, model.stride) for s, m in zip(seen, self.size))
        return max(model.least_side, width), max(model.least_side, height)

    def windows_of(self, size: tuple[int, int], tile: tuple[int, int]) -> np.ndarray:
        """Windows (T, 4) x1, y1, x2, y2 of an image of `size`, in its pixels; `tile` as in `tile_of`."""
        width, height = (max(1, round(side / self.scale)) for side in tile)
        overlap = self.overlap / self.scale
        return tile_windows(size, (width, height), (overlap, overlap))


@dataclass(frozen=True)
class TilingOptions:
    """A user's options of tiles; None: what the checkpoint was trained at.

    Attributes:
        size: greatest (width, height) of a tile in pixels of the network's input; None: what suits each image
            best, of `AREA` or less.
        overlap: share of a tile's shorter side that neighbours share; None: as much as objects are long.
        scale: pixels of the input a pixel of the images.
        object_width: of the objects in these images, pixels: they are scaled to the width that objects had in
            training.
        gsd: metres of ground a pixel of these images, scaled to that of the training images (`data.gsd`).
        merge: "fuse", "nms" or "soft"; the first finds the best place.
        iou_threshold: from which boxes of a class are one object.
    """

    size: tuple[int, int] | None = None
    overlap: float | None = None
    scale: float | None = None
    object_width: float | None = None
    gsd: float | None = None
    merge: str = Tiling.merge
    iou_threshold: float = Tiling.iou_threshold

    def resolve(self, loaded: LoadedDetector, max_detections: int | None) -> Tiling:
        """With what is left open taken from a checkpoint.

        Raises:
            ConfigError: more than one of scale, object width and gsd, numbers that can't be meant, or a
                checkpoint that doesn't know what it was trained at.
        """
        given = {
            n: getattr(self, n) for n in ("scale", "object_width", "gsd") if getattr(self, n) is not None
        }
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} both give the size of objects; expected one of them.")
        if any(value <= 0 for value in given.values()) or not 0 <= (self.overlap or 0) < 1:
            raise ConfigError(
                f"overlap {self.overlap}, {given}: expected a share below 1, and positive numbers."
            )
        if self.merge not in MERGES:
            raise ConfigError(f"merge '{self.merge}', expected one of {', '.join(MERGES)}.")
        known, trained = loaded.statistics, loaded.config.data.gsd
        if self.object_width is not None and "object_width" not in known:
            raise ConfigError("the checkpoint doesn't know how wide its objects were; say a scale instead.")
        if self.gsd is not None and (trained is None or "scale" not in known):
            raise ConfigError("the checkpoint doesn't know its images' data.gsd; say a scale instead.")
        scale = self.scale or known.get("scale", 1.0)
        if self.object_width is not None:
            scale = known["object_width"] / self.object_width
        elif self.gsd is not None and trained is not None:
            scale = known["scale"] * self.gsd / trained
        limit = max_detections or Tiling.max_detections
        side = min(self.size) if self.size else AREA**0.5
        overlap = side * (OVERLAP if self.overlap is None else self.overlap)
        if self.overlap is None and "object_length" in known:
            overlap = min(known["object_length"] + 2 * EDGE, side / 2)
        return Tiling(self.size, overlap, scale, self.merge, self.iou_threshold, limit)
