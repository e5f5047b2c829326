"""Boxes as CSV, a line a box: TensorFlow's (filename, width, height, class, xmin ...) and Open Images'
(ImageID ...).

TensorFlow's corners are pixels. Open Images' are shares of the image, whose size is read from it; its label
names (`/m/01g317`) become words by a `class-descriptions*.csv` beside the file; group boxes are crowds.
https://storage.googleapis.com/openimages/web/download_v7.html.
"""

import csv
from pathlib import Path

from boxwright.data.builder import TableBuilder, as_flag, as_integer, as_number
from boxwright.data.formats.files import read_lines, resolve_image
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near
from boxwright.data.formats.records import find_by_stem, size_of
from boxwright.data.tables import Tables
from boxwright.errors import DataError

TENSORFLOW = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
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
        DataError: its first line names the columns of neither.
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
        if not open_images and not set(TENSORFLOW) <= set(header):
            raise DataError(f"{path}: columns {', '.join(header)!r:.80}, expected {', '.join(TENSORFLOW)}.")
        for column in sorted(set(header) - (KNOWN if open_images else set(TENSORFLOW))):
            builder.warning("unknown-column", str(path), f"'{column}' is not read.")
        names = _descriptions(builder, path) if open_images else {}
        images: dict[str, tuple[int, tuple[int | None, int | None]]] = {}
        for number, row in enumerate(rows, 2):
            if len(row) != len(header):
                found = f"{len(row)} columns, expected {len(header)}."
                builder.error("annotation", f"{path}, line {number}", found, True)
            elif open_images:
                _read_open_images(builder, path, number, dict(zip(header, row)), names, images, folders)
            else:
                _read_tensorflow(builder, path, number, dict(zip(header, row)), images, folders)
    except csv.Error as error:
        builder.error("annotation", f"{path}, line {number + 1}", f"not CSV: {error}.", True)
    return builder.build()


def _read_tensorflow(
    builder: TableBuilder, path: Path, number: int, row: dict, images: dict, folders
) -> None:
    place, name = f"{path}, line {number}", row["filename"]
    size = as_integer(row["width"]), as_integer(row["height"])
    corners = [as_number(row[c]) for c in TENSORFLOW[4:]]
    if not name or not row["class"] or None in corners or None in size:
        builder.error("bbox", place, f"{','.join(row.values())!r:.80}, expected names and numbers.", True)
        return
    if name not in images:
        images[name] = builder.image(name, resolve_image(name, folders), *size), size
    elif images[name][1] != size:
        builder.error("image-size", place, f"'{name}' is {size[0]} x {size[1]}, and another size before.")
    x0, y0, x1, y1 = (c for c in corners if c is not None)
    category = builder.category(row["class"])
    builder.box((f"{path}, line", number), images[name][0], category, (x0, y0, x1 - x0, y1 - y0))


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
        image = (
            find_by_stem(stem, folders) if "/" not in stem and "\\" not in stem and "\0" not in stem else None
        )
        size = size_of(builder, image)
        images[stem] = (
            builder.image(image.name if image else f"{stem}.jpg", str(image) if image else None, *size),
            size,
        )
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
