"""`boxwright data convert`: write another format, and say what it can't hold."""

import os

import polars as pl

from boxwright.data import formats
from boxwright.data.builder import unpack
from boxwright.data.formats.placing import Placing
from boxwright.data.tables import Tables

COCO = {"score", "crowd", "ignore", "difficult", "area", "attributes", "empty", "category", "landmarks"}
# What each format carries of the optional columns. Images and categories without boxes are "empty".
HOLDS: dict[str, set[str]] = {
    "parquet": COCO | {"angle"},
    "coco": COCO,
    "citypersons": COCO,
    "coco-angle": COCO | {"angle"},
    "coco-results": {"score", "category", "landmarks"},
    "voc": {"angle", "difficult", "attributes", "category"},
    "yolo": {"angle", "score", "empty", "category"},
    "dota": {"angle", "difficult", "category"},
    "dota-results": {"angle", "score", "empty", "category"},
    "markers": {"angle", "score", "ignore", "attributes", "category"},
    "odgt": {"ignore", "attributes"},
    "eurocity": {"attributes", "category"},
    "text": {"score", "category"},
    "cvat": {"angle", "category", "empty"},
    "labelme": {"angle", "score", "difficult", "category"},
    "labelstudio": {"angle", "score", "category"},
    "via": {"angle", "category"},
    "wider": {"landmarks", "empty"},
    "mot": {"score", "ignore", "category"},
    "fiftyone": {"score", "attributes", "category", "empty"},
}
# Attributes that formats hold which lose all others.
ATTRIBUTES = {"mot": {"track_id", "visibility"}}
# Formats that have categories of their own alone.
OWN_NAMES = {"odgt": ("person", "head"), "wider": ("face",)}


def convert(
    tables: Tables,
    target: str | os.PathLike,
    format: str | None = None,
    images: Placing | None = None,
) -> dict[str, int]:
    """Write tables, and count what the format has no place for.

    Args:
        tables: from any reader.
        target: file or folder.
        format: None: told from the suffix.
        images: as for `formats.write`.

    Returns:
        What was lost, with the number of boxes (or categories) concerned; empty: nothing.

    Raises:
        DataError: the format can't hold these tables at all.
    """
    name = format or formats.format_of_suffix(tables, target)
    formats.write(tables, target, name, images)
    return lost(tables, name)


def lost(tables: Tables, name: str) -> dict[str, int]:
    """What a format has no place for, with the number of boxes (or categories) concerned.

    Args:
        tables: to be written.
        name: a key of `formats.WRITERS`.
    """
    held, own = HOLDS[name], OWN_NAMES.get(name)
    boxes = tables.boxes
    own_area = (boxes["area"] - boxes["w"] * boxes["h"]).abs() > 1e-6 * boxes["area"].abs()
    given = boxes["attributes"].drop_nulls()
    counts = {
        "angle": boxes["angle"].len() - boxes["angle"].null_count(),
        "score": boxes["score"].len() - boxes["score"].null_count(),
        "landmarks": boxes["landmarks"].len() - boxes["landmarks"].null_count(),
        "crowd": int(boxes["crowd"].sum()),
        "ignore": int(boxes["ignore"].sum()),
        "difficult": int(boxes["difficult"].sum()),
        "area": int(own_area.sum()),
        "attributes": sum(bool(unpack(text).keys() - ATTRIBUTES.get(name, set())) for text in given),
        "empty": int(
            (~tables.categories["category_id"].is_in(boxes["category_id"].unique().implode())).sum()
        ),
        "category": 0 if own is None else _named_otherwise(tables, own),
    }
    words = {"empty": "categories without boxes"}
    return {words.get(k, k): n for k, n in counts.items() if n and k not in held}


def _named_otherwise(tables: Tables, own: tuple[str, ...]) -> int:
    """Boxes whose category a format doesn't have."""
    names = tables.boxes.join(tables.categories, on="category_id")["name"]
    return int((~names.is_in(pl.Series(own).implode())).sum())
