"""Pascal VOC: one XML an image, and ImageSets/Main/*.txt that list images; with roLabelImg's oriented boxes.

Everingham et al., The PASCAL VOC development kit. Corners are read as continuous coordinates: width is xmax
- xmin. An oriented box is a `robndbox` of cx, cy, w, h and angle (radians, clockwise). Elements the tables
have no column for travel as attributes and are written back.
"""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from defusedxml.ElementTree import fromstring

from boxwright.data.builder import TableBuilder, as_flag, as_integer, as_shape, unpack
from boxwright.data.formats.files import read_bytes, read_lines, resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.images import IMAGE_SUFFIXES
from boxwright.data.tables import Tables
from boxwright.errors import DataError, nearest

MAX_XML_BYTES = 64 << 20
MAX_DEPTH = 20
IMAGE_TAGS = {"folder", "filename", "path", "source", "size", "segmented", "owner", "object"}
OBJECT_TAGS = {"name", "pose", "truncated", "difficult", "occluded", "occlusion", "bndbox", "part"} | {
    "actions", "point", "id", "attributes", "type", "deleted", "verified", "polygon", "robndbox", "extra",
}  # fmt: skip
CORNERS = ("xmin", "ymin", "xmax", "ymax")
ORIENTED = ("cx", "cy", "w", "h", "angle")


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a VOC folder, a VOCdevkit of several, or a bare folder of XML files.

    Raises:
        DataError: no annotations there, or no such list.
    """
    options.only("voc", "list_name", "images", "angles")
    if not path.is_dir():
        raise DataError(f"{path}: {'a file' if path.exists() else 'no such folder'}, expected a VOC folder.")
    builder = TableBuilder(path.resolve().name, options.angles)
    roots = [path] if _annotation_folder(path) else sorted(p for p in path.iterdir() if _annotation_folder(p))
    if not roots:
        raise DataError(f"{path}: no Annotations folder and no XML file.")
    for root in roots:
        prefix = "" if root == path else f"{root.name}/"
        _read_folder(builder, root, prefix, options)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write Annotations/*.xml and ImageSets/Main/all.txt, beside the folder JPEGImages.

    Raises:
        DataError: two images would share one XML file.
    """
    write_parts({"all": tables}, path)


def write_parts(parts: dict[str, Tables], path: Path) -> None:
    """Write the XML files of all parts, and a list ImageSets/Main/PART.txt of each.

    Raises:
        DataError: as `write`.
    """
    stems: dict[str, str] = {}
    for part, tables in parts.items():
        by_image = tables.boxes.partition_by("image_id", as_dict=True)
        names = tables.categories["name"].to_list()
        listed = []
        for row in tables.images.iter_rows(named=True):
            name = row["file_name"] or f"{row['image_id']:06d}.jpg"
            stem = str(Path(name).with_suffix("")).replace("/", "__")
            if stem in stems:
                raise DataError(f"{name} and {stems[stem]} would both be Annotations/{stem}.xml.")
            stems[stem] = name
            listed.append(f"{stem}\n")
            boxes = by_image.get((row["image_id"],))
            records = boxes.iter_rows(named=True) if boxes is not None else ()
            write_atomic(path / "Annotations" / f"{stem}.xml", _to_xml(row, name, records, names))
        write_atomic(path / "ImageSets" / "Main" / f"{part}.txt", "".join(listed).encode())


def is_voc(path: Path) -> bool:
    """Whether a folder holds annotations, or folders that do."""
    return _annotation_folder(path) is not None or any(
        (f / "Annotations").is_dir() for f in path.glob("*") if f.is_dir()
    )


def _annotation_folder(root: Path) -> Path | None:
    """`Annotations`, as VOC has it; `annotations` and the like, where people put XML files; or the folder
    itself.
    """
    if (root / "Annotations").is_dir():
        return root / "Annotations"
    if not root.is_dir():
        return None
    named = [f for f in root.iterdir() if f.name.lower() in ("annotations", "xmls", "labels") and f.is_dir()]
    return next((f for f in [root, *sorted(named)] if next(f.glob("*.xml"), None)), None)


