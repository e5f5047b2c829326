"""Windows of an image that may be too large for memory, and where on earth it lies.

Up to `WHOLE` pixels an image is decoded once, as everywhere. A larger one is read by bands of rows with GDAL
(rasterio), each row once: memory is a band's, whatever the image's height.
"""

import os
from pathlib import Path

import numpy as np
import polars as pl

from boxwright.data.builder import pack, unpack
from boxwright.data.images import image_size, is_too_large, load_image
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError

WHOLE = 64_000_000  # pixels: 192 MB decoded
MAX_SIDE = 1_000_000
GDAL_CACHE = 64 << 20  # bytes; rows are read once, and GDAL would keep a twentieth of all memory
# Of GDAL, by suffix; others may refer to files and hosts elsewhere.
DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"} | dict.fromkeys(
    (".jpg", ".jpeg"), "JPEG"
)


class WindowedImage:
    """An image to be read from top to bottom.

    Args:
        path: the file.

        size: (width, height) that it has.
        whole: pixels up to which it is decoded whole.

    Raises:
        DataError: no image can be read there.
        ConfigError: it is too large to be decoded whole, and rasterio isn't installed.
    """

    def __init__(self, path: str | os.PathLike, size: tuple[int, int], whole: int = WHOLE):
        self.path, self.size = Path(path), size
        self._source = None
        self._pixels: np.ndarray | None = None
        self._first = 0  # row of the band that is held
        if size[0] * size[1] <= whole:
            self._pixels = load_image(self.path, size)
        else:
            self._source = _open_with_gdal(self.path, size)

    def read(self, window: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a window x1, y1, x2, y2, as much of it as lies in the image.

        Windows come by rows from top to bottom: what is above the last one's top is forgotten.

        Raises:
            DataError: pixels can't be decoded.
        """
        x1, y1, x2, y2 = (int(v) for v in window)
        x2, y2 = min(x2, self.size[0]), min(y2, self.size[1])
        if self._source is not None:
            self._advance(y1, y2)
        assert self._pixels is not None
        return self._pixels[y1 - self._first : y2 - self._first, x1:x2]

    def close(self) -> None:
        if self._source is not None:
            self._source.close()

    def _advance(self, top: int, bottom: int) -> None:
        """Hold the rows from `top` to `bottom`, reading those that aren't there yet."""
        held = self._first + (0 if self._pixels is None else len(self._pixels))
        kept = np.zeros((0, self.size[0], 3), np.uint8)
        if self._pixels is not None and self._first <= top < held:
            kept = self._pixels[top - self._first :]
        start = top + len(kept)
        if bottom > start:
            kept = np.concatenate([kept, self._decode(start, bottom)])
        self._pixels, self._first = kept, top

    def _decode(self, top: int, bottom: int) -> np.ndarray:
        import rasterio
        from rasterio.errors import RasterioError

        source = self._source
        assert source is not None
        bands = [1, 2, 3] if source.count >= 3 else [1, 1, 1]
        try:
            with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
                rows = source.read(bands, window=((top, bottom), (0, self.size[0])))
        except (RasterioError, OSError, ValueError) as error:
            raise DataError(f"{self.path}, rows {top} to {bottom}: can't be decoded: {error}.") from error
        if rows.dtype == np.uint16:
            rows = np.rint(rows / 257.0)
        elif rows.dtype != np.uint8:
            raise DataError(f"{self.path}: pixels of {rows.dtype}, expected 8 or 16 bits.")
        return np.ascontiguousarray(rows.transpose(1, 2, 0).astype(np.uint8, copy=False))


def large_image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(width, height) as displayed, of an image of any size.

    Raises:
        DataError: no image can be read there, or one of more than `MAX_SIDE` a side.
        ConfigError: it is too large for Pillow, and rasterio isn't installed.
    """
    try:
        return image_size(path)[:2]
    except DataError:
        if not Path(path).is_file() or not is_too_large(path):
            raise
    with _gdal(Path(path)) as source:
        if max(source.width, source.height) > MAX_SIDE:
            raise DataError(
                f"{path}: {source.width} x {source.height}, expected at most {MAX_SIDE:,} a side."
            )
        return source.width, source.height


def _open_with_gdal(path: Path, size: tuple[int, int]):
    source = _gdal(path)
    if (source.width, source.height) != tuple(size):
        source.close()
        raise DataError(
            f"{path}: the image is {source.width} x {source.height}, expected {size[0]} x {size[1]}."
        )
    return source


def _gdal(path: Path):
    if path.suffix.lower() not in DRIVERS:
        raise DataError(f"{path}: a suffix of no image; expected one of {', '.join(DRIVERS)}.")
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioError
    except ImportError as error:
        raise ConfigError(
            f"{path}: too large to be decoded whole; pip install 'boxwright[aerial]' reads it by windows."
        ) from error
    import warnings

    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path, driver=DRIVERS[path.suffix.lower()])
    except (RasterioError, OSError) as error:
        raise DataError(f"{path}: can't be read: {error}.") from error


def image_position(path: str | os.PathLike) -> tuple[tuple[float, ...], str | None] | None:
    """Where on earth a GeoTIFF, or an image with a world file beside it, lies.

    Returns:
        GDAL's six numbers, x = p[0] + p[1] column + p[2] row and y = p[3] + p[4] column + p[5] row,
        and the name of the coordinate system, None where unknown; None for an image without a position,
        or where rasterio isn't installed.
    """
    path = Path(path)
    worlds = [path.with_suffix(s) for s in _world_suffixes(path.suffix)]
    if path.suffix.lower() not in (".tif", ".tiff") and not any(w.is_file() for w in worlds):
        return None
    try:
        source = _gdal(path)
    except (ConfigError, DataError):
        return None
    with source:
        if source.transform.is_identity:
            return None
        return source.transform.to_gdal(), None if source.crs is None else source.crs.to_string()


def _world_suffixes(suffix: str) -> list[str]:
    """.jpg's are .jgw, .jpgw and .wld."""
    letters = suffix.lstrip(".")
    return [f".{letters[0]}{letters[-1]}w", f".{letters}w", ".wld"] if letters else [".wld"]


def with_positions(tables: Tables) -> Tables:
    """The tables with the centre of each box in the coordinates of its image, where that has a position: as
    `position` [x, y] among the box's attributes, beside `crs` among the image's.
    """
    of_box: list[str | None] = tables.boxes["attributes"].to_list()
    of_image: list[str | None] = tables.images["attributes"].to_list()
    centers = tables.rotated()[:, :2]
    rows = tables.rows_by_image()
    for n, path in enumerate(tables.images["path"]):
        found = image_position(path)
        if found is None:
            continue
        p, crs = found
        of_image[n] = pack(unpack(of_image[n]) | {"crs": crs})
        for k in rows[n]:
            x, y = centers[k].tolist()
            place = [p[0] + p[1] * x + p[2] * y, p[3] + p[4] * x + p[5] * y]
            of_box[k] = pack(unpack(of_box[k]) | {"position": place})
    boxes = tables.boxes.with_columns(attributes=pl.Series(of_box, dtype=pl.String))
    images = tables.images.with_columns(attributes=pl.Series(of_image, dtype=pl.String))
    return Tables(images, boxes, tables.categories, tables.faults)
