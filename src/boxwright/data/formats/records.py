"""What readers of JSON and of folders have in common."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from boxwright.data.builder import Corners, TableBuilder, as_numbers, as_shape
from boxwright.data.formats.files import read_json, read_lines
from boxwright.data.images import IMAGE_SUFFIXES, image_size
from boxwright.errors import DataError

MAX_BYTES = 64 << 20  # of the labels of an image


def tell_unknown(builder: TableBuilder, place: str, record: dict, known: Iterable[str], whose: str) -> None:
    """Warn of keys that a format doesn't have: a misspelt one holds something that isn't read."""
    for key in sorted(record.keys() - set(known)):
        builder.warning("unknown-key", place, f"'{key}' is not {whose}'s; not read.")


def take(builder: TableBuilder, place: str, record: Any, key: str, kind: type, default: Any = None) -> Any:
    """The value of a key that has to be there; `default` and an error where it isn't one of `kind`."""
    value = record.get(key) if isinstance(record, dict) else None
    if isinstance(value, kind) and not (kind is not bool and isinstance(value, bool)):
        return value
    found = f"{key} is {value!r:.60}" if isinstance(record, dict) else f"{record!r:.60}"
    builder.error("annotation", place, f"{found}, expected {NAMES[kind]}.", True)
    return default


NAMES = {list: "a list", dict: "an object", str: "text", int: "a whole number", float: "a number"}


def read_list(path: Path, what: str) -> list:
    """A JSON file that is a list.

    Raises:
        DataError: it isn't.
    """
    document = read_json(path)
    if not isinstance(document, list):
        raise DataError(f"{path}: a JSON {type(document).__name__}, expected a list of {what}.")
    return document


def read_object(path: Path, *keys: str) -> dict:
    """A JSON file that is an object with some keys.

    Raises:
        DataError: it isn't.
    """
    document = read_json(path)
    missing = [key for key in keys if not isinstance(document, dict) or key not in document]
    if not isinstance(document, dict) or missing:
        raise DataError(
            f"{path}: a JSON {type(document).__name__}, expected an object with {', '.join(keys)}."
        )
    return document


def box_of_corners(values: Any) -> Corners | None:
    """x, y, w, h of left, top, right and bottom in any order; None where they aren't four numbers."""
    corners = as_numbers(values)
    if corners is None:
        return None
    (x0, x1), (y0, y1) = sorted(corners[0::2]), sorted(corners[1::2])
    return x0, y0, x1 - x0, y1 - y0


def box_of_points(points: Any) -> Corners | None:
    """x, y, w, h of the upright hull of two points or more; None where they aren't points."""
    numbers = (
        [as_shape(p, 2) for p in points]
        if isinstance(points, Sequence) and not isinstance(points, str)
        else []
    )
    if len(numbers) < 2 or None in numbers:
        return None
    xs, ys = zip(*(n for n in numbers if n is not None))
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def find_by_stem(stem: str, folders: Sequence[Path]) -> Path | None:
    """The image of a label file: the first in `folders` with its stem."""
    candidates = (folder / f"{stem}{suffix}" for folder in folders for suffix in IMAGE_SUFFIXES)
    return next((c for c in candidates if c.is_file()), None)


def size_of(builder: TableBuilder, path: str | Path | None) -> tuple[int | None, int | None]:
    """Width and height of an image that is there."""
    if path is None or not Path(path).is_file():
        return None, None
    try:
        return image_size(path)[:2]
    except DataError as error:
        builder.error("unreadable-image", str(path), str(error))
        return None, None


def lines_of_images(
    builder: TableBuilder, files: Sequence[Path], folders: Sequence[Path], suffix: str
) -> Iterator[tuple[str, int, str, int]]:
    """The lines of label files that are called as their images are: where, its number, the line, the image's
    id.

    Args:
        builder: gets an image a file.
        files: of labels.
        folders: where the images may be.
        suffix: that an image which isn't there is taken to have.
    """
    for file in files:
        image = find_by_stem(file.stem, folders)
        name = image.name if image else f"{file.stem}{suffix}"
        image_id = builder.image(name, str(image) if image else None, *size_of(builder, image))
        lines, clean = read_lines(file, MAX_BYTES)
        if not clean:
            builder.warning("encoding", str(file), "bytes that are not UTF-8.")
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{file}, line", number, line, image_id