def _read_folder(builder: TableBuilder, root: Path, prefix: str, options: ReadOptions) -> None:
    folder = _annotation_folder(root)
    assert folder is not None
    stems = _listed(builder, root, options.list_name) if options.list_name else None
    if stems is None:
        stems = sorted(p.stem for p in folder.glob("*.xml"))
    folders = (
        [options.images]
        if options.images
        else [root / "JPEGImages", root / "images", root, root.parent / "images"]
    )
    for stem in stems:
        file = folder / f"{stem}.xml"
        try:
            tree = fromstring(read_bytes(file, MAX_XML_BYTES))
            _check_depth(tree)
        except DataError as error:
            builder.error("annotation-file", str(file), str(error), True)
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            # Entities and unknown encodings are ValueErrors, refused by defusedxml and expat.
            builder.error("annotation-file", str(file), f"not usable XML: {error}.", True)
        else:
            _read_tree(builder, file, tree, stem, prefix, folders)
    if not options.list_name:
        annotated = set(stems)
        for image in sorted((root / "JPEGImages").glob("*")):
            if image.suffix.lower() in IMAGE_SUFFIXES and image.stem not in annotated:
                builder.warning("image-without-annotation", str(image), "no XML file for it; not read.")


def _check_depth(tree: ElementTree.Element) -> None:
    level, depth = [tree], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(f"elements are nested deeper than {MAX_DEPTH}")
        level, depth = [child for element in level for child in element], depth + 1


def _listed(builder: TableBuilder, root: Path, list_name: str) -> list[str]:
    lists = root / "ImageSets" / "Main"
    file = lists / f"{list_name}.txt"
    if not file.is_file():
        known = [p.stem for p in lists.glob("*.txt")]
        raise DataError(f"{file}: no such list. {nearest(list_name, known)}")
    lines, clean = read_lines(file, MAX_XML_BYTES)
    if not clean:
        builder.warning("encoding", str(file), "bytes that are not UTF-8.")
    stems: list[str] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        # The lists of one class carry 1, 0 or -1 behind the image.
        if len(words) == 2 and words[1] == "-1":
            continue
        if words and (len(words) > 2 or "/" in words[0] or "\0" in words[0]):
            builder.error("list", f"{file}, line {number}", f"'{line:.60}', expected an image id.", True)
        elif words and words[0] in stems:
            builder.warning("list", f"{file}, line {number}", f"'{words[0]}' is a duplicate.")
        elif words:
            stems.append(words[0])
    return stems


def _read_tree(builder, file: Path, tree, stem: str, prefix: str, folders: list[Path]) -> None:
    if tree.tag != "annotation":
        builder.error("annotation-file", str(file), f"root <{tree.tag}>, expected <annotation>.", True)
        return
    name = (tree.findtext("filename") or "").strip()
    if not name:
        builder.warning("image", str(file), f"no filename; {stem}.jpg is taken.")
    name = name or f"{stem}.jpg"
    path = resolve_image(name, folders)
    if path is None or not Path(path).is_file():
        matches = [m for f in folders for s in IMAGE_SUFFIXES if (m := f / f"{stem}{s}").is_file()]
        if matches:
            builder.warning("image", str(file), f"filename '{name}' isn't there; {matches[0].name} is taken.")
            name, path = matches[0].name, str(matches[0])
    size = [as_integer(tree.findtext(f"size/{side}")) for side in ("width", "height")]
    if None in size:
        found = f"{tree.findtext('size/width')} x {tree.findtext('size/height')}"
        builder.warning("image-size", str(file), f"size {found}, expected integers.")
    extra = {c.tag: _to_dict(c) for c in tree if c.tag not in ("filename", "object")}
    if isinstance(extra.get("size"), dict):
        extra["size"] = {k: v for k, v in extra["size"].items() if k not in ("width", "height")}
    for tag in extra.keys() - IMAGE_TAGS:
        builder.warning("unknown-element", str(file), f"<{tag}> is not VOC's; kept as an attribute.")
    image_id = builder.image(prefix + name, path, size[0], size[1], attributes=extra)
    for number, element in enumerate(tree.findall("object"), 1):
        _read_object(builder, file, element, number, image_id)


