"""CreateML: a JSON list of images with boxes by their centres, in pixels.

https://developer.apple.com/documentation/createml/building-an-object-detector-data-source.
"""

from pathlib import Path

from boxwright.data.builder import TableBuilder, as_number
from boxwright.data.formats.files import resolve_image
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near
from boxwright.data.formats.records import read_list, size_of, take, tell_unknown
from boxwright.data.tables import Tables

NAMES = ("image", "imagefilename")
CENTER = ("x", "y", "width", "height")


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a list of images.

    Raises:
        DataError: not a JSON list.
    """
    options.only("createml", "images")
    builder = TableBuilder(path.stem)
    folders = [options.images] if options.images else near(path, path.parent)
    for n, record in enumerate(read_list(path, "images")):
        place = f"{path}, image {n}"
        key = next((k for k in NAMES if isinstance(record, dict) and k in record), NAMES[0])
        name = take(builder, place, record, key, str)
        if name is None:
            continue
        annotations = take(
            builder, place, record, "annotation" if "annotation" in record else "annotations", list, []
        )
        tell_unknown(builder, place, record, (*NAMES, "annotations", "annotation", "verified"), "CreateML")
        where = resolve_image(name, folders)
        image_id = builder.image(name, where, *size_of(builder, where))
        for k, annotation in enumerate(annotations):
            spot = f"{place}, annotation {k}"
            label = take(builder, spot, annotation, "label", str)
            box = take(builder, spot, annotation, "coordinates", dict)
            numbers = [as_number(box.get(c)) for c in CENTER] if box is not None else []
            if label is None or not numbers:
                continue
            tell_unknown(builder, spot, annotation, ("label", "coordinates"), "CreateML")
            if None in numbers:
                builder.error("bbox", spot, f"coordinates {box!r:.80}, expected {', '.join(CENTER)}.", True)
                continue
            x, y, w, h = (v for v in numbers if v is not None)
            shape = (x - w / 2, y - h / 2, w, h)
            builder.box((f"{place}, annotation", k), image_id, builder.category(label), shape)
    return builder.build()
