"""Weighted box fusion: several models' boxes of one object become one box.

Solovyev et al., Weighted boxes fusion: Ensembling boxes from different object detection models, Image and
Vision Computing 2021, section 3. For oriented boxes the members of a cluster are first spelled alike: of the
four spellings of a rectangle (width and height exchanged, half turns) the one whose angle lies nearest that
of the cluster's first, best box.
"""

from collections.abc import Sequence

import numpy as np

from boxwright.errors import ConfigError
from boxwright.geometry.compilation import kernel
from boxwright.geometry.kernels import UPRIGHT, halves, hull_of, overlap

CONFIDENCES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")


def weighted_box_fusion(
    boxes: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    weights: Sequence[float] | None = None,
    iou_threshold: float = 0.55,
    min_score: float = 0.0,
    confidence: str = "avg",
    allows_overflow: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fuse the detections of several models in one image.

    Args:
        boxes: for each model (N, 4) xywh or (N, 5) cxcywh and angle; the same kind for all.
        scores: for each model (N,).
        labels: for each model (N,) integers.
        weights: of the models; None: 1 each.
        iou_threshold: a box joins the cluster whose fused box it overlaps most, if by more than this.
        min_score: boxes below it are left out.
        confidence: the fused score: "avg" of the members times the share of models that saw it, "max",
            "box_and_model_avg" or "absent_model_aware_avg" (ensemble-boxes' four).
        allows_overflow: "avg" may pass 1 where a model gave several boxes of a cluster.

    Returns:
        Boxes (K, 4 or 5), scores (K,), labels (K,), and the place of each one's best box among all that were
        given, model by model (K,); by descending score.

    Raises:
        ConfigError: lists of different length, or an unknown confidence.
    """
    if confidence not in CONFIDENCES:
        raise ConfigError(f"confidence '{confidence}', expected one of {', '.join(CONFIDENCES)}.")
    weight = np.ones(len(boxes)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (len(boxes) == len(scores) == len(labels) == len(weight)):
        raise ConfigError(
            f"{len(boxes)} lists of boxes, {len(scores)} of scores, {len(labels)} of labels and "
            f"{len(weight)} weights, expected as many of each."
        )
    filled = [np.asarray(b, dtype=np.float64) for b in boxes if len(b)]
    columns = {b.shape[1] for b in filled} or {UPRIGHT}
    if len(columns) > 1 or not columns <= {4, 5}:
        raise ConfigError(f"boxes of {sorted(columns)} columns, expected 4 or 5 for all.")
    every = np.concatenate(filled) if filled else np.zeros((0, 4))
    score = np.concatenate([np.asarray(s, dtype=np.float64).reshape(-1) for s in scores] or [np.zeros(0)])
    label = np.concatenate([np.asarray(x, dtype=np.int64).reshape(-1) for x in labels] or [np.zeros(0, int)])
    model = np.repeat(np.arange(len(boxes)), [len(b) for b in boxes])
    usable = np.flatnonzero((score >= min_score) & (every[:, 2] > 0) & (every[:, 3] > 0))
    every, score, label, model = every[usable], score[usable], label[usable], model[usable]

    weighted = score * weight[model]
    order = np.lexsort((-weighted, label))
    arrays = [np.ascontiguousarray(v[order]) for v in (every, weighted, label, model)]
    fused = np.zeros((len(order), every.shape[1]))
    fused_score, fused_label = np.zeros(len(order)), np.zeros(len(order), dtype=np.int64)
    leader = np.zeros(len(order), dtype=np.int64)
    count = _fuse(
        *arrays, weight, iou_threshold, CONFIDENCES.index(confidence), allows_overflow, fused, fused_score,
        fused_label, leader,
    )  # fmt: skip
    best = np.argsort(-fused_score[:count], kind="stable")
    return fused[best], fused_score[best], fused_label[best], usable[order[leader[best]]]


@kernel
def _fuse(
    boxes, weighted, label, model, weight, threshold, confidence, overflow, fused, score, fused_label, leader
):
    """Boxes stand by label and descending weighted score; gives the number of clusters."""
    models, columns = len(weight), boxes.shape[1]
    oriented = columns != UPRIGHT
    total = np.zeros((len(boxes), columns))  # sum of score times box
    mass, best, members = np.zeros(len(boxes)), np.zeros(len(boxes)), np.zeros(len(boxes))
    member_weight, seen_by = np.zeros(len(boxes)), np.zeros((len(boxes), models), dtype=np.bool_)
    fused_form, hull = np.zeros((len(boxes), 6 if oriented else 4)), np.zeros((4, len(boxes)))
    left, top, right, bottom = hull
    count = first = 0
    for i in range(len(boxes)):
        if i > 0 and label[i] != label[i - 1]:
            first = count
        form = halves(boxes[i : i + 1]) if oriented else boxes[i : i + 1]
        x0, y0, x1, y1 = hull_of(form, 0)
        cluster, greatest = -1, threshold
        for c in range(first, count):
            if left[c] < x1 and right[c] > x0 and top[c] < y1 and bottom[c] > y0:
                iou = overlap(fused_form, c, form, 0, False)
                if iou > greatest:
                    cluster, greatest = c, iou
        if cluster < 0:
            cluster = count
            count += 1
            fused[cluster], fused_label[cluster], leader[cluster] = boxes[i], label[i], i
        spelled = _spelled_like(boxes[i], fused[cluster]) if oriented else boxes[i]
        total[cluster] += weighted[i] * spelled
        mass[cluster] += weighted[i]
        best[cluster] = max(best[cluster], weighted[i])
        members[cluster] += 1
        member_weight[cluster] += weight[model[i]]
        seen_by[cluster, model[i]] = True
        if mass[cluster] > 0:
            fused[cluster] = total[cluster] / mass[cluster]
        fused_form[cluster] = halves(fused[cluster : cluster + 1])[0] if oriented else fused[cluster]
        left[cluster], top[cluster], right[cluster], bottom[cluster] = hull_of(fused_form, cluster)
    for c in range(count):
        seen = absent = 0.0
        for m in range(models):
            if seen_by[c, m]:
                seen += weight[m]
            else:
                absent += weight[m]
        mean = mass[c] / members[c]
        if confidence == 1:
            score[c] = best[c] / weight.max()
        elif confidence == 2:
            score[c] = mean * members[c] / member_weight[c] * seen / weight.sum()
        elif confidence == 3:
            score[c] = mean * members[c] / (member_weight[c] + absent)
        else:
            voices = members[c] if overflow else min(float(models), members[c])
            score[c] = mean * voices / weight.sum()
    return count


@kernel
def _spelled_like(box, reference):
    """The spelling of an oriented box whose angle lies within an eighth of a turn of the reference's."""
    quarter = np.round((reference[4] - box[4]) / (np.pi / 2))
    result = box.copy()
    result[4] = box[4] + quarter * (np.pi / 2)
    if quarter % 2 != 0:
        result[2], result[3] = box[3], box[2]
    return result
