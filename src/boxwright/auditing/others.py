"""What other people drew where a label is suspected."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from boxwright.auditing.pairs import best, overlapping
from boxwright.auditing.schema import BOX
from boxwright.data.naming import join_names
from boxwright.data.tables import Tables
from boxwright.evaluation.pairing import align

SAME = 0.5  # IoU from which two people's boxes are of one object


def what_others_drew(suspicions: pl.DataFrame, labels: Tables, others: Mapping[str, Tables]) -> pl.Series:
    """Of each suspicion, person by person: class and overlap of what lies there, or that nothing does.

    It is compared with the suspected label, or where none is there with the one that seems to be missing. Of
    a person whose labels don't have the image nothing is said.

    Args:
        suspicions: of `suspect`.
        labels: that were audited.
        others: labels of the same classes by the person's name, with some of the images.

    Raises:
        DataError: a person's classes aren't those of the labels.
    """
    box = np.column_stack([suspicions[name].fill_null(suspicions[f"new_{name}"]).to_numpy() for name in BOX])
    box = np.nan_to_num(box)  # upright ones have no angle
    box[:, :2] += box[:, 2:4] / 2
    image, names = suspicions["image_id"].to_numpy(), labels.categories["name"].to_list()
    told: list[list[str]] = [[] for _ in range(len(suspicions))]
    for person, own in others.items():
        looked_at = np.array(
            join_names(labels.images["file_name"].to_list(), own.images["file_name"].drop_nulls().to_list())
        )
        known = np.isin(np.arange(len(labels.images)), looked_at)
        there = align(labels, own, scored=False)
        pairs = overlapping(box, image, there.rotated(), there.boxes["image_id"].to_numpy(), SAME)
        chosen = best(pairs.iou, pairs.first, len(box))
        category = there.boxes["category_id"].to_numpy()
        for n in np.flatnonzero(known[image]).tolist():
            if chosen[n] < 0:
                told[n].append(f"{person}: nothing")
                continue
            drawn = names[category[pairs.second[chosen[n]]]]
            told[n].append(f"{person}: {drawn}, IoU {pairs.iou[chosen[n]]:.2f}")
    return pl.Series("others", [", ".join(parts) or None for parts in told], dtype=pl.String)
