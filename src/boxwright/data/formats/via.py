"""VGG Image Annotator (VIA 2): a project or an annotation export in JSON, or the export in CSV.

https://www.robots.ox.ac.uk/~vgg/software/via/. Rectangles are boxes; polygons, ellipses and circles are read
as their upright hulls. The class is the region attribute called class, label, type, name, category or object,
or the only one.
"""

import csv
import io
from pathlib import Path
from typing import Any

import orjson

from boxwright.data.builder import TableBuilder, as_number, unpack
from boxwright.data.formats.files import read_json, read_lines, resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near
from boxwright.data.formats.records import box_of_points, size_of, take, tell_unknown
from boxwright.data.tables import Tables
from boxwright.errors import DataError

METADATA = "_via_img_metadata"
CLASS_KEYS = ("class", "label", "type", "name", "category", "object")
ENTRY_KEYS = {"filename", "size", "regions", "file_attributes", "fileref", "base64_img_data"}
COLUMNS = (
    "filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes",
    "region_attributes",
)  # fmt: skip
UNNAMED = "object"  # the class of regions that have no attribute


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a .json or a .csv.

    Raises:
        DataError: neither a project nor an export.
    """
    options.only("via", "images")
    builder = TableBuilder(path.stem)
    folders = [options.images] if options.images else near(path, path.parent)
    entries = _csv_entries(builder, path) if path.suffix.lower() == ".csv" else _json_entries(builder, path)
    for place, name, regions in entries:
        where = resolve_image(name, folders) or resolve_image(Path(name).name, folders)
        image_id = builder.image(name, where, *size_of(builder, where))
        for n, region in enumerate(regions):
            _read_region(builder, f"{place}, region", n, region, image_id)
    return builder.build()


def write(tables: Tables, path: Path) -> None:
    """Write an annotation export, JSON or (by the suffix) CSV; oriented boxes as polygons.

    Raises:
        DataError: an image has no name.
    """
    from boxwright.geometry.conventions import corners

    names = tables.categories["name"].to_list()
    quads, boxes, rows = corners(tables.rotated()), tables.boxes.to_dicts(), tables.rows_by_image()
    entries = []
    for row in tables.images.iter_rows(named=True):
        if row["file_name"] is None:
            raise DataError(f"image {row['image_id']}: VIA needs a file name.")
        size = Path(row["path"]).stat().st_size if row["path"] and Path(row["path"]).is_file() else -1
        regions = [_to_region(boxes[n], quads[n].tolist(), names) for n in rows[row["image_id"]]]
        entries.append((row["file_name"], size, regions))
    if path.suffix.lower() == ".csv":
        write_atomic(path, _to_csv(entries).encode())
        return
    document = {
        f"{name}{size}": {"filename": name, "size": size, "regions": regions, "file_attributes": {}}
        for name, size, regions in entries
    }
    write_atomic(path, orjson.dumps(document, option=orjson.OPT_INDENT_2))


def is_via(start: bytes) -> bool:
    """Whether the first bytes of a JSON are VIA's."""
    return b'"_via_' in start or (b'"filename"' in start and (b'"regions"' in start or b'"size"' in start))


def _to_region(box: dict, quad: list, names: list[str]) -> dict[str, Any]:
    shape: dict[str, Any] = {"name": "rect"} | dict(
        zip(("x", "y", "width", "height"), (box[c] for c in "xywh"))
    )
    if box["angle"] is not None:
        xs, ys = zip(*quad)
        shape = {"name": "polygon", "all_points_x": list(xs), "all_points_y": list(ys)}
    extra = {k: v for k, v in unpack(box["attributes"]).items() if isinstance(v, str) and k not in CLASS_KEYS}
    return {"shape_attributes": shape, "region_attributes": {"class": names[box["category_id"]]} | extra}


def _to_csv(entries: list) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, size, regions in entries:
        for n, region in enumerate(regions):
            parts = (orjson.dumps(region[f"{part}_attributes"]).decode() for part in ("shape", "region"))
            writer.writerow([name, size, "{}", len(regions), n, *parts])
        if not regions:
            writer.writerow([name, size, "{}", 0, 0, "{}", "{}"])
    return buffer.getvalue()


