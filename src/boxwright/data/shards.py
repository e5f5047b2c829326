"""Lists of images of any number: files, and those inside tar archives and Parquet files."""

import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from boxwright.data.images import IMAGE_SUFFIXES, list_images
from boxwright.data.tables import Tables
from boxwright.errors import DataError

# Name, and where: a path; of images in shards the shard's, with their first byte and number of bytes in a tar
# archive, or their row in a Parquet file.
SCHEMA = {"file_name": pl.String, "path": pl.String, "start": pl.Int64, "bytes": pl.Int64}
TAR = (".tar",)
PARQUET = (".parquet",)


def list_shards(images: str | os.PathLike | Sequence[str | os.PathLike] | Tables) -> pl.DataFrame:
    """Every image, as a frame of `SCHEMA` with absolute paths.

    Args:
        images: files, folders, patterns and lists as of `list_images`; tables; or .tar archives of images
            (WebDataset's shards) and .parquet files with a column of images, as Hugging Face's data sets have
            it, or folders of such. They stand first.

    Raises:
        DataError: there is none, or a shard can't be read.
    """
    shards: list[Path] = []
    if not isinstance(images, Tables):
        places = [images] if isinstance(images, str | os.PathLike) else list(images)
        shards = [shard for place in places for shard in _shards_at(Path(place))]
        images = [place for place in places if not _shards_at(Path(place))]
    rows: list[tuple] = [row for shard in shards for row in _members(shard)]
    if images or not shards:
        rows += [(*place, None, None) for place in list_places(images)]
    if not rows:
        raise DataError(f"{shards[0]}: no image in it, nor in {len(shards) - 1} other shards.")
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return frame.with_columns(path=pl.Series([os.path.abspath(path) for path in frame["path"]]))


def list_places(images: str | os.PathLike | Sequence[str | os.PathLike] | Tables) -> list[tuple[str, str]]:
    """Name and path of each image of files, folders, patterns and lists, or of tables.

    Raises:
        DataError: there is none, or nobody knows where one is.
    """
    if not isinstance(images, Tables):
        return list_images([images] if isinstance(images, str | os.PathLike) else list(images))
    if images.images["path"].null_count():
        raise DataError("the tables don't say where all of their images are.")
    return list(images.images.select("file_name", "path").iter_rows())


def place_images(images: pl.DataFrame, folder: Path) -> list[tuple[str, str]]:
    """Name and path of images of `list_shards`, those in shards each in a file in `folder`.

    Raises:
        DataError: a shard can't be read, or has changed.
    """
    placed = []
    packed = images["start"].is_not_null()  # they stand first
    for n, (name, content) in enumerate(_contents(images.filter(packed))):
        target = folder / f"{n:06d}"  # what an archive says is no path of ours
        target.write_bytes(content)
        placed.append((name, str(target)))
    return placed + images.filter(~packed).select("file_name", "path").rows()


def _shards_at(place: Path) -> list[Path]:
    if place.is_dir():
        files = sorted(p for p in place.iterdir() if p.is_file())
        shards = [p for p in files if p.suffix.lower() in (*TAR, *PARQUET)]
        if shards and any(p.suffix.lower() in IMAGE_SUFFIXES for p in files):
            raise DataError(f"{place}: holds shards and images side by side; name those that are meant.")
        return shards
    return [place] if place.suffix.lower() in (*TAR, *PARQUET) else []


def _members(shard: Path) -> Iterator[tuple[str, str, int, int | None]]:
    try:
        if shard.suffix.lower() in TAR:
            with tarfile.open(shard, "r:") as archive:
                for member in archive:
                    if member.isfile() and member.name.lower().endswith(IMAGE_SUFFIXES):
                        yield member.name, str(shard), member.offset_data, member.size
        else:
            names = _image_column(shard)[1]
            count = pl.scan_parquet(shard).select(pl.len()).collect().item()
            found = [None] * count
            if names is not None:
                found = pl.scan_parquet(shard).select(names).collect().to_series().to_list()
            for n, name in enumerate(found):
                yield name or f"{shard.stem}/{n:06d}", str(shard), n, None
    except (OSError, tarfile.TarError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{shard}: can't be read as a shard of images: {error}.") from error


def _image_column(shard: Path) -> tuple[pl.Expr, pl.Expr | None]:
    """The bytes of a Parquet file's images, and their names where it has them.

    Raises:
        DataError: it has no such column.
    """
    schema = pl.scan_parquet(shard).collect_schema()
    for name, kind in schema.items():
        if isinstance(kind, pl.Struct) and "bytes" in (fields := {f.name for f in kind.fields}):
            column = pl.col(name).struct
            return column.field("bytes"), column.field("path") if "path" in fields else None
    names = next((pl.col(n) for n in ("file_name", "__key__", "name") if schema.get(n) == pl.String), None)
    for name, kind in schema.items():
        if kind == pl.Binary:
            return pl.col(name), names
    raise DataError(f"{shard}: no column of images, expected one of bytes or of {{bytes, path}}.")


def _contents(images: pl.DataFrame) -> Iterator[tuple[str, bytes]]:
    for shard, rows in images.group_by("path", maintain_order=True):
        path = Path(str(shard[0]))
        try:
            if path.suffix.lower() in TAR:
                with path.open("rb") as file:
                    for name, start, size in rows.select("file_name", "start", "bytes").iter_rows():
                        file.seek(start)
                        content = file.read(size)
                        if len(content) < size:
                            raise DataError(f"{path}: ends before {name}; it was longer when it was listed.")
                        yield name, content
            else:
                at = rows["start"].to_numpy()
                first, last = int(at.min()), int(at.max())
                column = pl.scan_parquet(path).slice(first, last - first + 1).select(_image_column(path)[0])
                found = column.collect().to_series()
                if len(found) <= last - first:
                    raise DataError(f"{path}: ends before row {last}; it was longer when it was listed.")
                for name, n in zip(rows["file_name"], np.subtract(at, first).tolist()):
                    yield name, found[n] or b""
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path}: can't be read as a shard of images: {error}.") from error
