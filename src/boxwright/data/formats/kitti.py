"""KITTI object labels: a text file an image in `label_2`, images in `image_2`.

Geiger et al., Are we ready for autonomous driving? The KITTI vision benchmark suite, CVPR 2012; the
development kit's readme. A line is: type truncated occluded alpha left top right bottom and seven numbers in
space, perhaps a score. `DontCare` marks ignored regions.
"""

from pathlib import Path
from typing import Any

from boxwright.data.builder import TableBuilder, as_number
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.records import lines_of_images
from boxwright.data.tables import Tables
from boxwright.errors import DataError

LABELS, IMAGES = ("label_2", "labels", "label"), ("image_2", "images", "image")
IGNORED = "DontCare"
PLAIN, SCORED = 15, 16  # words of a line


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a folder that holds label_2 and image_2, or one of label files.

    Raises:
        DataError: no label files there.
    """
    options.only("kitti", "images")
    folder = next((path / name for name in LABELS if (path / name).is_dir()), path)
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder}: no label file.")
    root = folder.parent
    folders = [options.images] if options.images else [*(root / name for name in IMAGES), folder]
    builder = TableBuilder(path.resolve().name)
    for where, number, line, image_id in lines_of_images(builder, files, folders, ".png"):
        _read_line(builder, where, number, line.split(), image_id)
    return builder.build()


def _read_line(builder: TableBuilder, where: str, number: int, words: list[str], image_id: int) -> None:
    numbers = [as_number(word) for word in words[1:]]
    if len(words) not in (PLAIN, SCORED) or None in numbers:
        found = f"'{' '.join(words):.80}'"
        builder.error("bbox", f"{where} {number}", f"{found}, expected a type and 14 or 15 numbers.", True)
        return
    values = [v for v in numbers if v is not None]
    x0, y0, x1, y1 = values[3:7]
    attributes: dict[str, Any] = dict(zip(("truncated", "occluded", "alpha"), values))
    builder.box(
        (where, number),
        image_id,
        builder.category(words[0]),
        (x0, y0, x1 - x0, y1 - y0),
        score=values[14] if len(words) == SCORED else None,
        ignore=words[0] == IGNORED,
        attributes=attributes,
    )
