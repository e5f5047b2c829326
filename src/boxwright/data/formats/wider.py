"""WIDER FACE's labels: one text file for all images, in any of the three notations that people have.

The official one (Yang et al., WIDER FACE, CVPR 2016): a path, a count, and of each face `x y w h blur
expression illumination invalid occlusion pose`; invalid faces are neither objects nor background.
RetinaFace's (Deng et al., CVPR 2020): `# path`, and of each face `x y w h`, five times `x y hidden`, blur; -1
stands for no landmarks. YuNet's labelv2: `# path width height`, and of each face `x1 y1 x2 y2` and perhaps
landmarks.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.data.builder import TableBuilder, as_integer, as_number
from boxwright.data.formats.files import read_lines, resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near
from boxwright.data.formats.records import size_of
from boxwright.data.images import IMAGE_SUFFIXES
from boxwright.data.tables import LANDMARKS, Tables
from boxwright.errors import DataError

MAX_BYTES = 256 << 20
OFFICIAL = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
FACE = "face"
NO_LANDMARKS = " ".join(["-1"] * 3 * LANDMARKS)


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a file of labels; all boxes are of the category "face".

    Raises:
        DataError: nothing in it is a label.
    """
    options.only("wider", "images")
    lines, clean = read_lines(path, MAX_BYTES)
    builder = TableBuilder(path.stem)
    builder.category(FACE)
    if not clean:
        builder.warning("encoding", str(path), "bytes that are not UTF-8.")
    folders = [options.images] if options.images else _folders(path)
    image, where = None, f"{path}, line"
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if words[0] == "#" or as_number(words[0]) is None:
            _check_count(builder, image)
            image = _read_image(builder, f"{where} {number}", words, folders)
        elif image is None:
            raise DataError(f"{path}, line {number}: '{line:.60}', expected the path of an image first.")
        elif len(words) == 1 and image.announced is None and not image.faces:
            image.announced = as_integer(words[0])
        else:
            image.faces += 1
            _read_face(builder, (where, number), words, image)
    if image is None:
        raise DataError(f"{path}: no image is named in it.")
    _check_count(builder, image)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write RetinaFace's notation, which alone has landmarks; every box is a face there.

    Raises:
        DataError: an image has no name.
    """
    by_image = tables.boxes.partition_by("image_id", as_dict=True)
    lines = []
    for row in tables.images.iter_rows(named=True):
        if row["file_name"] is None:
            raise DataError(f"{path}: image {row['image_id']} has no file name.")
        lines.append(f"# {row['file_name']}")
        boxes = by_image.get((row["image_id"],))
        lines += [_to_line(box) for box in (boxes.iter_rows(named=True) if boxes is not None else ())]
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())


def is_wider(start: bytes) -> bool:
    """Whether a text file begins as one of the three notations does: with the path of a picture."""
    first, count, *_ = [*start.decode(errors="replace").splitlines(), "", ""]
    pictures = [word for word in first.split() if word.lower().endswith(IMAGE_SUFFIXES)]
    return bool(pictures) and (first.startswith("#") or count.strip().isdigit())


def _folders(path: Path) -> list[Path]:
    """Where the images may be: beside the labels, or in the official archives' folders beside theirs."""
    above = [path.parent, path.parent.parent]
    official = [folder / f"WIDER_{part}" / "images" for folder in above for part in ("train", "val", "test")]
    return [*near(path, path.parent), *(folder for folder in official if folder.is_dir())]


@dataclass
class _Image:
    """An image whose faces are being read.

    Attributes:
        place: its line.
        row: its id.
        corners: faces are given by their corners, as they are where the image's size is.
        announced: faces, by the official notation.
        faces: lines read.
    """

    place: str
    row: int
    corners: bool
    announced: int | None = None
    faces: int = 0


def _check_count(builder: TableBuilder, image: _Image | None) -> None:
    if image is None or image.announced is None:
        return
    if image.faces != image.announced and (image.announced, image.faces) != (0, 1):
        message = f"{image.announced} faces are announced, {image.faces} follow."
        builder.error("count", image.place, message)


def _read_image(builder: TableBuilder, place: str, words: list[str], folders: list[Path]) -> _Image:
    words = words[1:] if words[0] == "#" else words
    size = [as_integer(word) for word in words[-2:]] if len(words) > 2 else [None, None]
    sized = None not in size
    name = " ".join(words[:-2] if sized else words)
    if not name:
        builder.error("image", place, "no path of an image.")
    found = resolve_image(name, folders) if name else None
    width, height = size if sized else size_of(builder, found)
    return _Image(place, builder.image(name or None, found, width, height), sized)


def _read_face(builder: TableBuilder, place: tuple[str, int], words: list[str], image: _Image) -> None:
    numbers = [as_number(word) for word in words]
    known = (4, 4 + len(OFFICIAL), 4 + 3 * LANDMARKS, 5 + 3 * LANDMARKS)
    if len(words) not in known or None in numbers:
        found = " ".join(words)
        message = f"'{found:.60}', expected a box, and six attributes or {LANDMARKS} landmarks."
        builder.error("bbox", f"{place[0]} {place[1]}", message, True)
        return
    x, y, w, h, *rest = (float(n) for n in numbers if n is not None)
    if image.corners:
        w, h = w - x, h - y
    if len(rest) == len(OFFICIAL):
        if image.announced == 0 and w == h == 0:
            return  # an image without faces has one of zeros
        attributes = dict(zip(OFFICIAL, rest))
        builder.box(place, image.row, 0, (x, y, w, h), ignore=rest[3] == 1, attributes=attributes)
        return
    points = [v for n in range(0, 3 * LANDMARKS, 3) for v in rest[n : n + 2]]
    landmarks = points if points and -1 not in points else None
    hidden = [n for n in range(LANDMARKS) if rest[3 * n + 2] > 0] if landmarks else []
    attributes: dict[str, Any] = {"hidden_landmarks": hidden} if hidden else {}
    if len(rest) > 3 * LANDMARKS:
        attributes["blur"] = rest[-1]
    builder.box(place, image.row, 0, (x, y, w, h), landmarks=landmarks, attributes=attributes)


def _to_line(box: dict) -> str:
    corner = " ".join(f"{box[c]:.17g}" for c in "xywh")
    if box["landmarks"] is None:
        return f"{corner} {NO_LANDMARKS} 0"
    points = box["landmarks"]
    return f"{corner} " + " ".join(f"{x:.17g} {y:.17g} 0" for x, y in zip(points[::2], points[1::2])) + " 0"
