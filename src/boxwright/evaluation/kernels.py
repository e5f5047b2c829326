"""The loops of matching and of average precision, over arrays sorted by category and image."""

import numpy as np

from boxwright.geometry.compilation import kernel
from boxwright.geometry.kernels import overlap

EPSILON = float(np.spacing(1.0))  # as in pycocotools


@kernel
def find_candidates(dets, gts, regions, begin, end, least, first, last, candidate):
    """Set `candidate` where a detection from `first` to `last` overlaps a truth by at least `least`."""
    for d in range(first, last):
        for g in range(begin[d], end[d]):
            if overlap(dets, d, gts, g, regions[g]) >= least:
                candidate[d] = True
                break


@kernel
def match_coco(dets, gts, regions, absorbs, ignored, begin, end, thresholds, rows, first, last, matched):
    """COCO's greedy match (COCOeval.evaluateImg) of the candidates `rows[first:last]`, whole groups of them.

    Args:
        dets, gts: boxes of kernels.
        regions: (G,) overlap is over the detection's area.
        absorbs: (G,) any number may match.
        ignored: (A, G) doesn't count, for each area range.
        begin, end: (D,) the truth of each detection's group.
        thresholds: (T,) IoU.
        rows: (C,) detections that have a candidate, ascending.
        matched: (C, A, T) int32, filled with the index of the truth, else left as it is.
    """
    most = 1
    for c in range(first, last):
        most = max(most, end[rows[c]] - begin[rows[c]])
    order, taken, visit = np.empty(most, dtype=np.int64), np.zeros(most, dtype=np.int64), 0
    c = first
    while c < last:
        g0, g1 = begin[rows[c]], end[rows[c]]
        c_end = c
        while c_end < last and begin[rows[c_end]] == g0 and end[rows[c_end]] == g1:
            c_end += 1
        ious = np.empty((c_end - c, g1 - g0))
        for n in range(c, c_end):
            for g in range(g0, g1):
                ious[n - c, g - g0] = overlap(dets, rows[n], gts, g, regions[g])
        for a in range(len(ignored)):
            # Truth that counts is tried first; a match with it is never given up for an ignored one.
            counted = _partition(ignored[a, g0:g1], order)
            for t in range(len(thresholds)):
                visit += 1
                for n in range(c, c_end):
                    best, best_iou = -1, min(thresholds[t], 1 - 1e-10)
                    for place in range(g1 - g0):
                        g = order[place]
                        if place == counted and best >= 0:
                            break
                        if ious[n - c, g] >= best_iou and (taken[g] != visit or absorbs[g0 + g]):
                            best, best_iou = g, ious[n - c, g]
                    if best >= 0:
                        taken[best] = visit
                        matched[n, a, t] = g0 + best
        c = c_end


@kernel
def _partition(ignored, order):
    """Fill `order` with the places of False, then of True, stable; gives the number of False."""
    counted = 0
    for g in range(len(ignored)):
        if not ignored[g]:
            order[counted] = g
            counted += 1
    place = counted
    for g in range(len(ignored)):
        if ignored[g]:
            order[place] = g
            place += 1
    return counted


@kernel
def match_voc(dets, gts, ignored, begin, end, thresholds, rows, first, last, matched):
    """VOC's match (VOCevaldet.m; DOTA's voc_eval): a detection means its best truth, taken or not.

    As `match_coco`, but IoU must be above the threshold, and `matched` is filled with -2 where the best truth
    was taken before: a false positive that no other truth can make good.
    """
    for a in range(len(ignored)):
        taken = np.zeros((len(thresholds), len(gts)), dtype=np.bool_)
        for c in range(first, last):
            d, best, best_iou = rows[c], -1, -1.0
            for g in range(begin[d], end[d]):
                iou = overlap(dets, d, gts, g, False)
                if iou > best_iou:
                    best, best_iou = g, iou
            for t in range(len(thresholds)):
                if best_iou <= thresholds[t]:
                    continue
                if ignored[a, best]:
                    matched[c, a, t] = best
                elif taken[t, best]:
                    matched[c, a, t] = -2
                else:
                    taken[t, best] = True
                    matched[c, a, t] = best


