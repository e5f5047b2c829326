"""What readers of JSON and of folders have in common."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from boxwright.data.builder import Corners, TableBuilder, as_numbers, as_shape
from boxwright.data.formats.files import read_json
from boxwright.data.images import IMAGE_SUFFIXES, image_size
from boxwright.errors import DataError


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
