"""Our own file: the box table as Parquet, with the image and category tables in the file's metadata.

One file holds all three, so predictions can be sent to a colleague and judged without anything else.
"""

import base64
import io
import os
from pathlib import Path

import polars as pl

from boxwright.data.formats.files import max_unpacked, too_large, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.tables import BOX_SCHEMA, Tables
from boxwright.errors import DataError

VERSION = "1"
USUAL_RATIO = 50  # of unpacked to packed bytes; honest tables have less
CELL_BYTES = 16  # at most, of a cell without its text


def read(path: Path, options: ReadOptions) -> Tables:
    """Read tables that `write` wrote.

    Raises:
        DataError: not a Parquet file, or one without our metadata.
    """
    options.only("parquet")
    try:
        metadata = pl.read_parquet_metadata(path)
        if metadata.get("boxwright_version") != VERSION:
            raise DataError(f"{path}: a Parquet file, but not a box table of boxwright's.")
        images, categories = (_unpack(path, metadata[name]) for name in ("images", "categories"))
        boxes = _read_bounded(path, path, path.stat().st_size)
        if "landmarks" not in boxes.columns:  # written before 0.2
            none = pl.lit(None, dtype=BOX_SCHEMA["landmarks"])
            boxes = boxes.with_columns(landmarks=none).select([*BOX_SCHEMA])
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a usable Parquet file: {error}.") from error
    try:
        return Tables(_from_file(images, path), boxes, categories)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def write(tables: Tables, path: Path) -> None:
    """Write the three tables into one file, atomically."""
    metadata = {
        "boxwright_version": VERSION,
        "images": _pack(_beside_file(tables.images, path)),
        "categories": _pack(tables.categories),
    }
    buffer = io.BytesIO()
    tables.boxes.write_parquet(buffer, metadata=metadata)
    write_atomic(path, buffer.getvalue())


def _beside_file(images: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The image table with paths relative to the folder of the file."""
    start = os.path.realpath(path.parent)
    paths = [p and os.path.relpath(os.path.realpath(p), start) for p in images["path"]]
    return images.with_columns(path=pl.Series(paths, dtype=pl.String))


def _from_file(images: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The image table with paths that a process in any folder can open."""
    paths = [p and os.path.join(path.parent, p) for p in images["path"]]
    first = next((n for n, p in enumerate(paths) if p), None)
    if first is not None and not os.path.isfile(paths[first]) and os.path.isfile(images["path"][first]):
        return images  # written before 0.2, with paths from the working directory
    return images.with_columns(path=pl.Series(paths, dtype=pl.String))


def _pack(table: pl.DataFrame) -> str:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def _unpack(path: Path, text: str) -> pl.DataFrame:
    raw = base64.b64decode(text, validate=True)
    return _read_bounded(path, io.BytesIO(raw), len(raw))


def _read_bounded(path: Path, source: Path | io.BytesIO, size: int) -> pl.DataFrame:
    """A table of `size` packed bytes, unless it would fill the memory."""
    lazy = pl.scan_parquet(source)
    unpacked = lazy.select(pl.len()).collect().item() * len(lazy.collect_schema()) * CELL_BYTES
    if unpacked > max(max_unpacked(), USUAL_RATIO * size):
        raise too_large(path, "a Parquet table that")
    return pl.read_parquet(source)
