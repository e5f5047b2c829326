"""Labels as they are after somebody looked at them, from lists of what was found.

In BCCD every confident difference between the validation labels and three detectors was looked at, and then
what audits suspected (missing boxes from a chance of 0.08 on, all else from 0.2). In HIT-UAV what detectors
of five folds found with a score of 0.2 and more without a label, labels of which they found no trace, and
those that they found elsewhere or of another class. What can't be told, such as which of two boxes fits a
person of eleven pixels better, counts neither way. What was added or moved lies where detectors put it.

`SET_val.json` has rows of file, class and box (x, y, w, h in pixels as in tables, and the angle of an
oriented one): `added` are missing as anyone can see, `removed` are no object, `renamed` have the right class
behind, `moved` the right box, and what is `doubtful` can't be told and counts neither way.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl

from boxwright.data.tables import BOX_SCHEMA, Tables, frame
from boxwright.geometry.iou import pairwise_iou

ALIKE = 0.9  # IoU of a label that is meant: boxes are noted to the pixel


def checked(truth: Tables, name: str) -> Tables:
    """The labels with what was found by looking at them.

    Args:
        truth: as they came.
        name: of the set.

    Raises:
        ValueError: a label that was looked at isn't there.
    """
    told = json.loads(Path(__file__).with_name(f"{name}_val.json").read_text("utf-8"))
    image = {name: n for n, name in enumerate(truth.images["file_name"])}
    category = {name: n for n, name in enumerate(truth.categories["name"])}
    sides = ["x", "y", "w", "h", "angle"][: 5 if truth.has_angles() else 4]
    count, boxes = 2 + len(sides), truth.boxes
    for file, kind, *box in told["removed"] + [row[:count] for row in told["moved"]]:
        boxes = boxes.filter(~_is(boxes, image[file], category[kind], box))
    for file, kind, *box, new in told["renamed"]:
        meant = _is(boxes, image[file], category[kind], box)
        renamed = pl.when(meant).then(category[new]).otherwise(pl.col("category_id"))
        boxes = boxes.with_columns(category_id=renamed.cast(pl.Int32))
    # What is doubtful is an ignored region, whether a label is there or not.
    for file, kind, *box in told["doubtful"]:
        there = _is(boxes, image[file], category[kind], box, required=False)
        boxes = boxes.with_columns(ignore=pl.col("ignore") | there)
    there = told["added"] + [row[:2] + row[count:] for row in told["moved"]]
    new = [(*row, False) for row in there] + [(*row, True) for row in told["doubtful"]]
    files, kinds, *places, ignore = zip(*new)
    columns = dict(zip(sides, places)) | {"ignore": ignore, "crowd": [False] * len(new)}
    columns |= {"image_id": [image[f] for f in files], "category_id": [category[n] for n in kinds]}
    columns["area"] = np.multiply(columns["w"], columns["h"])
    added = frame(BOX_SCHEMA, columns)
    return truth.with_boxes(pl.concat([boxes, added]).sort("image_id", maintain_order=True))


def _is(boxes: pl.DataFrame, image: int, category: int, box: list[float], required: bool = True) -> pl.Series:
    """Which of the boxes is meant by one that was noted to the pixel."""
    meant = (boxes["image_id"] == image) & (boxes["category_id"] == category)
    near = pairwise_iou(_centred(boxes.filter(meant)), _centred(_table(box)))[:, 0] > ALIKE
    places = np.flatnonzero(meant.to_numpy())[near]
    if required and not len(places):
        raise ValueError(f"no label at {box} of image {image}.")
    if required:  # drawn twice: the later one
        places = places[-1:]
    return pl.Series(np.isin(np.arange(len(boxes)), places))


def _table(box: list[float]) -> pl.DataFrame:
    return pl.DataFrame([dict(zip(("x", "y", "w", "h", "angle"), [*map(float, box), 0.0][:5]))])


def _centred(boxes: pl.DataFrame) -> np.ndarray:
    """(N, 5) cx, cy, w, h, angle."""
    x, y, w, h, angle = (boxes[n].cast(pl.Float64).fill_null(0.0) for n in ("x", "y", "w", "h", "angle"))
    return np.column_stack([x + w / 2, y + h / 2, w, h, angle])
