"""CVAT for images and for video 1.1: one XML of images with boxes, or of tracks with a box a frame.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/. `rotation` is in degrees, clockwise about
the box's centre. Frames of a video are named as CVAT writes them, `frame_000017`; a track's number is the
attribute `track_id`. Polygons and masks are read as their upright hulls where they have points.
"""

from pathlib import Path
from xml.etree import ElementTree

from defusedxml.ElementTree import fromstring

from boxwright.data.builder import TableBuilder, as_integer, as_number, unpack
from boxwright.data.formats.files import read_content, resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near
from boxwright.data.formats.records import box_of_corners, box_of_points, find_by_stem, size_of
from boxwright.data.tables import Tables
from boxwright.errors import DataError

EXPORT = "annotations.xml"  # in the folder that CVAT packs
NAME = "annotations"
CORNERS = ("xtl", "ytl", "xbr", "ybr")
POINTS = ("polygon", "polyline")
TAGS = {"version", "meta", "image", "track"}
IMAGE_TAGS = {"box", *POINTS, "tag"}
IMAGE_KEYS = {"id", "name", "width", "height", "task_id", "subset"}
BOX_KEYS = {*CORNERS, "label", "points", "rotation", "source", "occluded", "z_order", "group_id", "id"}
FRAME_KEYS = {"frame", "outside", "keyframe"}


