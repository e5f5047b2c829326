"""Numba kernels over axis-aligned boxes, compiled at first use and cached on disk."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def overlap(ax, ay, aw, ah, bx, by, bw, bh, over_a):
    """IoU of two xywh boxes, or intersection over the first one's area where `over_a`.

    The operations stand in the order of COCO's maskApi.c (bbIou), so that results agree to the last bit.
    """
    w = min(ax + aw, bx + bw) - max(ax, bx)
    if w <= 0:
        return 0.0
    h = min(ay + ah, by + bh) - max(ay, by)
    if h <= 0:
        return 0.0
    intersection = w * h
    union = aw * ah if over_a else aw * ah + bw * bh - intersection
    return intersection / union


@njit(cache=True, nogil=True)
def iou_matrix(a, b):
    """IoU of every box of `a` (N, 4) with every box of `b` (M, 4), xywh float64; (N, M)."""
    result = np.zeros((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            result[i, j] = overlap(
                a[i, 0], a[i, 1], a[i, 2], a[i, 3], b[j, 0], b[j, 1], b[j, 2], b[j, 3], False
            )
    return result


@njit(cache=True, nogil=True)
def match_groups(dets, det_start, gts, gt_start, gt_crowd, gt_ignored, thresholds, matched):
    """Match detections to truth greedily by score, as COCOeval.evaluateImg does.

    A group is one image and one category. Detections stand in descending score within it.

    Args:
        dets: (D, 4) xywh float64.
        det_start: (N + 1,) first detection of each group, and D.
        gts: (G, 4) xywh float64.
        gt_start: (N + 1,) first truth of each group, and G.
        gt_crowd: (G,) bool: overlap is over the detection's area, and any number may match.
        gt_ignored: (A, G) bool: doesn't count, for each of A area ranges.
        thresholds: (T,) IoU.
        matched: (A, T, D) int32, filled with the index of the truth or left as it is.
    """
    for group in range(len(det_start) - 1):
        d0, d1 = det_start[group], det_start[group + 1]
        g0, g1 = gt_start[group], gt_start[group + 1]
        if d0 == d1 or g0 == g1:
            continue
        ious = np.empty((d1 - d0, g1 - g0))
        for d in range(d1 - d0):
            for g in range(g1 - g0):
                p, q = dets[d0 + d], gts[g0 + g]
                ious[d, g] = overlap(p[0], p[1], p[2], p[3], q[0], q[1], q[2], q[3], gt_crowd[g0 + g])
        for area in range(len(gt_ignored)):
            # Truth that counts is tried first; a match with it is never given up for an ignored one.
            order = np.argsort(gt_ignored[area, g0:g1], kind="mergesort")
            for t in range(len(thresholds)):
                taken = np.zeros(g1 - g0, dtype=np.bool_)
                for d in range(d1 - d0):
                    best, best_iou = -1, min(thresholds[t], 1 - 1e-10)
                    for g in order:
                        if taken[g] and not gt_crowd[g0 + g]:
                            continue
                        if best >= 0 and not gt_ignored[area, g0 + best] and gt_ignored[area, g0 + g]:
                            break
                        if ious[d, g] >= best_iou:
                            best, best_iou = g, ious[d, g]
                    if best >= 0:
                        taken[best] = True
                        matched[area, t, d0 + d] = g0 + best
