"""The measures of crowds: log-average miss rate, AP and Jaccard index, as CrowdHuman's kit has them."""

import numpy as np

from boxwright.data.tables import Tables
from boxwright.evaluation.matching import Matching, match
from boxwright.evaluation.reading import Curves, Reading, by_category, mean
from boxwright.geometry.compilation import kernel
from boxwright.geometry.iou import prepare
from boxwright.geometry.kernels import overlap

FALSE_POSITIVES = np.array([0.0100, 0.0178, 0.0316, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.0000])
SCORES = np.arange(11) / 10  # thresholds at which the Jaccard index is tried


def crowd(truth: Tables, predictions: Tables, iou: float = 0.5) -> Reading:
    """MR^-2, AP and Jaccard index of each class; ignored regions take detections by their covered share.

    MR^-2 is the geometric mean of the miss rate at nine rates of false positives an image from 0.01 to 1
    (Dollar et al., Pedestrian Detection, PAMI 2012, section 4.1). AP is the area under precision over recall
    by trapezoids. The Jaccard index is matched / (detections + truth - matched) in each image with the
    largest matching there is, averaged over images, at the best of eleven score thresholds.

    Args:
        truth, predictions: aligned tables.
        iou: threshold.

    Source: Shao et al., CrowdHuman, 2018; Chu et al., CrowdDet, CVPR 2020 (Jaccard index).
    """
    matching = match(truth, predictions, np.array([iou]))
    counts, images = matching.truth_counts(), len(truth.images)
    tp, _ = matching.outcomes()
    names = truth.categories["name"].to_list()
    rows, curves = [], {}
    for k, dets in by_category(matching):
        row: dict = {"class": names[k], "truth": int(counts[k])} | dict.fromkeys(
            ("MR", "AP", "JI", "JI score")
        )
        if counts[k]:
            n_tp = np.cumsum(tp[dets])
            n_fp = np.arange(1, len(dets) + 1) - n_tp
            miss, false = 1 - n_tp / counts[k], n_fp / images
            row["MR"], row["AP"] = _miss_rate(miss, false), _area(n_tp / counts[k], n_tp / (n_tp + n_fp))
            row["JI"], row["JI score"] = jaccard(matching, k, images, iou)
            shown = np.unique(np.linspace(0, len(dets) - 1, 400).astype(int)) if len(dets) else []
            curves[names[k]] = (false[shown].tolist(), miss[shown].tolist())
        rows.append(row)
    return Reading(
        title=f"Crowds, IoU {iou:g}",
        overall={name: mean(row[name] for row in rows) for name in ("MR", "AP", "JI")},
        rows=rows,
        curves={"Miss rate": Curves("false positives an image", "miss rate", curves)},
        source="Shao et al., CrowdHuman, 2018",
    )


def jaccard(matching: Matching, category: int, images: int, iou: float) -> tuple[float, float]:
    """The best mean Jaccard index of a category, and the score threshold it is reached at."""
    true, false = matching.outcomes()
    of_category = matching.det_category == category
    dets = np.flatnonzero(of_category & (true | false))
    gts = np.flatnonzero((matching.gt_category == category) & ~matching.gt_ignored[0])
    edges = np.arange(images + 1)
    starts = (
        np.searchsorted(matching.det_image[dets], edges),
        np.searchsorted(matching.gt_image[gts], edges),
    )
    boxes = prepare(matching.boxes[0][dets]), prepare(matching.boxes[1][gts])
    means = [_mean_jaccard(*boxes, matching.det_score[dets], *starts, iou, score) for score in SCORES]
    best = int(np.argmax(means))
    return float(means[best]), float(SCORES[best])


def _miss_rate(miss: np.ndarray, false: np.ndarray) -> float:
    if len(miss) == 0:
        return 1.0
    at = np.minimum(np.searchsorted(false, FALSE_POSITIVES, side="left"), len(miss) - 1)
    return float(np.exp(np.log(np.maximum(miss[at], 1e-10)).mean()))


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


@kernel
def _mean_jaccard(dets, gts, score, det_start, gt_start, iou, least_score):
    total, images = 0.0, 0
    for image in range(len(det_start) - 1):
        g0, g1 = gt_start[image], gt_start[image + 1]
        kept = 0
        for d in range(det_start[image], det_start[image + 1]):
            kept += score[d] >= least_score
        if kept == 0 and g0 == g1:
            continue
        # Detections stand by score, so those that are kept come first.
        matched = _largest_matching(dets, det_start[image], kept, gts, g0, g1, iou)
        total += matched / (kept + g1 - g0 - matched)
        images += 1
    return total / images if images else 0.0


@kernel
def _largest_matching(dets, d0, kept, gts, g0, g1, iou):
    """Pairs of the largest matching of boxes with IoU at or above `iou` (Kuhn's augmenting paths)."""
    linked = np.zeros((kept, g1 - g0), dtype=np.bool_)
    for d in range(kept):
        for g in range(g0, g1):
            linked[d, g - g0] = overlap(dets, d0 + d, gts, g, False) >= iou
    owner = np.full(g1 - g0, -1, dtype=np.int64)
    parent, queue = np.empty(g1 - g0, dtype=np.int64), np.empty(kept + 1, dtype=np.int64)
    count = 0
    for root in range(kept):
        # Breadth first: `parent` of a truth is the detection that reached it.
        parent[:] = -1
        queue[0], head, tail, end = root, 0, 1, -1
        while head < tail and end < 0:
            d = queue[head]
            head += 1
            for g in range(g1 - g0):
                if linked[d, g] and parent[g] < 0:
                    parent[g] = d
                    if owner[g] < 0:
                        end = g
                        break
                    queue[tail] = owner[g]
                    tail += 1
        if end < 0:
            continue
        count += 1
        g = end
        while g >= 0:
            d, before = parent[g], -1
            for other in range(g1 - g0):
                if owner[other] == d:
                    before = other
            owner[g] = d
            if before >= 0:
                owner[before] = -1
            g = before
    return count
