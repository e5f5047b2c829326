"""Plain text of the metric toolkits: a file an image, a line a box, `class [score] a b c d`.

The four numbers are, by the option `layout`: `xyxy` left top right bottom (default), `xywh` left top width
height, `relative` centre x, centre y, width, height as shares of the image (whose size must be known).
"""

from pathlib import Path

from boxwright.data.builder import TableBuilder, as_number, as_numbers
from boxwright.data.formats.files import read_lines, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.records import find_by_stem
from boxwright.data.images import image_size
from boxwright.data.tables import Tables
from boxwright.errors import DataError

MAX_BYTES = 64 << 20


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a text file or every .txt of a folder.

    Raises:
        DataError: there is none.
    """
    options.only("text", "layout", "images")
    files = [path] if path.is_file() else sorted(path.glob("*.txt"))
    if not files:
        raise DataError(f"{path}: no .txt file there.")
    builder = TableBuilder(path.stem)
    layout = options.layout or "xyxy"
    folders = (
        [options.images] if options.images else [path, path / "images", path.parent / "images", path.parent]
    )
    for file in files:
        image = find_by_stem(file.stem, folders)
        size = _size(builder, image)
        if layout == "relative" and size is None:
            builder.error("missing-image", str(file), "relative numbers need the image's size.", True)
            continue
        name = image.name if image else f"{file.stem}.jpg"
        image_id = builder.image(name, str(image) if image else None, *(size or (None, None)))
        lines, clean = read_lines(file, MAX_BYTES)
        if not clean:
            builder.warning("encoding", str(file), "bytes that are not UTF-8.")
        for number, line in enumerate(lines, 1):
            if line.strip():
                _read_line(builder, f"{file}, line", number, line.split(), image_id, layout, size)
    return builder.build()


def is_text(line: str) -> bool:
    """Whether a line is one of a box."""
    words = line.split()
    return len(words) > 4 and as_numbers(words[-4:]) is not None


def write(tables: Tables, path: Path, layout: str = "xyxy") -> None:
    """Write a .txt an image into the folder `path`.

    Raises:
        DataError: a class name holds a space, two images share a name, or a size is unknown where
            `layout` is relative.
    """
    names = tables.categories["name"].to_list()
    for name in names:
        if not name or name.split() != [name]:
            raise DataError(
                f"class name '{name}' is empty or holds a space, which a line of text can't carry."
            )
    by_image = tables.boxes.partition_by("image_id", as_dict=True)
    written: dict[str, str] = {}
    for row in tables.images.iter_rows(named=True):
        name = row["file_name"] or f"{row['image_id']:06d}.jpg"
        stem = Path(name).stem
        if stem in written:
            raise DataError(f"{name} and {written[stem]} would both be {stem}.txt.")
        written[stem] = name
        if layout == "relative" and row["width"] is None:
            raise DataError(f"{name}: relative numbers need the image's size.")
        boxes = by_image.get((row["image_id"],))
        records = boxes.iter_rows(named=True) if boxes is not None else ()
        lines = [_to_line(box, names[box["category_id"]], layout, row) for box in records]
        write_atomic(path / f"{stem}.txt", "".join(lines).encode())


def _size(builder: TableBuilder, image: Path | None) -> tuple[int, int] | None:
    if image is None:
        return None
    try:
        return image_size(image)[:2]
    except DataError as error:
        builder.error("unreadable-image", str(image), str(error))
        return None


def _read_line(builder, where: str, number: int, words: list[str], image_id: int, layout: str, size) -> None:
    numbers = as_numbers(words[-4:])
    score = as_number(words[1]) if len(words) == 6 else None
    if len(words) not in (5, 6) or numbers is None or (len(words) == 6 and score is None):
        found = " ".join(words)
        builder.error(
            "bbox", f"{where} {number}", f"'{found:.60}', expected: class [score] and four numbers.", True
        )
        return
    a, b, c, d = numbers
    if layout == "xyxy":
        xywh = (a, b, c - a, d - b)
    elif layout == "xywh":
        xywh = (a, b, c, d)
    else:
        width, height = size
        xywh = ((a - c / 2) * width, (b - d / 2) * height, c * width, d * height)
    builder.box((where, number), image_id, builder.category(words[0]), xywh, score=score)


def _to_line(box: dict, name: str, layout: str, image: dict) -> str:
    x, y, w, h = (box[c] for c in "xywh")
    if layout == "xyxy":
        numbers = (x, y, x + w, y + h)
    elif layout == "xywh":
        numbers = (x, y, w, h)
    else:
        width, height = image["width"], image["height"]
        numbers = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
    score = [] if box["score"] is None else [box["score"]]
    return " ".join([name, *(f"{v:.17g}" for v in (*score, *numbers))]) + "\n"
