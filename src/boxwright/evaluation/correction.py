"""What it costs to turn detections into the truth: an assessment of each image by itself."""

import numpy as np

from boxwright.data.tables import Tables
from boxwright.evaluation.assignment import cheapest_assignment
from boxwright.evaluation.matching import match
from boxwright.evaluation.reading import Reading, mean
from boxwright.geometry.iou import pairwise_iou


def correction_cost(
    truth: Tables,
    predictions: Tables,
    localisation: float = 0.5,
    dummy: float = 0.6,
    min_score: float = 0.0,
) -> Reading:
    """Optimal correction cost: the mean over images of the cheapest way to correct their detections.

    Moving a detection onto a truth costs `localisation` (1 - GIoU) / 2 plus (1 - `localisation`) times
    (1 - score) / 2, or (1 + score) / 2 where the class is another; removing one or adding a missed one costs
    `dummy`. An image's cost is divided by its corrections. Lower is better. Oriented boxes are compared by
    IoU in place of GIoU. Detections that lie in ignored regions are left out.

    Args:
        truth, predictions: aligned tables.
        localisation: weight of place against class, lambda in the paper.
        dummy: beta in the paper.
        min_score: detections below it are left out; unlike AP, this measure counts every one.

    Source: Otani et al., Optimal Correction Cost for Object Detection Evaluation, CVPR 2022, section 3.
    """
    kept = predictions.with_boxes(predictions.boxes.filter(predictions.boxes["score"] >= min_score))
    matching = match(truth, kept, np.array([0.5]))
    hit, false = matching.outcomes()
    dets, gts = np.flatnonzero(hit | false), np.flatnonzero(~matching.gt_ignored[0])
    dets = dets[np.argsort(matching.det_image[dets], kind="stable")]
    gts = gts[np.argsort(matching.gt_image[gts], kind="stable")]
    edges = np.arange(len(truth.images) + 1)
    det_at = np.searchsorted(matching.det_image[dets], edges)
    gt_at = np.searchsorted(matching.gt_image[gts], edges)
    kind = "giou" if matching.boxes[0].shape[1] == 4 else "iou"
    costs = []
    for n in range(len(truth.images)):
        d, g = dets[det_at[n] : det_at[n + 1]], gts[gt_at[n] : gt_at[n + 1]]
        if len(d) or len(g):
            place = pairwise_iou(matching.boxes[0][d], matching.boxes[1][g], kind)
            same = matching.det_category[d][:, None] == matching.gt_category[g][None]
            score = matching.det_score[d][:, None]
            classes = np.where(same, 1 - score, 1 + score) / 2
            costs.append(_image_cost(localisation * (1 - place) / 2 + (1 - localisation) * classes, dummy))
    return Reading(
        title=f"Optimal correction cost, lambda {localisation:g}, beta {dummy:g}",
        overall={"OC-cost": mean(costs), "images": float(len(costs))},
        notes=[] if kind == "giou" else ["oriented boxes: the place is compared by IoU, not GIoU."],
        source="Otani et al., Optimal Correction Cost, CVPR 2022",
    )


def _image_cost(cost: np.ndarray, dummy: float) -> float:
    """Cheapest correction over the number of corrections; `cost` (D, G)."""
    # A pair takes the place of two dummies, so it is worth having where it costs less than both.
    gain = np.minimum(cost - 2 * dummy, 0.0)
    column = cheapest_assignment(gain) if gain.size else np.full(len(cost), -1)
    rows = np.flatnonzero(column >= 0)
    rows = rows[gain[rows, column[rows]] < 0]
    left_over = sum(cost.shape) - 2 * len(rows)
    return float((cost[rows, column[rows]].sum() + dummy * left_over) / (left_over + len(rows)))