def _read_object(builder, file: Path, element, number: int, image_id: int) -> None:
    place = f"{file}, object {number}"
    name = (element.findtext("name") or "").strip()
    if not name:
        builder.error("category", place, "no name.", True)
        return
    tag, keys = ("robndbox", ORIENTED) if element.find("bndbox") is None else ("bndbox", CORNERS)
    box = element.find(tag)
    if box is None:
        builder.error("bbox", place, "neither <bndbox> nor <robndbox>.", True)
        return
    shape = as_shape([box.findtext(key) for key in keys], len(keys))
    if shape is None:
        found = ", ".join(f"{key} {box.findtext(key)}" for key in keys)
        builder.error("bbox", place, f"{found}, expected {len(keys)} numbers.", True)
        return
    difficult = as_flag(element.findtext("difficult") or "0")
    if difficult is None:
        builder.error("flag", place, f"difficult is '{element.findtext('difficult')}', expected 0 or 1.")
    extra = {c.tag: _to_dict(c) for c in element if c.tag not in ("name", "difficult", tag)}
    unknown = [c.tag for c in element if c.tag not in OBJECT_TAGS] + [c.tag for c in box if c.tag not in keys]
    for other in unknown:
        builder.warning("unknown-element", place, f"<{other}> is not VOC's; kept as an attribute.")
    if tag == "bndbox":
        x1, y1, x2, y2 = shape
        shape = (x1, y1, x2 - x1, y2 - y1)
    builder.box(
        (f"{file}, object", number),
        image_id,
        builder.category(name),
        shape,
        difficult=bool(difficult),
        attributes=extra,
    )


def _to_dict(element) -> Any:
    """An element as text, or as a dict of its children; repeated children become a list."""
    if len(element) == 0:
        return (element.text or "").strip()
    result: dict[str, Any] = {}
    for child in element:
        value = _to_dict(child)
        if child.tag in result:
            first = result[child.tag]
            result[child.tag] = [*first, value] if isinstance(first, list) else [first, value]
        else:
            result[child.tag] = value
    return result


def _append(parent: ElementTree.Element, tag: str, value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _append(parent, tag, item)
        return
    child = ElementTree.SubElement(parent, tag)
    if isinstance(value, dict):
        for key, inner in value.items():
            _append(child, key, inner)
    else:
        child.text = "" if value is None else str(value)


def _numbers(keys: tuple[str, ...], values: tuple[float, ...]) -> dict[str, str]:
    return {key: f"{value:.17g}" for key, value in zip(keys, values)}


def _to_xml(image: dict, name: str, boxes, category_names: list[str]) -> bytes:
    root = ElementTree.Element("annotation")
    extra = {k: v for k, v in unpack(image["attributes"]).items() if k in IMAGE_TAGS}
    _append(root, "folder", extra.pop("folder", "JPEGImages"))
    _append(root, "filename", name)
    depth = extra.pop("size", None)
    sides = {k: image[k] for k in ("width", "height") if image[k] is not None}
    _append(root, "size", sides | (depth if isinstance(depth, dict) else {"depth": 3}))
    for tag, value in extra.items():
        _append(root, tag, value)
    for box in boxes:
        element = ElementTree.SubElement(root, "object")
        _append(element, "name", category_names[box["category_id"]])
        held = {k: v for k, v in unpack(box["attributes"]).items() if k in OBJECT_TAGS - {"id", "type"}}
        defaults = {"pose": "Unspecified", "truncated": 0}
        if box["angle"] is not None:
            defaults["type"] = "robndbox"
        for tag, value in (defaults | held | {"difficult": int(box["difficult"])}).items():
            _append(element, tag, value)
        x, y, w, h = (box[c] for c in "xywh")
        if box["angle"] is None:
            _append(element, "bndbox", _numbers(CORNERS, (x, y, x + w, y + h)))
        else:
            _append(element, "robndbox", _numbers(ORIENTED, (x + w / 2, y + h / 2, w, h, box["angle"])))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8")
