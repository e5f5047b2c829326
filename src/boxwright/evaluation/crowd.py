"""The measures of crowds: log-average miss rate, AP and Jaccard index, as CrowdHuman's kit has them."""

import numpy as np

from boxwright.data.tables import Tables
from boxwright.evaluation.matching import Matching, match
from boxwright.evaluation.reading import Curves, Reading, by_category, mean
from boxwright.geometry.compilation import kernel
from boxwright.geometry.iou import prepare
from boxwright.geometry.kernels import overlap

FALSE_POSITIVES = np.array([0.0100, 0.0178, 0.0316, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.0000])
SCORES = np.arange(10) / 10  # thresholds that a score must exceed, at which the Jaccard index is tried


def crowd(truth: Tables, predictions: Tables, iou: float = 0.5) -> Reading:
    """MR^-2, AP and Jaccard index of each class; ignored regions take detections by their covered share.

    MR^-2 is the geometric mean of the miss rate at nine rates of false positives an image from 0.01 to 1
    (Dollar et al., Pedestrian Detection, PAMI 2012, section 4.1). AP is the area under precision over recall
    by trapezoids. The Jaccard index is matched / (detections + truth - matched) in each image with the
    largest matching there is, averaged over images, at the best of ten score thresholds. Detections and truth
    without a match count for nothing where an ignored region covers more than `iou` of them.

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
    of_category = matching.gt_category == category
    dets = np.flatnonzero(matching.det_category == category)
    gts = np.flatnonzero(of_category & ~matching.gt_ignored[0])
    ignored = np.flatnonzero(of_category & matching.gt_ignored[0])
    edges = np.arange(images + 1)
    starts = [
        np.searchsorted(image, edges)
        for image in (matching.det_image[dets], matching.gt_image[gts], matching.gt_image[ignored])
    ]
    found, truth = matching.boxes
    boxes = [prepare(b) for b in (found[dets], truth[gts], truth[ignored])]
    covered = [_covered(boxes[n], starts[n], boxes[2], starts[2], iou) for n in (0, 1)]
    scores = matching.det_score[dets]
    means = [_mean_jaccard(*boxes[:2], scores, *starts[:2], *covered, iou, score) for score in SCORES]
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
def _covered(boxes, start, ignored, ignored_start, least):
    """Whether a region of the same image covers more than `least` of a box."""
    result = np.zeros(len(boxes), dtype=np.bool_)
    for image in range(len(start) - 1):
        for n in range(start[image], start[image + 1]):
            for r in range(ignored_start[image], ignored_start[image + 1]):
                result[n] |= overlap(boxes, n, ignored, r, True) > least
    return result


@kernel
def _mean_jaccard(dets, gts, score, det_start, gt_start, det_covered, gt_covered, iou, threshold):
    total, images = 0.0, 0
    for image in range(len(det_start) - 1):
        d0, g0, g1 = det_start[image], gt_start[image], gt_start[image + 1]
        kept = 0
        for d in range(d0, det_start[image + 1]):
            kept += score[d] > threshold
        # Detections stand by score, so those that are kept come first.
        owner = _largest_matching(dets, d0, kept, gts, g0, g1, iou)
        free, matched, count = np.ones(kept, dtype=np.bool_), 0, 0
        for g in range(g1 - g0):
            if owner[g] >= 0:
                free[owner[g]] = False
                matched += 1
            elif not gt_covered[g0 + g]:
                count += 1
        for d in range(kept):
            count += free[d] and not det_covered[d0 + d]
        if matched + count > 0:
            total += matched / (matched + count)
            images += 1
    return total / images if images else 0.0


@kernel
def _largest_matching(dets, d0, kept, gts, g0, g1, iou):
    """The detection of each truth, or -1: a largest matching of boxes with IoU at or above `iou` (Kuhn's
    augmenting paths).
    """
    linked = np.zeros((kept, g1 - g0), dtype=np.bool_)
    for d in range(kept):
        for g in range(g0, g1):
            linked[d, g - g0] = overlap(dets, d0 + d, gts, g, False) >= iou
    owner = np.full(g1 - g0, -1, dtype=np.int64)
    parent, queue = np.empty(g1 - g0, dtype=np.int64), np.empty(kept + 1, dtype=np.int64)
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
    return owner
