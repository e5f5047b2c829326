"""Localisation recall precision: one error of localisation, false positives and misses together."""

import numpy as np

from boxwright.data.tables import Tables
from boxwright.evaluation.matching import Matching, match
from boxwright.evaluation.reading import Reading, by_category, last_of_equal, mean

PARTS = ("oLRP", "localisation", "FP", "FN", "threshold")


def lrp(truth: Tables, predictions: Tables, iou: float = 0.5) -> Reading:
    """Optimal LRP of each class, its three parts, and the score threshold where it is least.

    LRP = (sum over true positives of (1 - IoU) / (1 - iou) + FP + FN) / (TP + FP + FN): 0 is perfect, 1 as
    bad as no detection. The parts are the mean of 1 - IoU over true positives, 1 - precision and 1 - recall
    at the best threshold.

    Args:
        truth, predictions: aligned tables.
        iou: where a detection begins to count as true, in [0, 1).

    Source: Oksuz et al., Localization Recall Precision (LRP), ECCV 2018, eq. 1 to 4.
    """
    matching = match(truth, predictions, np.array([iou]))
    rows = []
    for name, (parts, _) in zip(truth.categories["name"], lrp_of_categories(matching)):
        rows.append({"class": name} | dict(zip(PARTS, parts)))
    return Reading(
        title=f"LRP, IoU {iou:g}",
        overall={part: mean(row[part] for row in rows) for part in PARTS[:-1]},
        rows=rows,
        source="Oksuz et al., Localization Recall Precision, ECCV 2018",
    )


def lrp_of_categories(matching: Matching) -> list[tuple[list[float | None], np.ndarray]]:
    """For each category the values of PARTS, and LRP at each of its scores (S, 2): score, LRP."""
    tau, counts = float(matching.thresholds[0]), matching.truth_counts()
    tp, _ = matching.outcomes()
    distance = 1 - matching.iou_of_found()
    result: list[tuple[list[float | None], np.ndarray]] = []
    for k, dets in by_category(matching):
        truth = int(counts[k])
        if truth == 0:
            result.append(([None] * len(PARTS), np.zeros((0, 2))))
            continue
        hit, score = tp[dets], matching.det_score[dets]
        n_tp, n_fp = np.cumsum(hit), np.cumsum(~hit)
        error = np.cumsum(np.where(hit, distance[dets], 0.0))
        total = (error / (1 - tau) + n_fp + truth - n_tp) / (n_fp + truth)
        last = last_of_equal(score)
        curve = np.column_stack([score[last], total[last]])
        if len(last) == 0 or curve[:, 1].min() >= 1:
            result.append(([1.0, None, None, 1.0, None], curve))
            continue
        best = last[np.argmin(curve[:, 1])]
        found = int(n_tp[best])
        parts = [
            float(total[best]),
            float(error[best] / found) if found else None,
            float(n_fp[best] / (found + n_fp[best])),
            1 - found / truth,
            float(score[best]),
        ]
        result.append((parts, curve))
    return result
