"""The loops of matching and of average precision, over arrays sorted by category and image."""

import numpy as np

from boxwright.geometry.compilation import kernel
from boxwright.geometry.kernels import overlap

SMALL_RUN = 32  # an insertion sort is faster below
DIGIT = 11  # bits that a pass of the radix sort takes


@kernel
def counting_order(key, buckets, rows):
    """`rows` by their key, stable, and where each key starts."""
    start = np.zeros(buckets + 1, dtype=np.int64)
    for row in rows:
        start[key[row] + 1] += 1
    for k in range(buckets):
        start[k + 1] += start[k]
    place, result = start.copy(), np.empty_like(rows)
    for row in rows:
        result[place[key[row]]] = row
        place[key[row]] += 1
    return result, start


@kernel
def sort_within(rows, start, image, images, score, first, last):
    """Sort `rows`, which stand by category, by image and descending score; categories `first` to `last`."""
    for k in range(first, last):
        part, _ = counting_order(image, images, rows[start[k] : start[k + 1]])
        rows[start[k] : start[k + 1]] = part
        begin = start[k]
        for n in range(start[k] + 1, start[k + 1] + 1):
            if n == start[k + 1] or image[rows[n]] != image[rows[begin]]:
                _sort_run(rows, begin, n, score)
                begin = n


@kernel
def _sort_run(order, start, end, score):
    if end - start > SMALL_RUN:
        run = order[start:end].copy()
        by_score = np.argsort(-score[run], kind="mergesort")
        for n in range(len(run)):
            order[start + n] = run[by_score[n]]
        return
    for n in range(start + 1, end):
        row, m = order[n], n
        while m > start and score[order[m - 1]] < score[row]:
            order[m] = order[m - 1]
            m -= 1
        order[m] = row


@kernel
def places_in_group(category, image):
    """(N,) int32: 0, 1, 2 ... within each run of one category and image."""
    result = np.zeros(len(category), dtype=np.int32)
    for n in range(1, len(category)):
        if category[n] == category[n - 1] and image[n] == image[n - 1]:
            result[n] = result[n - 1] + 1
    return result


@kernel
def gather(rows, values, areas, low, high, first, last, sorted_values, outside):
    """Fill `sorted_values` (N, V) and `outside` (A, N) from columns `values` (V, M) and `areas` (M,)."""
    for n in range(first, last):
        row = rows[n]
        for v in range(len(values)):
            sorted_values[n, v] = values[v, row]
        for a in range(len(low)):
            outside[a, n] = areas[row] < low[a] or areas[row] > high[a]


@kernel
def order_by_score(score, start, first, last, order):
    """Fill `order` with places by descending score, stable, within categories `first` to `last`."""
    for k in range(first, last):
        order[start[k] : start[k + 1]] = start[k] + _descending(score[start[k] : start[k + 1]])


@kernel
def _descending(values):
    """Places by descending value, stable: a radix sort of the bits of the floats."""
    # Bits of positive floats ascend with them, of negative ones descend; + 0.0 makes -0.0 the same as 0.0.
    bits = (values + 0.0).view(np.int64)
    key = np.empty(len(bits), dtype=np.uint64)
    for n in range(len(bits)):
        key[n] = np.uint64(~bits[n] & 0x7FFFFFFFFFFFFFFF) if bits[n] >= 0 else np.uint64(bits[n])
    order, other = np.arange(len(key)), np.empty(len(key), dtype=np.int64)
    start = np.empty((1 << DIGIT) + 1, dtype=np.int64)
    mask = np.uint64((1 << DIGIT) - 1)
    for shift in range(0, 64, DIGIT):
        step = np.uint64(shift)
        start[:] = 0
        for n in range(len(key)):
            start[((key[n] >> step) & mask) + np.uint64(1)] += 1
        if start.max() == len(key):
            continue
        for n in range(1 << DIGIT):
            start[n + 1] += start[n]
        for row in order:
            digit = (key[row] >> step) & mask
            other[start[digit]] = row
            start[digit] += 1
        order, other = other, order
    return order


@kernel
def truth_of_detections(det_category, det_image, gt_category, gt_image, begin, end):
    """Fill the range of truth that lies in each detection's category and image: `begin`, `end` (D,) int32."""
    g = g_end = 0
    for d in range(len(det_category)):
        if d > 0 and det_category[d] == det_category[d - 1] and det_image[d] == det_image[d - 1]:
            begin[d], end[d] = begin[d - 1], end[d - 1]
            continue
        g = g_end
        while g < len(gt_category) and (
            gt_category[g] < det_category[d]
            or (gt_category[g] == det_category[d] and gt_image[g] < det_image[d])
        ):
            g += 1
        g_end = g
        while (
            g_end < len(gt_category)
            and gt_category[g_end] == det_category[d]
            and gt_image[g_end] == det_image[d]
        ):
            g_end += 1
        begin[d], end[d] = g, g_end


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
            for d in order[start[k] : start[k + 1]]:
                c = candidate[d]
                if c < 0:
                    alone += not outside[a, d]
                    continue
                for t in range(thresholds):
                    g = matched[c, a, t]
                    if g < 0:
                        fp[t] += not outside[a, d]
                    elif not gt_ignored[a, g]:
                        exact[t, tp[t]] = (tp[t] + 1.0) / (fp[t] + alone + tp[t] + 1.0 + np.spacing(1.0))
                        at[t, tp[t]] = score[d]
                        tp[t] += 1
                        for m in range(len(limits)):
                            within[t, m] += rank[d] < limits[m]
            for t in range(thresholds):
                for m in range(len(limits)):
                    recall[t, k, a, m] = within[t, m] / counts[k, a]
                _sample(
                    exact[t, : tp[t]], at[t, : tp[t]], counts[k, a], recall_points, precision[t, :, k, a],
                    scores[t, :, k, a],
                )  # fmt: skip
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
            for d in order[start[k] : start[k + 1]]:
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


@kernel
def _sample(exact, at, count, recall_points, precision, scores):
    """The envelope of precision, and the score, at each recall point; `exact` is at each true positive."""
    for n in range(len(exact) - 2, -1, -1):
        exact[n] = max(exact[n], exact[n + 1])
    n = 0
    for r in range(len(recall_points)):
        while n < len(exact) and (n + 1) / count < recall_points[r]:
            n += 1
        precision[r] = exact[n] if n < len(exact) else 0.0
        scores[r] = at[n] if n < len(exact) else 0.0
