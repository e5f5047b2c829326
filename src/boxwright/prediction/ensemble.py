"""Several detectors' boxes of the same images, fused: an object that all see is likelier than one's alone."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from boxwright.data.confident import thresholds_by_name, with_thresholds
from boxwright.data.tables import Tables, concat
from boxwright.errors import DataError
from boxwright.geometry.fusion import weighted_box_fusion

# IoU from which boxes of one class are fused; that of oriented boxes falls faster.
SAME_OBJECT, SAME_ORIENTED_OBJECT = 0.55, 0.4


def fuse_tables(members: Sequence[Tables], max_detections: int | None = None) -> Tables:
    """One table of predictions from those of several detectors, by weighted box fusion.

    Each box is the mean of the members' boxes of an object, weighted by score; its score is their mean, less
    where some don't see it. Landmarks and attributes are the best member's. Categories are joined by name;
    a score threshold is the mean of the members'.

    Args:
        members: of the same images.
        max_detections: an image; None: all.

    Raises:
        DataError: the images differ, or upright and oriented boxes come together.
    """
    first = members[0]
    if any(not m.images["file_name"].equals(first.images["file_name"]) for m in members):
        raise DataError("tables of other images can't be fused.")
    whole, images = concat(members), len(first.images)
    oriented = whole.boxes["angle"].is_not_null()
    if oriented.any() and not oriented.all():
        raise DataError("upright and oriented boxes can't be fused; expected detectors of one kind.")
    boxes = whole.rotated() if oriented.any() else whole.boxes.select("x", "y", "w", "h").to_numpy()
    image = whole.boxes["image_id"].to_numpy() % images  # the members' stand one behind the other
    group = image * len(whole.categories) + whole.boxes["category_id"].to_numpy()
    score = whole.boxes["score"].to_numpy()
    ends = np.cumsum([len(m.boxes) for m in members])[:-1]
    parts = [np.split(values, ends) for values in (boxes, score, group)]
    threshold = SAME_ORIENTED_OBJECT if oriented.any() else SAME_OBJECT
    fused, scores, _, best = weighted_box_fusion(parts[0], parts[1], parts[2], iou_threshold=threshold)
    columns = dict(zip("xywh", fused[:, :4].T))
    if oriented.any():
        start = fused[:, :2] - fused[:, 2:4] / 2
        columns |= {"x": start[:, 0], "y": start[:, 1], "angle": fused[:, 4]}
    columns |= {"score": scores, "area": fused[:, 2] * fused[:, 3], "image_id": image[best]}
    names = [name for m in members for name in m.boxes["source"].drop_nulls().unique().sort()]
    rows = whole.boxes[best].with_columns(
        *(pl.Series(name, values) for name, values in columns.items()),
        source=pl.lit(" + ".join(dict.fromkeys(names)) or None, dtype=pl.String),
    )
    rows = rows.sort(["image_id", "score"], descending=[False, True], maintain_order=True)
    if max_detections is not None:
        rows = rows.group_by("image_id", maintain_order=True).head(max_detections)
    known = [thresholds_by_name(m.categories) for m in members]
    limits = {
        name: float(np.mean([own[name] for own in known if name in own]))
        for name in whole.categories["name"]
        if any(name in own for own in known)
    }
    faults = tuple(dict.fromkeys(f for m in members for f in m.faults))
    return Tables(first.images, rows, with_thresholds(whole.categories, limits), faults)
