"""Where the images of a written data set are: named relative to it, or laid into the format's own folders.

What is written can be read where it stands, from any working directory. Formats that name files name those
that were found; formats whose images stand in a folder of their own get links to them there.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import polars as pl

from boxwright.data.builder import pack, unpack
from boxwright.data.formats.files import resolve_image
from boxwright.data.tables import Tables
from boxwright.errors import DataError

Placing = Literal["copy", "link"]

# The folder of the images in formats that can't name a file elsewhere; those that find them by stem are flat.
FOLDERS = {"voc": "JPEGImages", "fiftyone": "data"} | dict.fromkeys(
    ("yolo", "dota", "text", "odgt", "cvat", "labelstudio"), "images"
)
FLAT = {"dota", "text", "odgt", "fiftyone"}
# Those that hold a path relative to themselves.
NAMED = {
    "coco",
    "coco-angle",
    "coco-results",
    "citypersons",
    "markers",
    "eurocity",
    "labelme",
    "via",
    "wider",
}
# Those that are written into a folder, not a file.
OF_FOLDERS = {"voc", "yolo", "dota", "text", "eurocity", "labelme", "fiftyone"}


def place_images(
    tables: Tables,
    format: str,
    target: Path,
    placing: Placing | None = None,
    part: str | None = None,
    tell: Callable[[int], None] = lambda count: None,
) -> Tables:
    """The tables with the file names that `format` needs at `target`, their images where these names lead.

    Args:
        tables: images that weren't found keep their names.
        format: a key of `formats.WRITERS`; results and Parquet need nothing.
        target: the file or folder that will be written.
        placing: put the images there as copies or links; None: names lead to where they are, or links where
            the format has no such names.
        part: a subfolder of the images' folder, as YOLO has one for each split.
        tell: called after each image that is put in its place.

    Raises:
        DataError: two images would share a name, or another file is in the way.
    """
    if format == "mot" and target.suffix != ".txt":
        return _place_frames(tables, target, placing or "link", tell)
    if format not in FOLDERS and format not in NAMED:
        return tables
    base = target if format in OF_FOLDERS else target.parent
    names = tables.images["file_name"].to_list()
    found = [p if p is not None and os.path.isfile(p) else None for p in tables.images["path"]]
    if format in NAMED and placing is None:
        names = [n if p is None else _name_from(base, target, n, p) for n, p in zip(names, found)]
        return _renamed(tables, names, found)
    folder = base / FOLDERS.get(format, "images")
    prefix = "images/" if format in NAMED else ""
    shorts = short_names(names, found, format in FLAT)
    paths = list(found)
    for n, (short, path) in enumerate(zip(shorts, found)):
        short = f"{part}/{short}" if part and short is not None else short
        if short is not None and path is not None:
            paths[n] = _put(Path(path), folder / short, placing or "link")
            short = prefix + short
        names[n] = short
        tell(1)
    return _renamed(tables, names, paths)


def _place_frames(
    tables: Tables, target: Path, placing: Placing, tell: Callable[[int], None] = lambda count: None
) -> Tables:
    """The tables with each image at VIDEO/img1/FRAME below `target`, where MOT's sequences have them."""
    names, paths, attributes = [], [], []
    frames = zip(tables.videos(), tables.frames().tolist(), tables.images.to_dicts(), strict=True)
    for video, frame, row in frames:
        folder = video.replace("/", "-") or "video"
        path = row["path"] if row["path"] is not None and os.path.isfile(row["path"]) else None
        name = f"{folder}/img1/{frame:06d}{Path(row['file_name'] or '').suffix or '.jpg'}"
        if path is not None:
            if not (target / name).resolve().is_relative_to(target.resolve()):
                raise DataError(f"video '{video}' leads out of {target}.")
            _put(Path(path), target / name, placing)
        names.append(name)
        paths.append(path and str(target / name))
        attributes.append(pack(unpack(row["attributes"]) | {"video": folder, "frame": frame}))
        tell(1)
    placed = _renamed(tables, names, paths)
    images = placed.images.with_columns(attributes=pl.Series(attributes, dtype=pl.String))
    return replace(placed, images=images)


def _renamed(tables: Tables, names: list[str | None], paths: list[str | None]) -> Tables:
    known = [own if path is None else path for own, path in zip(tables.images["path"], paths)]
    columns = {"file_name": pl.Series(names, dtype=pl.String), "path": pl.Series(known, dtype=pl.String)}
    return Tables(tables.images.with_columns(**columns), tables.boxes, tables.categories, tables.faults)


def _name_from(base: Path, target: Path, name: str | None, path: str) -> str:
    """The name that leads from a written file to an image: its own where that does, else a relative path."""
    if name is not None and os.path.realpath(
        resolve_image(name, near(target, base)) or ""
    ) == os.path.realpath(path):
        return name
    return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(base))).as_posix()


def near(path: Path, base: Path) -> list[Path]:
    """Folders where the images of an annotation file may be, by the layouts that people have.

    COCO's own is annotations/instances_train2017.json beside train2017; CVAT has images/default.
    """
    images = [base / "images", base.parent / "images"]
    stems = dict.fromkeys([path.stem, path.stem.rpartition("_")[2]])
    named = [folder / stem for stem in stems for folder in (base, base.parent, *images)]
    usual = [base, *images, *named, base.parent]
    return [folder for folder in usual if folder.is_dir()] or [base]


def short_names(names: list[str | None], paths: list[str | None], flat: bool) -> list[str | None]:
    """Names below one folder: as short as they were, with as many folders of the path as tell them apart.

    Raises:
        DataError: two images are one file.
    """
    parts = [_parts(p or n) for n, p in zip(names, paths)]
    depth = [1 if flat else len(_parts(n, short=True)) for n in names]
    while True:
        shorts = [("__" if flat else "/").join(p[-d:]) for p, d in zip(parts, depth)]
        rows: dict[str, list[int]] = {}
        for n, short in enumerate(shorts):
            rows.setdefault(short.rpartition(".")[0], []).append(n)
        several = [n for same in rows.values() if len(same) > 1 for n in same if parts[n]]
        if not several:
            return [short or None for short in shorts]
        if all(depth[n] >= len(parts[n]) for n in several):
            first, second = [names[n] for n in several[:2]]
            raise DataError(f"{first} and {second}: the labels of both would have one name.")
        for n in several:
            depth[n] += 1


def _parts(name: str | None, short: bool = False) -> list[str]:
    """Folders and name, but for folders that only hold images; `short`: below the last of these."""
    parts = [p for p in PurePosixPath(name or "").parts if p not in ("/", ".", "..")]
    plain = [n for n, p in enumerate(parts[:-1]) if p in ("images", "JPEGImages")]
    if short:
        return parts[plain[-1] + 1 :] if plain else parts[-1:] if (name or "").startswith("..") else parts
    return [p for n, p in enumerate(parts) if n not in plain]


def _put(source: Path, place: Path, placing: Placing) -> str:
    """A link to an image or its copy; one that is in its place already stays."""
    if place.exists() and os.path.samefile(source, place):
        return str(place)
    try:
        if place.is_symlink():
            place.unlink()  # of an earlier run
        elif place.exists():
            raise DataError(f"{place} is there, and isn't {source}.")
        place.parent.mkdir(parents=True, exist_ok=True)
        if placing == "copy":
            shutil.copyfile(source, place)
        else:
            start = os.path.realpath(place.parent)
            place.symlink_to(os.path.relpath(os.path.realpath(source), start))
    except OSError as error:
        raise DataError(f"{place}: the image can't be put there: {error}.") from error
    return str(place)
