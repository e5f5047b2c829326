"""Corrections that were made elsewhere, in CVAT, Label Studio, LabelMe or FiftyOne, taken into a review."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl

from boxwright.data.naming import join_names
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.evaluation.comparison import compare
from boxwright.labeling.store import GEOMETRY, Change, Store

SAME = 0.2  # IoU from which a box that came back is one that went out, moved
ROUNDING = 0.01  # px and radians that a format's text may lose


def take(store: Store, labels: Tables, person: str, accept: bool = False) -> Counter[str]:
    """Make what differs between a review and labels that came back actions of a person.

    Boxes are paired by `compare`: those of the same class first, by descending IoU. What has no pair was
    added or taken out there. Images that the labels don't have stay as they are, and so do flags of boxes.

    Args:
        store: of the review.
        labels: of some or all of its images, named as it names them; classes are joined by name.
        person: who corrected them, or the tool.
        accept: the images that came back are accepted.

    Returns:
        How many boxes were added, removed, changed in shape or class, and stayed.

    Raises:
        DataError: an image or a class is none of the review's, or oriented boxes came back without angles.
    """
    own, ids = store.tables(), store.box_ids()
    images = join_names(own.images["file_name"].to_list(), labels.images["file_name"].to_list())
    _check(images, labels.images["file_name"].to_list(), "image", store)
    known = own.categories["name"].to_list()
    names = labels.categories["name"].to_list()
    _check([known.index(name) if name in known else -1 for name in names], names, "class", store)
    back = np.isin(np.arange(len(own.images)), images)
    seen = back[own.boxes["image_id"].to_numpy()]
    pairs = compare(*map(_plain, (own.with_boxes(own.boxes.filter(seen)), labels)), iou=SAME)
    ids, before, after = ids[seen], pairs.a.boxes, pairs.b.boxes
    paired = pairs.pairs.filter(pl.col("outcome").is_in(["matched", "other class"]))
    # A format that has no headings gives half of them back the other way round.
    headless = store.headings and not (after["angle"].abs() > math.pi / 2 + ROUNDING).any()
    if store.oriented and after["angle"].null_count() > before["angle"].null_count():
        raise DataError("oriented boxes came back without angles: a format that has none can't be taken.")
    found: Counter[str] = Counter()

    def act(image_id: int, box_id: int | None, shape: dict[str, Any] | None) -> None:
        version = 0 if box_id is None else store.box(box_id)["version"]
        change = Change(uuid4().hex, person, image_id, box_id=box_id, version=version, after=shape)
        found[store.act(change)["kind"]] += 1

    for a, b in paired.select("a_row", "b_row").iter_rows():
        was, shape = _shape(before, a), _shape(after, b)
        if (
            headless
            and None not in (was["angle"], shape["angle"])
            and math.cos(shape["angle"] - was["angle"]) < 0
        ):
            shape["angle"] += math.pi
        if _is_same(was, shape):
            found["same"] += 1
        else:
            act(before["image_id"][a], int(ids[a]), shape)
    for a in sorted(set(range(len(before))) - set(paired["a_row"])):
        act(before["image_id"][a], int(ids[a]), None)
    for b in sorted(set(range(len(after))) - set(paired["b_row"])):
        act(after["image_id"][b], None, _shape(after, b))
    for image_id in np.flatnonzero(back) if accept else ():
        store.act(Change(uuid4().hex, person, int(image_id), state="accepted"))
    return found


def _plain(labels: Tables) -> Tables:
    """The same, with ignored and difficult boxes, which `compare` leaves out, as any other."""
    flags = {name: pl.lit(False) for name in ("crowd", "ignore", "difficult")}
    return labels.with_boxes(labels.boxes.with_columns(**flags))


def _check(rows: Sequence[int], names: list[str], what: str, store: Store) -> None:
    for row, name in zip(rows, names):
        if row < 0:
            raise DataError(f"the {what} '{name}' is none of {store.path}'s.")


def _shape(boxes: pl.DataFrame, row: int) -> dict[str, Any]:
    return {name: boxes[name][row] for name in ("category_id", *GEOMETRY)}


def _is_same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    if a["category_id"] != b["category_id"] or (a["angle"] is None) != (b["angle"] is None):
        return False
    turn = math.remainder((a["angle"] or 0.0) - (b["angle"] or 0.0), 2 * math.pi)
    return abs(turn) <= ROUNDING and all(abs(a[name] - b[name]) <= ROUNDING for name in "xywh")
