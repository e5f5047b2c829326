"""Tiles of large images, each level half of the one before, for a page that pans and zooms."""

import threading
from collections import OrderedDict
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from boxwright.data.images import load_image
from boxwright.errors import ConfigError, DataError

TILE = 512  # px
MOST_BYTES = 1 << 30  # of decoded levels that are kept
QUALITY = 92


class Tiles:
    """Tiles of images, decoded once; those that were asked for longest ago are forgotten.

    Args:
        places: (I,) path, width and height of each image; None where unknown.
    """

    def __init__(self, places: list[tuple[str | None, int | None, int | None]]):
        self.places = places
        self._levels: OrderedDict[int, list[np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def levels(self, image_id: int) -> list[tuple[int, int]]:
        """Width and height of each level, the whole image's first.

        Raises:
            DataError: the image can't be read.
            ConfigError: there is none.
        """
        return [(level.shape[1], level.shape[0]) for level in self._pyramid(image_id)]

    def tile(self, image_id: int, level: int, column: int, row: int) -> bytes:
        """A JPEG of at most `TILE` by `TILE` pixels.

        Raises:
            DataError: the image can't be read.
            ConfigError: there is no such tile.
        """
        levels = self._pyramid(image_id)
        if not 0 <= level < len(levels):
            raise ConfigError(f"level {level}, expected 0 to {len(levels) - 1}.")
        part = levels[level][row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        if min(column, row) < 0 or not part.size:
            raise ConfigError(f"there is no tile {column}, {row} of level {level}.")
        buffer = BytesIO()
        Image.fromarray(part).save(buffer, "JPEG", quality=QUALITY)
        return buffer.getvalue()

    def _pyramid(self, image_id: int) -> list[np.ndarray]:
        with self._lock:
            if image_id in self._levels:
                self._levels.move_to_end(image_id)
                return self._levels[image_id]
            if not 0 <= image_id < len(self.places):
                raise ConfigError(f"there is no image {image_id}.")
            path, width, height = self.places[image_id]
            if path is None or not Path(path).is_file():
                raise DataError(f"{path or 'an image'}: no such file.")
            levels = [load_image(path, (width, height) if width and height else None)]
            while max(levels[-1].shape[:2]) > TILE:
                levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
            self._levels[image_id] = levels
            while len(self._levels) > 1 and self._kept() > MOST_BYTES:
                self._levels.popitem(last=False)
            return levels

    def _kept(self) -> int:
        return sum(level.nbytes for levels in self._levels.values() for level in levels)
