"""Image files to RGB pixels, whatever the file holds, or an error that says what is wrong.

Behaviour by kind of file: grey is repeated to three channels; 16 bits are scaled to 8; alpha is left out;
a palette is looked up; EXIF turns are applied, as every viewer does, unless the annotation's size is that
of the file before its turn (then the boxes were drawn there); a truncated file is an error.
"""

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from boxwright.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
UPLOADS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 500_000_000  # an image of 22,000 x 22,000; a larger one needs tiles
EXIF_ORIENTATION = 0x0112
SWAPPED = (5, 6, 7, 8)  # the EXIF orientations that swap width and height

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow raises at twice this; `open_image` at once it


def find_images(place: str | os.PathLike) -> list[Path]:
    """One image file, or every image below a folder, sorted.

    Raises:
        DataError: there is none.
    """
    path = Path(place)
    if path.is_file():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        what = "holds no image" if path.is_dir() else "doesn't exist"
        raise DataError(f"{path} {what}. Expected a file or a folder of {', '.join(IMAGE_SUFFIXES)}.")
    return found


def list_images(places: Sequence[str | os.PathLike]) -> list[tuple[str, str]]:
    """Name and path of every image of files, folders, patterns such as `a/*.png`, and lists (.txt, a path a
    line, from the list's own folder on).

    Names are relative to a folder given alone, else to the folder that all are in.

    Raises:
        DataError: there is none at some place, or a list can't be read.
    """
    if len(places) == 1 and Path(places[0]).is_dir():
        root = Path(places[0])
        return [(str(path.relative_to(root)), str(path)) for path in find_images(root)]
    paths = list(dict.fromkeys(path for place in places for path in _images_at(place)))
    root = Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))
    return [(str(Path(os.path.abspath(path)).relative_to(root)), str(path)) for path in paths]


def _images_at(place: str | os.PathLike) -> list[Path]:
    path = Path(place)
    if not path.exists() and any(mark in path.name for mark in "*?["):
        found = sorted(
            Path(p) for p in glob(str(place), recursive=True) if p.lower().endswith(IMAGE_SUFFIXES)
        )
        if not found:
            raise DataError(f"{place} matches no image.")
        return found
    if path.is_file() and path.suffix.lower() == ".txt":
        try:
            lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: can't be read as a list of images: {error}.") from error
        return [found for line in lines if line for found in find_images(path.parent / line)]
    return find_images(path)


def image_size(path: str | os.PathLike) -> tuple[int, int, bool]:
    """(width, height, swapped) as displayed, from the header alone; `swapped`: EXIF swaps the sides.

    Raises:
        DataError: no image can be read there.
    """
    with open_image(path) as image, exif_faults(path):
        width, height = image.size
        swapped = may_have_exif(image) and image.getexif().get(EXIF_ORIENTATION) in SWAPPED
    return (height, width, True) if swapped else (width, height, False)


def may_have_exif(image: Image.Image) -> bool:
    """Whether to look: Pillow would decode a whole PNG to find an EXIF block behind its pixels."""
    return image.format != "PNG" or "exif" in image.info


@contextmanager
def exif_faults(path: str | os.PathLike) -> Iterator[None]:
    """What goes wrong while an EXIF block is read, as a DataError."""
    try:
        yield
    except (OSError, ValueError, SyntaxError, KeyError) as error:
        raise DataError(f"{path}: its EXIF block can't be read: {error}.") from error


def is_too_large(path: str | os.PathLike) -> bool:
    """Whether the header gives more pixels than are decoded whole."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return image.width * image.height > MAX_PIXELS
    except Image.DecompressionBombError:
        return True
    except (OSError, ValueError, SyntaxError):
        return False


def load_image(path: str | os.PathLike, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an image.

    Args:
        path: the file.
        size: (width, height) that the annotation states, None where it states none.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: missing, unreadable, truncated, too large, or of another size than stated.
    """
    with open_image(path) as image:
        upright = size is None or tuple(image.size) != tuple(size) or size[0] == size[1]
        try:
            image.load()
            if upright:
                image = _upright(image)
            pixels = _to_rgb(image)
        except (OSError, ValueError, SyntaxError, MemoryError) as error:
            raise DataError(f"{path}: can't be decoded: {error}.") from error
    found = (pixels.shape[1], pixels.shape[0])
    if size is not None and found != tuple(size):
        raise DataError(
            f"{path}: the image is {found[0]} x {found[1]}, its annotation says {size[0]} x {size[1]}."
        )
    return pixels


def open_upload(content: bytes, most: int = MAX_PIXELS) -> Image.Image:
    """The image of a file's content from a stranger, of the usual formats, whose header alone is read.

    Raises:
        DataError: it is none, or one of more pixels.
    """
    with upload_faults(), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(content), formats=UPLOADS)
    width, height = image.size
    if width * height > most:
        raise DataError(f"an image of {width} x {height}, expected at most {most:,} pixels.")
    return image


def decode_upload(image: Image.Image) -> np.ndarray:
    """Pixels (H, W, 3) uint8 RGB of an image of `open_upload`, turned as EXIF says.

    Raises:
        DataError: it is damaged.
    """
    with upload_faults():
        image.load()
        return _to_rgb(_upright(image))


def as_pixels(image: np.ndarray | Image.Image) -> np.ndarray:
    """Pixels (H, W, 3) uint8 RGB of an image in memory: one of Pillow's, turned as EXIF says; or an array of
    uint8, (H, W, 3) in RGB or (H, W) grey.

    Raises:
        DataError: something else, or it is damaged.
    """
    if isinstance(image, Image.Image):
        return decode_upload(image)
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(
            f"an image of shape {np.shape(image)} and type {pixels.dtype}, expected (height, width, 3) of"
            " uint8 in RGB, or (height, width); files are for `boxwright.predict`."
        )
    return np.ascontiguousarray(pixels)


@contextmanager
def upload_faults() -> Iterator[None]:
    """What Pillow raises, as a DataError that tells a stranger nothing of this machine."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise DataError(f"not an image, expected {', '.join(UPLOADS)}.") from error
    except (OSError, ValueError, SyntaxError, KeyError, MemoryError, Image.DecompressionBombError) as error:
        raise DataError("an image that can't be decoded.") from error


def open_image(path: str | os.PathLike) -> Image.Image:
    """An image whose header alone is read.

    Raises:
        DataError: missing, no image, or too large.
    """
    try:
        image = Image.open(path)
        width, height = image.size
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image, or a damaged one.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: can't be read: {error}.") from error
    if width * height > MAX_PIXELS:
        image.close()
        raise DataError(f"{path}: {width} x {height} is more than {MAX_PIXELS:,} pixels.")
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says; itself where it says nothing, of which `exif_transpose` would make a copy."""
    return image if image.getexif().get(EXIF_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save them as 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which some files bring in as 32
        grey = np.clip(np.rint(np.asarray(image) / 257.0), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
