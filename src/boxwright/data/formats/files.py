"""Reading annotation files that may be damaged or hostile, and writing them whole or not at all."""

import hashlib
import io
import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from boxwright.data.images import IMAGE_SUFFIXES
from boxwright.errors import DataError

FRAMES = {".parquet": "write_parquet", ".csv": "write_csv", ".json": "write_json"}
GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 4 << 30  # a JSON of 10 million boxes is about 1.5 GiB
MAX_UNPACKED_GIB = 1.0  # of a compressed file, unless UNPACKED_VARIABLE says more
UNPACKED_VARIABLE = "BOXWRIGHT_MAX_UNPACKED_GIB"


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file.

    Raises:
        DataError: missing, unreadable, or larger than `limit`.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: {'a folder, expected a file' if path.is_dir() else 'no such file'}.")
        if path.stat().st_size > limit:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes, expected at most {limit:,}.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read: {error}.") from error


def read_frame(path: str | os.PathLike, schema: Mapping[str, pl.DataType], what: str) -> pl.DataFrame:
    """A table in a Parquet file that has these columns, and maybe others.

    Args:
        path: of the file.
        schema: names and types of the columns.
        what: it is, for messages.

    Raises:
        DataError: it can't be read, or is another table.
    """
    try:
        table = pl.read_parquet(Path(path))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: {what} can't be read: {error}") from error
    if any(table.schema.get(name) != kind for name, kind in schema.items()):
        raise DataError(f"{path}: not {what}; expected the columns {', '.join(schema)}.")
    return table


def write_frame(table: pl.DataFrame, path: Path) -> None:
    """Write a table whole or not at all, as the suffix says: .parquet, .csv or .json.

    Raises:
        DataError: another suffix, or the file can't be written.
    """
    if path.suffix not in FRAMES:
        raise DataError(f"{path}: expected a file that ends in {', '.join(FRAMES)}.")
    buffer = io.BytesIO()
    getattr(table, FRAMES[path.suffix])(buffer)
    write_atomic(path, buffer.getvalue())


def sha256_of(path: Path) -> str:
    """What tells a file's content from any other, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lines(path: Path, limit: int = MAX_BYTES) -> tuple[list[str], bool]:
    """The lines of a UTF-8 text file and whether every byte was UTF-8 (others become U+FFFD)."""
    raw = read_bytes(path, limit)
    text = raw.decode("utf-8-sig", errors="replace")
    return text.splitlines(), "\ufffd" not in text


def read_content(path: Path) -> bytes:
    """The bytes of a file, unpacked where it is a gzip, to at most `max_unpacked` bytes.

    Raises:
        DataError: as `read_bytes`, or a gzip that is damaged or unpacks to more.
    """
    raw = read_bytes(path)
    return _gunzip(path, raw) if raw[:2] == GZIP_MAGIC else raw


def read_json(path: Path) -> Any:
    """`parse_json` of a file."""
    return parse_json(path, read_content(path))


def parse_json(path: Path, raw: bytes) -> Any:
    """A JSON document; NaN and Infinity, which JSON doesn't have but Python writes, are taken.

    Raises:
        DataError: it isn't JSON; the message gives line and column.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _read_lenient_json(path, raw)


def max_unpacked() -> int:
    """Bytes that a compressed file may unpack to: 1 GiB, or BOXWRIGHT_MAX_UNPACKED_GIB of the environment.

    Raises:
        DataError: the variable isn't a positive number.
    """
    text = os.environ.get(UNPACKED_VARIABLE, str(MAX_UNPACKED_GIB))
    try:
        gib = float(text)
    except ValueError:
        gib = 0.0
    if not 0 < gib < 1e6:
        raise DataError(f"{UNPACKED_VARIABLE}={text}: expected a number of GiB above 0.")
    return int(gib * 2**30)


def too_large(path: Path, what: str) -> DataError:
    """The error of a compressed file that unpacks to more than `max_unpacked`."""
    limit = max_unpacked() / 2**30
    return DataError(
        f"{path}: {what} unpacks to more than {limit:.3g} GiB; if you trust it, raise {UNPACKED_VARIABLE}."
    )


def _gunzip(path: Path, raw: bytes) -> bytes:
    """The content of a gzip, of one or several members."""
    parts, left = [], max_unpacked()
    while raw:
        decompressor = zlib.decompressobj(wbits=31)
        try:
            parts.append(decompressor.decompress(raw, left + 1))
        except zlib.error as error:
            raise DataError(f"{path}: damaged gzip: {error}.") from error
        left -= len(parts[-1])
        if left < 0:
            raise too_large(path, "a gzip that")
        if not decompressor.eof:
            raise DataError(f"{path}: a gzip that is cut off.")
        raw = decompressor.unused_data.lstrip(b"\0")  # what pads an archive's last block
    return b"".join(parts)


def _read_lenient_json(path: Path, raw: bytes) -> Any:
    try:
        # Integers beyond 64 bits become floats, as orjson has them.
        content = json.loads(raw.decode("utf-8-sig"), parse_int=lambda s: int(s) if len(s) < 19 else float(s))
        json.dumps(content, ensure_ascii=False).encode()
        return content
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: a string holds half a character ({error.reason}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8, expected JSON in UTF-8.") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}."
        ) from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: not usable JSON: {type(error).__name__} while parsing.") from error


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one.

    Raises:
        DataError: it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise DataError(f"{path}: can't be written: {error}.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise DataError(f"{path}: can't be written: {error}.") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def safe_relative(name: str) -> bool:
    """Whether a file name out of an annotation stays below the folder it is joined to."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and "\0" not in name and not os.path.isabs(name) and ".." not in parts


def resolve_image(name: str, folders: list[Path]) -> str | None:
    """Where an image is: the first of `folders` that holds `name`, else the first folder's guess.

    A name may climb out of its folder (`../images/a.jpg`), as that of a file that stands elsewhere has to;
    but to nothing that isn't named as an image. An absolute name leads nowhere.
    """
    climbs = name.startswith("../") and safe_relative(name.replace("../", "")) and _is_image(name)
    if not (climbs or safe_relative(name)) or len(name) > 1000:
        return None
    # Not pathlib: a file may list half a million images.
    paths = [os.path.join(folder, name) for folder in folders]
    try:
        found = next((p for p in paths if os.path.isfile(p)), None)
    except ValueError:
        return None
    return found or (paths[0] if paths else None)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
