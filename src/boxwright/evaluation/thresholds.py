"""`boxwright.threshold`: where to cut each class's scores."""

import os
from typing import Any

import numpy as np

from boxwright.data.tables import Tables
from boxwright.errors import ConfigError
from boxwright.evaluation.lrp import lrp_of_categories
from boxwright.evaluation.matching import match
from boxwright.evaluation.pairing import notes_on, read_pair
from boxwright.evaluation.reading import Curves, Reading, by_category, last_of_equal

GOALS = {"lrp": "least LRP", "f1": "greatest F1"}


def threshold(
    truth: Tables | str | os.PathLike,
    predictions: Tables | str | os.PathLike,
    precision: float | None = None,
    recall: float | None = None,
    iou: float = 0.5,
    best: str = "lrp",
) -> Reading:
    """The score threshold of each class for a wanted precision or recall; for neither, the best one.

    For a precision it is the lowest threshold that still has it, for the most recall; for a recall the
    highest that has it, for the most precision. None where the wanted can't be had.

    Args:
        truth, predictions: tables or paths.
        precision, recall: one of them, in (0, 1].
        iou: from which a detection is true.
        best: of least "lrp", or of greatest "f1".

    Raises:
        DataError: a file can't be read.
        ConfigError: both are wanted, a value outside (0, 1], or an unknown `best`.

    Example:
        >>> boxwright.threshold("truth.json", "predictions.parquet", precision=0.9).rows[0]["threshold"]
    """
    wanted = precision if precision is not None else recall
    if precision is not None and recall is not None:
        raise ConfigError("both a precision and a recall are wanted; one threshold can't promise both.")
    if wanted is not None and not 0 < wanted <= 1:
        raise ConfigError(f"a wanted value of {wanted}, expected above 0 and at most 1.")
    if best not in GOALS:
        raise ConfigError(f"best '{best}', expected one of {', '.join(GOALS)}.")
    truth, predictions = read_pair(truth, predictions)
    matching = match(truth, predictions, np.array([iou]))
    counts, (hit, _) = matching.truth_counts(), matching.outcomes()
    least = [parts[-1] for parts, _ in lrp_of_categories(matching)]
    rows: list[dict[str, Any]] = []
    curves = {}
    for k, dets in by_category(matching):
        name, score = truth.categories["name"][k], matching.det_score[dets]
        last = last_of_equal(score)
        tp = np.cumsum(hit[dets])[last]
        at_precision, at_recall = tp / (last + 1), tp / max(counts[k], 1)
        place = None
        if precision is not None:
            reached = np.flatnonzero(at_precision >= precision)
            place = reached[-1] if len(reached) else None
        elif recall is not None:
            reached = np.flatnonzero(at_recall >= recall)
            place = reached[0] if len(reached) else None
        elif best == "f1" and counts[k] and len(last):
            place = int(np.argmax(2 * tp / (last + 1 + counts[k])))
        elif best == "lrp" and least[k] is not None:
            place = int(np.flatnonzero(score[last] == least[k])[0])
        row: dict[str, Any] = {"class": name, "truth": int(counts[k]), "threshold": None}
        row |= dict.fromkeys(("precision", "recall", "F1"))
        if place is not None and counts[k]:
            p, r = float(at_precision[place]), float(at_recall[place])
            row |= {"threshold": float(score[last[place]]), "precision": p, "recall": r}
            row["F1"] = 2 * p * r / (p + r) if p + r else 0.0
        rows.append(row)
        shown = np.unique(np.linspace(0, len(last) - 1, 300).astype(int)) if len(last) else last
        curves[name] = score[last[shown]].tolist(), at_precision[shown].tolist(), at_recall[shown].tolist()
    goal = GOALS[best]
    if wanted is not None:
        goal = f"{'precision' if precision is not None else 'recall'} of {wanted:g}"
    missing = [row["class"] for row in rows if row["threshold"] is None]
    return Reading(
        title=f"Score thresholds for {goal}, IoU {iou:g}",
        overall={},
        rows=rows,
        curves={
            what: Curves("score threshold", what, {name: (c[0], c[n]) for name, c in curves.items()})
            for n, what in ((1, "precision"), (2, "recall"))
        },
        notes=notes_on(predictions.faults) + ([f"can't be had: {', '.join(missing)}."] if missing else []),
    )
