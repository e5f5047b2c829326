"""Detection quality of boxes that say how sure they are of each side.

Hall et al., Probabilistic Object Detection: Definition and Evaluation, WACV 2020, section 4.
"""

import math

import numpy as np

from boxwright.data.builder import as_numbers, unpack
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.evaluation.assignment import cheapest_assignment
from boxwright.evaluation.matching import match
from boxwright.evaluation.reading import Reading
from boxwright.geometry.compilation import kernel

KEY = "variance"  # the attribute: variances of left, top, right and bottom, px^2
TINY = 1e-14
SPREAD = 6.0  # standard deviations beyond which a pixel is not looked at
FOREGROUND, BACKGROUND = 0, 1


def pdq(truth: Tables, predictions: Tables, min_score: float = 0.0) -> Reading:
    """Probability-based detection quality, and the spatial and label quality it is made of.

    A pixel belongs to a detection with the probability that it lies right of its left side, below its top and
    so on, each side being normally distributed with the variance the detection gives. Quality of a pair is
    the geometric mean of its spatial quality (exp of minus the mean surprise within the truth, and of the
    probability spilt outside it) and its label quality (the score where the class is right). Pairs are chosen
    for the greatest sum in each image; PDQ is that sum over pairs, misses and false detections.

    Args:
        truth, predictions: aligned tables of upright boxes; the attribute "variance" of each prediction holds
            four numbers, the variances of left, top, right and bottom in px^2.
        min_score: detections below it are left out.

    Raises:
        DataError: a prediction without variances, or with an angle.
    """
    kept = predictions.with_boxes(predictions.boxes.filter(predictions.boxes["score"] >= min_score))
    matching = match(truth, kept, np.array([0.5]), class_agnostic=True)
    if matching.boxes[0].shape[1] != 4:
        raise DataError("PDQ is defined for upright boxes; some have an angle.")
    deviations = np.sqrt(np.array([_variance(kept, int(row)) for row in matching.det_row]).reshape(-1, 4))
    det_class = kept.boxes["category_id"].to_numpy()[matching.det_row]
    gt_class = truth.boxes["category_id"].to_numpy()[matching.gt_row]
    hit, false = matching.outcomes()
    edges = np.arange(len(truth.images) + 1)
    det_at, gt_at = (np.searchsorted(i, edges) for i in (matching.det_image, matching.gt_image))
    sums, pairs, total = np.zeros(5), 0, 0
    for n in range(len(truth.images)):
        d = np.arange(det_at[n], det_at[n + 1])
        g = np.arange(gt_at[n], gt_at[n + 1])
        d, g = d[(hit | false)[d]], g[~matching.gt_ignored[0][g]]
        label = np.where(det_class[d][:, None] == gt_class[g][None], matching.det_score[d][:, None], 0.0)
        losses = np.zeros((len(d), len(g), 2))
        _spatial_losses(matching.boxes[0][d], deviations[d], matching.boxes[1][g], losses)
        spatial = np.exp(-losses.sum(axis=2))
        quality = np.sqrt(spatial * label)
        column = cheapest_assignment(-quality) if quality.size else np.full(len(d), -1)
        rows = np.flatnonzero(column >= 0)
        rows = rows[quality[rows, column[rows]] > TINY]
        at = rows, column[rows]
        sums += [
            quality[at].sum(), spatial[at].sum(), label[at].sum(),
            np.exp(-losses[at][:, FOREGROUND]).sum(), np.exp(-losses[at][:, BACKGROUND]).sum(),
        ]  # fmt: skip
        pairs += len(rows)
        total += len(d) + len(g) - len(rows)
    names = ("spatial quality", "label quality", "foreground quality", "background quality")
    return Reading(
        title="Probability-based detection quality",
        overall={"PDQ": float(sums[0] / total) if total else None}
        | {"mean pair quality": float(sums[0] / pairs) if pairs else None}
        | {name: float(value / pairs) if pairs else None for name, value in zip(names, sums[1:])},
        rows=[{"true": pairs, "false and missed": total - pairs}],
        source="Hall et al., Probabilistic Object Detection, WACV 2020",
    )


def _variance(tables: Tables, row: int) -> tuple[float, float, float, float]:
    found = unpack(tables.boxes["attributes"][row]).get(KEY)
    numbers = as_numbers(found)
    if numbers is None or not all(math.isfinite(v) and v >= 0 for v in numbers):
        place = f"{tables.boxes['source'][row]}, box {row}"
        raise DataError(f"{place}: attribute '{KEY}' is {found!r}, expected four numbers >= 0 in px^2.")
    return numbers


@kernel
def _spatial_losses(dets, deviations, gts, losses):
    """Fill the foreground and background loss (D, G, 2) of each pair; boxes xywh, `deviations` (D, 4)."""
    for d in range(len(dets)):
        x0, y0 = dets[d, 0], dets[d, 1]
        x1, y1 = x0 + dets[d, 2], y0 + dets[d, 3]
        sx0, sy0, sx1, sy1 = deviations[d]
        left, top = math.floor(x0 - SPREAD * sx0), math.floor(y0 - SPREAD * sy0)
        right, bottom = math.ceil(x1 + SPREAD * sx1), math.ceil(y1 + SPREAD * sy1)
        in_x = _inside(left, right, x0, sx0, x1, sx1)
        in_y = _inside(top, bottom, y0, sy0, y1, sy1)
        for g in range(len(gts)):
            u0, v0 = math.floor(gts[g, 0] + 0.5), math.floor(gts[g, 1] + 0.5)
            u1 = max(u0 + 1, math.floor(gts[g, 0] + gts[g, 2] + 0.5))
            v1 = max(v0 + 1, math.floor(gts[g, 1] + gts[g, 3] + 0.5))
            foreground = background = 0.0
            for v in range(v0, v1):
                for u in range(u0, u1):
                    p = 0.0
                    if left <= u < right and top <= v < bottom:
                        p = in_x[u - left] * in_y[v - top]
                    foreground -= math.log(max(p, TINY))
            for v in range(top, bottom):
                for u in range(left, right):
                    if not (v0 <= v < v1 and u0 <= u < u1):
                        background -= math.log(max(1 - in_x[u - left] * in_y[v - top], TINY))
            pixels = (u1 - u0) * (v1 - v0)
            losses[d, g, 0], losses[d, g, 1] = foreground / pixels, background / pixels


@kernel
def _inside(first, last, low, low_deviation, high, high_deviation):
    """Probability that the middle of each pixel from `first` to `last` lies between two uncertain sides."""
    result = np.empty(last - first)
    for n in range(last - first):
        middle = first + n + 0.5
        result[n] = _above(middle - low, low_deviation) * _above(high - middle, high_deviation)
    return result


@kernel
def _above(distance, deviation):
    if deviation == 0:
        return 1.0 if distance > 0 else 0.0
    return 0.5 * math.erfc(-distance / (deviation * math.sqrt(2.0)))
