"""VisDrone-DET: a text file an image in `annotations`, images in `images`.

Zhu et al., Detection and Tracking Meet Drones Challenge, TPAMI 2021; the toolkit's readme. A line is: left,
top, width, height, score, category, truncation, occlusion. Of truth a score of 0 marks what isn't judged, as
the category 0 (ignored regions) does; of results it is the confidence.
"""

from pathlib import Path

from boxwright.data.builder import TableBuilder, as_integer, as_number
from boxwright.data.formats.files import read_lines
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.records import lines_of_images
from boxwright.data.tables import Tables
from boxwright.errors import DataError

NAMES = (
    "ignored-regions", "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle",
    "awning-tricycle", "bus", "motor", "others",
)  # fmt: skip
WORDS = 8
MAX_BYTES = 16 << 20


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a folder that holds annotations and images, or one of annotation files.

    Raises:
        DataError: no annotation files there.
    """
    options.only("visdrone", "images")
    folder = path / "annotations" if (path / "annotations").is_dir() else path
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder}: no annotation file.")
    folders = [options.images] if options.images else [folder.parent / "images", folder]
    builder = TableBuilder(path.resolve().name)
    for n, name in enumerate(NAMES):
        builder.category(name, n)
    for where, number, line, image_id in lines_of_images(builder, files, folders, ".jpg"):
        _read_line(builder, where, number, line, image_id)
    return builder.build()


def is_visdrone(path: Path) -> bool:
    """Whether a folder holds annotations of eight numbers between commas."""
    folder = path / "annotations" if (path / "annotations").is_dir() else path
    file = next(iter(sorted(folder.glob("*.txt"))), None)
    if file is None:
        return False
    line = next((line for line in read_lines(file, MAX_BYTES)[0] if line.strip()), "")
    words = line.strip().rstrip(",").split(",")
    return len(words) == WORDS and all(as_number(word) is not None for word in words)


def _read_line(builder: TableBuilder, where: str, number: int, line: str, image_id: int) -> None:
    words = line.strip().rstrip(",").split(",")
    numbers = [as_number(word) for word in words]
    category = as_integer(words[5]) if len(words) == WORDS else None
    if None in numbers or category is None or not 0 <= category < len(NAMES):
        expected = f"eight numbers, the sixth a category of 0 to {len(NAMES) - 1}"
        builder.error("bbox", f"{where} {number}", f"'{line.strip():.80}', expected {expected}.", True)
        return
    x, y, w, h, score, _, truncation, occlusion = (v for v in numbers if v is not None)
    judged = score != 0 and category != 0
    builder.box(
        (where, number),
        image_id,
        category,
        (x, y, w, h),
        score=score if 0 < score < 1 else None,
        ignore=not judged,
        attributes={"truncation": truncation, "occlusion": occlusion},
    )