def read(path: Path, options: ReadOptions) -> Tables:
    """Read an XML of images, or of tracks, or the folder of an export.

    Raises:
        DataError: not XML of CVAT's.
    """
    options.only("cvat", "images")
    path = path / EXPORT if path.is_dir() else path
    try:
        root = fromstring(read_content(path))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not usable XML: {error}.") from error
    if root.tag != NAME:
        raise DataError(f"{path}: root <{root.tag}>, expected <{NAME}>.")
    builder = TableBuilder(path.stem, angles="degrees")
    folders = [options.images] if options.images else near(path, path.parent)
    for label in root.iterfind("meta//label/name"):
        builder.category((label.text or "").strip())
    for element in root:
        if element.tag not in TAGS:
            builder.warning("unknown-element", str(path), f"<{element.tag}> is not CVAT's; not read.")
    for element in root.iter():
        between = [element.text, *(child.tail for child in element)] if len(element) else []
        if any(text and text.strip() for text in between):
            found = " ".join(text.strip() for text in between if text and text.strip())
            builder.error(
                "annotation", f"{path}, <{element.tag}>", f"text between elements: '{found:.60}'.", True
            )
    for n, element in enumerate(root.iterfind("image")):
        _read_image(builder, f"{path}, image {n}", element, folders)
    _read_tracks(builder, path, root, folders)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write CVAT for images 1.1, which a task of the same images takes.

    Raises:
        DataError: an image has no name or size.
    """
    names = tables.categories["name"].to_list()
    root = ElementTree.Element(NAME)
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(
        ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels"
    )
    for name in names:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    by_image = tables.boxes.partition_by("image_id", as_dict=True)
    for row in tables.images.iter_rows(named=True):
        if row["file_name"] is None or row["width"] is None:
            raise DataError(f"image {row['image_id']}: CVAT needs a file name and a size.")
        keys = {
            "id": row["image_id"],
            "name": row["file_name"],
            "width": row["width"],
            "height": row["height"],
        }
        image = ElementTree.SubElement(root, "image", {k: str(v) for k, v in keys.items()})
        boxes = by_image.get((row["image_id"],))
        for box in boxes.iter_rows(named=True) if boxes is not None else ():
            _append_box(image, box, names[box["category_id"]])
    ElementTree.indent(root)
    write_atomic(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _append_box(image: ElementTree.Element, box: dict, label: str) -> None:
    x, y, w, h = (box[c] for c in "xywh")
    held = unpack(box["attributes"])
    keys = {"label": label, "occluded": str(held.get("occluded", "0")), "source": "manual"}
    keys |= {k: f"{v:.17g}" for k, v in zip(CORNERS, (x, y, x + w, y + h))}
    if box["angle"] is not None:
        keys["rotation"] = f"{box['angle'] * DEGREES % 360:.17g}"
    element = ElementTree.SubElement(image, "box", keys | {"z_order": "0"})
    extra = held.get("attributes")
    for name, value in extra.items() if isinstance(extra, dict) else ():
        ElementTree.SubElement(element, "attribute", {"name": str(name)}).text = str(value)


DEGREES = 57.29577951308232  # a radian


def _read_image(builder: TableBuilder, place: str, element: ElementTree.Element, folders: list[Path]) -> None:
    _tell_keys(builder, place, element, IMAGE_KEYS)
    name = element.get("name")
    if not name:
        builder.error("image", place, "no name.", True)
        return
    where = resolve_image(name, folders) or resolve_image(Path(name).name, folders)
    size = as_integer(element.get("width")), as_integer(element.get("height"))
    if None in size:
        builder.warning("image-size", place, f"size {element.get('width')} x {element.get('height')}.")
    image_id = builder.image(name, where, *size)
    for n, shape in enumerate(element):
        if shape.tag not in IMAGE_TAGS:
            builder.error("bbox", f"{place}, shape {n}", f"<{shape.tag}> is no box.", True)
        elif shape.tag != "tag":
            _read_shape(builder, f"{place}, shape", n, shape, shape.get("label"), image_id, {})


def _read_tracks(builder: TableBuilder, path: Path, root: ElementTree.Element, folders: list[Path]) -> None:
    frames: dict[int, int] = {}
    size = [as_integer(root.findtext(f"meta//original_size/{side}")) for side in ("width", "height")]
    for n, track in enumerate(root.iterfind("track")):
        place = f"{path}, track {n}"
        _tell_keys(builder, place, track, {"id", "label", "source", "group_id", "subset", "task_id"})
        number = as_integer(track.get("id"))
        for k, shape in enumerate(track):
            frame = as_integer(shape.get("frame"))
            if shape.tag not in ("box", *POINTS) or frame is None:
                builder.error(
                    "bbox", f"{place}, shape {k}", f"<{shape.tag}> of frame {shape.get('frame')}.", True
                )
                continue
            if shape.get("outside") == "1":
                continue
            if frame not in frames:
                stem = f"frame_{frame:06d}"
                image = find_by_stem(stem, folders)
                found = size if None not in size else size_of(builder, image)
                name = image.name if image else f"{stem}.PNG"
                frames[frame] = builder.image(name, str(image) if image else None, found[0], found[1])
            held = {"track_id": n if number is None else number}
            _read_shape(builder, f"{place}, shape", k, shape, track.get("label"), frames[frame], held)


def _read_shape(
    builder, where: str, n: int, shape: ElementTree.Element, label, image_id: int, held: dict
) -> None:
    place = f"{where} {n}"
    _tell_keys(builder, place, shape, BOX_KEYS | FRAME_KEYS)
    points = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
    box = box_of_corners([shape.get(c) for c in CORNERS]) if shape.tag == "box" else box_of_points(points)
    rotation = as_number(shape.get("rotation", "0"))
    if not label or box is None or rotation is None:
        builder.error("bbox", place, f"{dict(shape.attrib)!r:.80}, expected a label and numbers.", True)
        return
    own = {a.get("name"): (a.text or "").strip() for a in shape if a.tag == "attribute"}
    for other in shape:
        if other.tag != "attribute" or not other.get("name"):
            builder.warning("unknown-element", place, f"<{other.tag}> is not CVAT's; not read.")
    held = held | {k: shape.get(k) for k in ("occluded",) if shape.get(k) not in (None, "0")}
    x, y, w, h = box
    whole = (x + w / 2, y + h / 2, w, h, rotation if rotation < 180 else rotation - 360) if rotation else box
    builder.box(
        (where, n),
        image_id,
        builder.category(label),
        whole,
        attributes=held | ({"attributes": own} if own else {}),
    )


def _tell_keys(builder: TableBuilder, place: str, element: ElementTree.Element, known: set[str]) -> None:
    for key in sorted(element.attrib.keys() - known):
        builder.warning("unknown-key", place, f"'{key}' is not CVAT's; not read.")
