"""Boxes as CSV, a line a box: in pixels (filename, width, height, class, xmin ..., as TensorFlow has it)
or in Open Images' shares (ImageID ...).

Columns of pixels go by any of the names in `ROLES`. Without a size it is read from the image, and without
classes all boxes are of one. `bbox` is `[x, y, width, height]`. A line with an image alone is of background.

Open Images' corners are shares of the image, whose size is read from it; its label names (`/m/01g317`) become
words by a `class-descriptions*.csv` beside the file; group boxes are crowds.
https://storage.googleapis.com/openimages/web/download_v7.html.
"""

import csv
from pathlib import Path

from boxwright.data.builder import TableBuilder, as_flag, as_integer, as_number, as_numbers
from boxwright.data.formats.files import read_lines, resolve_image
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near
from boxwright.data.formats.records import find_by_stem, size_of
from boxwright.data.images import IMAGE_SUFFIXES
from boxwright.data.tables import Tables
from boxwright.errors import DataError

ROLES = {
    "image": ("filename", "file_name", "image_path", "image_name", "image_id", "imageid", "image", "path"),
    "class": ("class", "label", "class_name", "category", "name"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "bbox": ("bbox",),
}
CORNERS = ("xmin", "ymin", "xmax", "ymax")
ONE_CLASS = "object"
OPEN_IMAGES = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
KNOWN = {
    *OPEN_IMAGES, "Source", "Confidence", "IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction",
    "IsInside", "XClick1X", "XClick2X", "XClick3X", "XClick4X", "XClick1Y", "XClick2Y", "XClick3Y",
    "XClick4Y",
}  # fmt: skip
DESCRIPTIONS = "class-descriptions*.csv"


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a CSV of either kind.

    Raises:
        DataError: its first line has the columns of neither.
    """
    options.only("csv", "images")
    builder = TableBuilder(path.stem)
    lines, clean = read_lines(path)
    if not clean:
        builder.warning("encoding", str(path), "bytes that are not UTF-8.")
    rows = csv.reader(lines, strict=True)
    folders = [options.images] if options.images else near(path, path.parent)
    number = 0
    try:
        header = [column.strip() for column in next(rows, [])]
        open_images = set(OPEN_IMAGES) <= set(header)
        roles = {} if open_images else _roles(path, header)
        for column in sorted(set(header) - (KNOWN if open_images else set(roles))):
            builder.warning("unknown-column", str(path), f"'{column}' is not read.")
        if roles and "class" not in roles.values():
            builder.warning("category", str(path), f"no column of classes; all are '{ONE_CLASS}'.")
        if "bbox" in roles.values():
            builder.warning("bbox", str(path), "bbox is taken for x, y, width, height.")
        names = _descriptions(builder, path) if open_images else {}
        images: dict[str, tuple[int, tuple[int | None, int | None]]] = {}
        for number, row in enumerate(rows, 2):
            if len(row) != len(header):
                found = f"{len(row)} columns, expected {len(header)}."
                builder.error("annotation", f"{path}, line {number}", found, True)
            elif open_images:
                _read_open_images(builder, path, number, dict(zip(header, row)), names, images, folders)
            else:
                told = {roles[c]: value.strip() for c, value in zip(header, row) if c in roles}
                _read_pixels(builder, path, number, told, images, folders)
    except csv.Error as error:
        builder.error("annotation", f"{path}, line {number + 1}", f"not CSV: {error}.", True)
    return builder.build()


def _roles(path: Path, header: list[str]) -> dict[str, str]:
    """What the columns of boxes in pixels are, by their names in the file."""
    own = {column.lower(): column for column in reversed(header)}
    found = {}
    for role, names in ROLES.items():
        if known := [name for name in names if name in own]:
            found[own[known[0]]] = role
    there = set(found.values())
    if "image" not in there or not (there >= set(CORNERS) or "bbox" in there):
        usual = "filename, width, height, class, xmin, ymin, xmax, ymax"
        raise DataError(f"{path}: columns {', '.join(header)!r:.80}, expected {usual} or the like.")
    return found


def _read_pixels(
    builder: TableBuilder, path: Path, number: int, row: dict[str, str], images: dict, folders: list[Path]
) -> None:
    place, name, label = f"{path}, line {number}", row["image"], row.get("class", ONE_CLASS)
    size = as_integer(row.get("width", "")), as_integer(row.get("height", ""))
    background = not any(row.get(role) for role in (*CORNERS, "bbox", "class"))
    shape = _shape(row)
    if not name or (not background and (shape is None or not label)) or ("width" in row and None in size):
        builder.error("bbox", place, f"{','.join(row.values())!r:.80}, expected names and numbers.", True)
        return
    if name not in images:
        file, image = _found(name, folders)
        known = size if None not in size else size_of(builder, image)
        images[name] = builder.image(file, image, *known), size
    elif images[name][1] != size:
        builder.error("image-size", place, f"'{name}' is {size[0]} x {size[1]}, and another size before.")
    if shape is not None and not background:
        builder.box((f"{path}, line", number), images[name][0], builder.category(label), shape)


def _found(name: str, folders: list[Path]) -> tuple[str, str | None]:
    """Name and place of an image that may stand without its suffix."""
    if Path(name).suffix.lower() in IMAGE_SUFFIXES or "/" in name or "\\" in name or "\0" in name:
        return name, resolve_image(name, folders)
    image = find_by_stem(name, folders)
    return (f"{name}.jpg", None) if image is None else (image.name, str(image))


def _shape(row: dict[str, str]) -> tuple[float, float, float, float] | None:
    """Left, top, width and height; None where they aren't numbers."""
    if "bbox" in row:
        return as_numbers(row["bbox"].strip("[]() ").replace(",", " ").split())
    corners = as_numbers([row[name] for name in CORNERS])
    if corners is None:
        return None
    x0, y0, x1, y1 = corners
    return x0, y0, x1 - x0, y1 - y0


def _read_open_images(
    builder, path: Path, number: int, row: dict, names: dict, images: dict, folders
) -> None:
    place, stem = f"{path}, line {number}", row["ImageID"]
    corners = [as_number(row[c]) for c in ("XMin", "YMin", "XMax", "YMax")]
    group = as_flag(row.get("IsGroupOf", "0"))
    if not stem or not row["LabelName"] or None in corners:
        builder.error(
            "bbox", place, f"{','.join(row.values())!r:.80}, expected an id, a label and shares.", True
        )
        return
    if stem not in images:
        name, image = _found(stem, folders)
        size = size_of(builder, image)
        images[stem] = builder.image(name, image, *size), size
    image_id, (width, height) = images[stem]
    if width is None or height is None:
        builder.error("missing-image", place, f"shares of image '{stem}', whose size isn't known.", True)
        return
    x0, y0, x1, y1 = (c for c in corners if c is not None)
    shape = (x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height)
    label = names.get(row["LabelName"], row["LabelName"])
    builder.box((f"{path}, line", number), image_id, builder.category(label), shape, crowd=bool(group))


def _descriptions(builder: TableBuilder, path: Path) -> dict[str, str]:
    """Words of label names, from the file beside."""
    file = next(iter(sorted(path.parent.glob(DESCRIPTIONS))), None)
    if file is None:
        builder.warning(
            "category", str(path), f"no {DESCRIPTIONS} beside it; label names are taken as they are."
        )
        return {}
    lines, _ = read_lines(file)
    return {row[0]: row[1] for row in csv.reader(lines) if len(row) == 2}
