"""CityPersons evaluation JSON: COCO's layout with `im_name`, `ignore`, `vis_bbox` and `vis_ratio`.

Zhang et al., CityPersons, CVPR 2017; the layout is that of its evaluation kit.
"""

from pathlib import Path

import numpy as np
import orjson
import polars as pl

from boxwright.data.builder import as_numbers, pack, unpack
from boxwright.data.formats import coco
from boxwright.data.formats.files import read_json, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, Fault


def read(path: Path, options: ReadOptions) -> Tables:
    """Read full boxes (default) or, by `options.boxes`, visible ones; the other stays an attribute.

    Raises:
        DataError: as for COCO.
        ConfigError: head boxes, which CityPersons doesn't have.
    """
    options.only("citypersons", "boxes", "images")
    if options.boxes == "head":
        raise ConfigError("boxes is 'head', CityPersons has full and visible ones.")
    tables = coco.read(path, ReadOptions(images=options.images))
    return _swap_boxes(tables, str(path)) if options.boxes == "visible" else tables


def write(tables: Tables, path: Path) -> None:
    """Write the COCO layout under CityPersons' names."""
    coco.write(tables, path)
    document = read_json(path)
    for image in document["images"]:
        image["im_name"] = image.pop("file_name")
    for annotation in document["annotations"]:
        annotation.setdefault("ignore", 0)
        annotation.setdefault("height", annotation["bbox"][3])
        annotation.setdefault("vis_bbox", annotation["bbox"])
        annotation.setdefault("vis_ratio", 1.0)
    write_atomic(path, orjson.dumps(document))


def _swap_boxes(tables: Tables, place: str) -> Tables:
    """Put `vis_bbox` into the columns and the full box into the attribute `full_bbox`."""
    faults = list(tables.faults)
    numbers = tables.boxes.select("x", "y", "w", "h").to_numpy().copy()
    attributes = [unpack(a) for a in tables.boxes["attributes"]]
    keep = np.ones(len(numbers), dtype=bool)
    for n, held in enumerate(attributes):
        box = held.pop("vis_bbox", None)
        visible = as_numbers(box)
        usable = visible is not None and bool(np.isfinite(visible).all()) and min(visible[2:]) >= 0
        if visible is None or not usable:
            keep[n] = False
            message = f"vis_bbox is {box!r:.60}, expected [x, y, width, height]."
            faults.append(Fault("bbox", "error", f"{place}, box {n}", message, dropped=True))
            continue
        held["full_bbox"] = numbers[n].tolist()
        numbers[n] = visible
    columns = {c: pl.Series(c, numbers[:, i]) for i, c in enumerate("xywh")}
    packed = pl.Series("attributes", [pack(a) for a in attributes], dtype=pl.String)
    boxes = tables.boxes.with_columns(**columns, attributes=packed, area=columns["w"] * columns["h"])
    return Tables(tables.images, boxes.filter(keep), tables.categories, tuple(faults))