@kernel
def accumulate(
    order, start, score, rank, outside, candidate, matched, gt_ignored, counts, limits, recall_points, first,
    last, precision, recall, scores,
):  # fmt: skip
    """COCOeval.accumulate for the categories from `first` to `last`.

    Precision changes its envelope only at true positives, so only those are kept.

    Args:
        order: (D,) detections by category and descending score; `start` (K + 1,) of each category.
        score, rank: (D,).
        outside: (A, D) area outside the range.
        candidate: (D,) row of `matched` (C, A, T), or -1.
        gt_ignored: (A, G).
        counts: (K, A) truth that counts.
        limits: (M,) of detections, ascending.
        recall_points: (R,) ascending from 0.
        precision, scores: (T, R, K, A), recall: (T, K, A, M); filled where there is truth.
    """
    thresholds = matched.shape[2]
    most = 0
    for k in range(first, last):
        most = max(most, start[k + 1] - start[k])
    exact, at = np.zeros((thresholds, most + 1)), np.zeros((thresholds, most + 1))
    for k in range(first, last):
        for a in range(len(outside)):
            if counts[k, a] == 0:
                continue
            tp, fp = np.zeros(thresholds, dtype=np.int64), np.zeros(thresholds, dtype=np.int64)
            within = np.zeros((thresholds, len(limits)), dtype=np.int64)
            alone = 0  # false positives at every threshold
            for place in range(start[k], start[k + 1]):
                d = order[place]
                c = candidate[d]
                if c < 0:
                    alone += not outside[a, d]
                    continue
                for t in range(thresholds):
                    g = matched[c, a, t]
                    if g < 0:
                        fp[t] += not outside[a, d]
                    elif not gt_ignored[a, g]:
                        exact[t, tp[t]] = (tp[t] + 1.0) / (fp[t] + alone + tp[t] + 1.0 + EPSILON)
                        at[t, tp[t]] = score[d]
                        tp[t] += 1
                        for m in range(len(limits)):
                            within[t, m] += rank[d] < limits[m]
            for t in range(thresholds):
                for m in range(len(limits)):
                    recall[t, k, a, m] = within[t, m] / counts[k, a]
                # The envelope of precision, and the score, at each recall point.
                for n in range(tp[t] - 2, -1, -1):
                    exact[t, n] = max(exact[t, n], exact[t, n + 1])
                n = 0
                for r in range(len(recall_points)):
                    while n < tp[t] and (n + 1) / counts[k, a] < recall_points[r]:
                        n += 1
                    precision[t, r, k, a] = exact[t, n] if n < tp[t] else 0.0
                    scores[t, r, k, a] = at[t, n] if n < tp[t] else 0.0
                if start[k + 1] > start[k]:
                    scores[t, 0, k, a] = score[order[start[k]]]


@kernel
def accumulate_weighted(
    order, start, weight, outside, candidate, matched, gt_ignored, counts, recall_points, first, last, ap,
    recall,
):  # fmt: skip
    """As `accumulate` where each detection counts `weight` (D,) times and each truth is in `counts` (K, A) as
    often as its image was drawn: AP and recall (T, K, A) of the images so repeated."""
    thresholds = matched.shape[2]
    most = 1
    for k in range(first, last):
        most = max(most, start[k + 1] - start[k])
    exact, reached = np.zeros((thresholds, most)), np.zeros((thresholds, most))
    for k in range(first, last):
        for a in range(len(outside)):
            if counts[k, a] == 0:
                continue
            tp, fp = np.zeros(thresholds), np.zeros(thresholds)
            steps, alone = np.zeros(thresholds, dtype=np.int64), 0.0
            for place in range(start[k], start[k + 1]):
                d = order[place]
                c = candidate[d]
                if weight[d] == 0:
                    continue
                if c < 0:
                    alone += 0.0 if outside[a, d] else weight[d]
                    continue
                for t in range(thresholds):
                    g = matched[c, a, t]
                    if g < 0:
                        fp[t] += 0.0 if outside[a, d] else weight[d]
                    elif not gt_ignored[a, g]:
                        tp[t] += weight[d]
                        exact[t, steps[t]] = tp[t] / (fp[t] + alone + tp[t])
                        reached[t, steps[t]] = tp[t] / counts[k, a]
                        steps[t] += 1
            for t in range(thresholds):
                recall[t, k, a] = tp[t] / counts[k, a]
                for n in range(steps[t] - 2, -1, -1):
                    exact[t, n] = max(exact[t, n], exact[t, n + 1])
                n, total = 0, 0.0
                for r in range(len(recall_points)):
                    while n < steps[t] and reached[t, n] < recall_points[r]:
                        n += 1
                    total += exact[t, n] if n < steps[t] else 0.0
                ap[t, k, a] = total / len(recall_points)
