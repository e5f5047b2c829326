"""CrowdHuman odgt: a JSON object a line, with head, visible and full boxes of each person.

Shao et al., CrowdHuman, arXiv:1805.00123; https://www.crowdhuman.org/download.html. The file has no image
sizes; they are read from `id_hw_*.json` files beside it ({ID: [height, width]}) or from the images where
these are found. Kept as attributes: the other boxes of a person.
"""

from pathlib import Path
from typing import Any

import orjson

from boxwright.data.builder import TableBuilder, as_flag, as_integer, as_numbers, unpack
from boxwright.data.formats.coco import image_folders
from boxwright.data.formats.files import read_json, read_lines, resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.images import IMAGE_SUFFIXES, image_size
from boxwright.data.tables import Tables
from boxwright.errors import DataError

BOX_KEY = {"full": "fbox", "visible": "vbox", "head": "hbox"}
IGNORED_TAG = "mask"  # regions that no one annotated: reflections, crowds, pictures of people
DETAIL_KEYS = {"ignore", "box_id", "occ", "unsure"}
GTBOX_KEYS = {"tag", "fbox", "vbox", "hbox", "extra", "head_attr"}


def read(path: Path, options: ReadOptions) -> Tables:
    """Read an odgt file; `options.boxes` chooses full (default), visible or head boxes.

    Raises:
        DataError: the file can't be read.
    """
    options.only("odgt", "boxes", "images")
    builder = TableBuilder(path.stem)
    kind = options.boxes or "full"
    builder.category("head" if kind == "head" else "person")
    folders = [f for base in image_folders(path, options) for f in (base, base / "Images")]
    lines, clean = read_lines(path)
    if not clean:
        builder.warning("encoding", str(path), "bytes that are not UTF-8.")
    sizes = _read_sizes(builder, path)
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            builder.error("annotation", place, f"not JSON: {error}.", True)
            continue
        name = record.get("ID") if isinstance(record, dict) else None
        if not isinstance(name, str) or not isinstance(record.get("gtboxes"), list):
            builder.error("annotation", place, f"'{line:.60}', expected an ID and gtboxes.", True)
        elif name in seen:
            builder.error("image", place, f"ID '{name}' is a duplicate.", True)
        else:
            seen.add(name)
            for key in record.keys() - {"ID", "gtboxes"}:
                builder.warning("unknown-key", place, f"'{key}' is not odgt's; kept as an attribute.")
            _read_record(builder, place, record, kind, folders, sizes)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write an odgt file. A box goes where its attributes don't hold a person's other boxes: `fbox`.

    Raises:
        DataError: an image has no name.
    """
    by_image = tables.boxes.partition_by("image_id", as_dict=True)
    lines, written = [], set()
    names = tables.categories["name"].to_list()
    for row in tables.images.iter_rows(named=True):
        if row["file_name"] is None:
            raise DataError(f"image {row['image_id']}: odgt needs a file name.")
        identity = Path(row["file_name"]).stem
        if identity in written:
            raise DataError(f"{row['file_name']}: another image's ID is '{identity}' too.")
        written.add(identity)
        boxes = by_image.get((row["image_id"],))
        records = boxes.iter_rows(named=True) if boxes is not None else ()
        gtboxes = [_to_gtbox(box, names[box["category_id"]]) for box in records]
        extra = unpack(row["attributes"])
        lines.append(orjson.dumps({"ID": identity, **extra, "gtboxes": gtboxes}))
    write_atomic(path, b"".join(line + b"\n" for line in lines))


def _read_sizes(builder: TableBuilder, path: Path) -> dict[str, tuple[int, int]]:
    """Image name to (width, height), from the id_hw files that lie beside the annotations."""
    sizes: dict[str, tuple[int, int]] = {}
    for file in sorted(path.parent.glob("id_hw*.json")):
        try:
            document = read_json(file)
        except DataError as error:
            builder.error("image-size", str(file), str(error))
            continue
        for name, pair in document.items() if isinstance(document, dict) else ():
            height, width = (
                map(as_integer, pair) if isinstance(pair, list) and len(pair) == 2 else (None, None)
            )
            if height is not None and width is not None:
                sizes[name] = (width, height)
            else:
                builder.error("image-size", f"{file}, '{name}'", f"{pair!r:.60}, expected [height, width].")
    return sizes


def _read_record(builder: TableBuilder, place: str, record: dict, kind: str, folders, sizes) -> None:
    # The format has no suffixes: CrowdHuman's images are JPEG, those of others may not be.
    name, where = _find_image(record["ID"], folders)
    size = sizes.get(record["ID"], (None, None))
    if size == (None, None) and where is not None and Path(where).is_file():
        try:
            size = image_size(where)[:2]
        except DataError as error:
            builder.error("unreadable-image", place, str(error))
    extra = {k: v for k, v in record.items() if k not in ("ID", "gtboxes")}
    image_id = builder.image(name, where, *size, attributes=extra)
    for n, box in enumerate(record["gtboxes"]):
        _read_gtbox(builder, f"{place}, box", n, box, kind, image_id)


def _find_image(identity: str, folders: list[Path]) -> tuple[str, str | None]:
    places = {
        f"{identity}{suffix}": resolve_image(f"{identity}{suffix}", folders) for suffix in IMAGE_SUFFIXES
    }
    found = (name for name, place in places.items() if place is not None and Path(place).is_file())
    name = next(found, f"{identity}.jpg")
    return name, places[name]


def _read_gtbox(builder, where: str, n: int, record: Any, kind: str, image_id: int) -> None:
    place = f"{where} {n}"
    if not isinstance(record, dict) or not isinstance(record.get("tag"), str):
        builder.error("annotation", place, f"{record!r:.60}, expected an object with a tag.", True)
        return
    if record["tag"] not in ("person", IGNORED_TAG):
        builder.warning("category", place, f"tag '{record['tag']}', expected person or mask; ignored region.")
    key = BOX_KEY[kind]
    box = record.get(key)
    xywh = as_numbers(box)
    if xywh is None:
        builder.error("bbox", place, f"{key} is {box!r:.60}, expected [x, y, width, height].", True)
        return
    flags = [record["tag"] != "person", _ignored(builder, place, record, "extra")]
    if kind == "head":
        flags.append(_ignored(builder, place, record, "head_attr"))
    for unknown in record.keys() - GTBOX_KEYS:
        builder.warning("unknown-key", place, f"'{unknown}' is not odgt's; kept as an attribute.")
    extra = {k: v for k, v in record.items() if k != key} | {"box_kind": kind}
    builder.box((where, n), image_id, 0, xywh, ignore=any(flags), attributes=extra)


def _ignored(builder: TableBuilder, place: str, record: dict, key: str) -> bool:
    details = record.get(key, {})
    if not isinstance(details, dict):
        builder.error("flag", place, f"{key} is {details!r:.60}, expected an object.")
        return False
    for unknown in details.keys() - DETAIL_KEYS:
        builder.warning("unknown-key", place, f"{key}.{unknown} is not odgt's; kept as an attribute.")
    flag = as_flag(details.get("ignore", 0))
    if flag is None:
        builder.error("flag", place, f"{key}.ignore is {details['ignore']!r:.60}, expected 0 or 1.")
    return bool(flag)


def _to_gtbox(box: dict, category: str) -> dict:
    attributes = unpack(box["attributes"])
    key = BOX_KEY.get(attributes.pop("box_kind", "full"), "fbox")
    held = {k: v for k, v in attributes.items() if k in GTBOX_KEYS}
    tag = "person" if category in ("person", "head") else category
    record = {"tag": tag} | held | {key: [box[c] for c in "xywh"]}
    if box["ignore"] and record["tag"] == "person" and not _says_ignore(record):
        extra = record.get("extra")
        record["extra"] = (extra if isinstance(extra, dict) else {}) | {"ignore": 1}
    return record


def _says_ignore(record: dict) -> bool:
    parts = (record.get(k) for k in ("extra", "head_attr"))
    return any(isinstance(p, dict) and bool(as_flag(p.get("ignore", 0))) for p in parts)