def _json_entries(builder: TableBuilder, path: Path) -> list[tuple[str, str, list]]:
    document = read_json(path)
    if isinstance(document, dict) and METADATA in document:
        document = document[METADATA]
    if not isinstance(document, dict):
        raise DataError(f"{path}: a JSON {type(document).__name__}, expected images by key, or {METADATA}.")
    entries = []
    for key, entry in document.items():
        place = f"{path}, '{key}'"
        name = take(builder, place, entry, "filename", str)
        if name is None:
            continue
        tell_unknown(builder, place, entry, ENTRY_KEYS, "VIA")
        regions = entry.get("regions")
        if isinstance(regions, dict):  # VIA 1
            regions = list(regions.values())
        if not isinstance(regions, list):
            builder.error("annotation", place, f"regions is {regions!r:.60}, expected a list.", True)
            regions = []
        entries.append((place, name, regions))
    return entries


def _csv_entries(builder: TableBuilder, path: Path) -> list[tuple[str, str, list]]:
    lines, clean = read_lines(path)
    if not clean:
        builder.warning("encoding", str(path), "bytes that are not UTF-8.")
    rows = csv.reader(lines, strict=True)
    images: dict[str, list] = {}
    counts: dict[str, int] = {}
    number = 0
    try:
        header = [column.lstrip("#") for column in next(rows, [])]
        if tuple(header) != COLUMNS:
            raise DataError(f"{path}: columns {', '.join(header)!r:.80}, expected {', '.join(COLUMNS)}.")
        for number, row in enumerate(rows, 2):
            place = f"{path}, line {number}"
            if len(row) != len(COLUMNS):
                builder.error("annotation", place, f"{len(row)} columns, expected {len(COLUMNS)}.", True)
                continue
            regions = images.setdefault(row[0], [])
            counts[row[0]] = int(row[3]) if row[3].isdigit() else -1
            shape, held = (_parsed(text) for text in row[5:7])
            if shape != {} or held != {}:
                regions.append({"shape_attributes": shape, "region_attributes": held})
    except csv.Error as error:
        builder.error("annotation", f"{path}, line {number + 1}", f"not CSV: {error}.", True)
    for name, regions in images.items():
        if counts[name] != len(regions):
            found = f"{len(regions)} regions, region_count says {counts[name]}."
            builder.error("annotation", f"{path}, '{name}'", found, True)
    return [(f"{path}, '{name}'", name, regions) for name, regions in images.items()]


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _read_region(builder: TableBuilder, where: str, n: int, region: Any, image_id: int) -> None:
    place = f"{where} {n}"
    shape = take(builder, place, region, "shape_attributes", dict)
    if shape is None:
        return
    held = region.get("region_attributes") or {}
    box = _box_of(shape)
    if box is None or not isinstance(held, dict):
        builder.error("bbox", place, f"{shape!r:.80}, expected a rectangle or a polygon.", True)
        return
    key = next((k for k in CLASS_KEYS if k in held), next(iter(held), None) if len(held) == 1 else None)
    label = held.get(key, UNNAMED) if key else UNNAMED
    if isinstance(label, dict):  # a checkbox: {"car": true}
        label = next((k for k, v in label.items() if v), UNNAMED)
    if key is None:
        builder.warning("category", place, f"no class in {held!r:.60}; '{UNNAMED}' is taken.")
    extra = {k: v for k, v in held.items() if k != key}
    builder.box((where, n), image_id, builder.category(str(label)), box, attributes=extra)


def _box_of(shape: dict) -> tuple[float, ...] | None:
    kind = shape.get("name")
    if kind == "rect":
        numbers = [as_number(shape.get(k)) for k in ("x", "y", "width", "height")]
        return None if None in numbers else tuple(v for v in numbers if v is not None)
    if kind in ("ellipse", "circle"):
        keys = ("cx", "cy", *(("rx", "ry") if kind == "ellipse" else ("r", "r")))
        numbers = [as_number(shape.get(k)) for k in keys]
        if None in numbers:
            return None
        x, y, a, b = (v for v in numbers if v is not None)
        return x - a, y - b, 2 * a, 2 * b
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    if kind not in ("polygon", "polyline") or not isinstance(xs, list) or not isinstance(ys, list):
        return None
    return box_of_points(list(zip(xs, ys))) if len(xs) == len(ys) else None
