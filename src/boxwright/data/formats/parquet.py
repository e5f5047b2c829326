"""Our own file: the box table as Parquet, with the image and category tables in the file's metadata.

One file holds all three, so predictions can be sent to a colleague and judged without anything else.
"""

import base64
import io
from pathlib import Path

import polars as pl

from boxwright.data.formats.files import write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.tables import Tables
from boxwright.errors import DataError

VERSION = "1"
MAX_TABLE_BYTES = 1 << 30


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
        images, categories = (_unpack(metadata[name]) for name in ("images", "categories"))
        boxes = pl.read_parquet(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except (pl.exceptions.PolarsError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a usable Parquet file: {error}.") from error
    try:
        return Tables(images, boxes, categories)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def write(tables: Tables, path: Path) -> None:
    """Write the three tables into one file, atomically."""
    metadata = {
        "boxwright_version": VERSION,
        "images": _pack(tables.images),
        "categories": _pack(tables.categories),
    }
    buffer = io.BytesIO()
    tables.boxes.write_parquet(buffer, metadata=metadata)
    write_atomic(path, buffer.getvalue())


def _pack(table: pl.DataFrame) -> str:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def _unpack(text: str) -> pl.DataFrame:
    if len(text) > MAX_TABLE_BYTES:
        raise ValueError(f"a table of {len(text):,} bytes in the metadata")
    return pl.read_parquet(io.BytesIO(base64.b64decode(text, validate=True)))
