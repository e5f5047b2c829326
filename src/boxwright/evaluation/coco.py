"""COCO's average precision and recall, number for number as pycocotools 2.0 has them.

Lin et al., Microsoft COCO, ECCV 2014; https://cocodataset.org/#detection-eval.
"""

from dataclasses import dataclass

import numpy as np

from boxwright.evaluation.matching import Matching

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], dtype=np.float64)
ALL, SMALL, MEDIUM, LARGE = range(4)


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision at the 101 recall points and the greatest recall; -1 where there is no truth.

    Attributes:
        precision: (T, R, K, A, M): thresholds, recall points, categories, areas, `max_dets`.
        recall: (T, K, A, M).
        scores: (T, R, K, A, M) score at each recall point.
        truth_count: (K, A) truths that count.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    truth_count: np.ndarray


def precision_recall(matching: Matching, categories: int, max_dets: tuple[int, ...]) -> PrecisionRecall:
    """COCOeval.accumulate: for every category, area range and limit of detections."""
    areas, thresholds, _ = matching.matched.shape
    shape = (thresholds, len(RECALL_POINTS), categories, areas, len(max_dets))
    precision, scores = -np.ones(shape), -np.ones(shape)
    recall = -np.ones((thresholds, categories, areas, len(max_dets)))
    truth_count = np.zeros((categories, areas), dtype=np.int64)
    ignored = matching.ignored()
    det_range = np.searchsorted(matching.det_category, np.arange(categories + 1))
    gt_range = np.searchsorted(matching.gt_category, np.arange(categories + 1))
    for k in range(categories):
        dets = slice(det_range[k], det_range[k + 1])
        gts = slice(gt_range[k], gt_range[k + 1])
        truth_count[k] = (~matching.gt_ignored[:, gts]).sum(axis=1)
        for m, limit in enumerate(max_dets):
            within = np.flatnonzero(matching.det_rank[dets] < limit)
            order = within[np.argsort(-matching.det_score[dets][within], kind="stable")] + dets.start
            for a in range(areas):
                if truth_count[k, a] == 0:
                    continue
                found = matching.matched[a][:, order] >= 0
                counted = ~ignored[a][:, order]
                precision[:, :, k, a, m], recall[:, k, a, m], scores[:, :, k, a, m] = _curve(
                    found & counted, ~found & counted, matching.det_score[order], truth_count[k, a]
                )
    return PrecisionRecall(precision, recall, scores, truth_count)


def summary(curves: PrecisionRecall, max_dets: tuple[int, ...]) -> dict[str, float]:
    """The twelve numbers of COCOeval.summarize; AP is taken at the largest limit of `max_dets`."""
    p, r = curves.precision, curves.recall
    last = len(max_dets) - 1
    numbers = {
        "AP": mean_where_defined(p[:, :, :, ALL, last]),
        "AP50": mean_where_defined(p[0, :, :, ALL, last]),
        "AP75": mean_where_defined(p[5, :, :, ALL, last]),
    }
    for name, area in (("s", SMALL), ("m", MEDIUM), ("l", LARGE)):
        numbers[f"AP{name}"] = mean_where_defined(p[:, :, :, area, last])
    for m, limit in enumerate(max_dets):
        numbers[f"AR{limit}"] = mean_where_defined(r[:, :, ALL, m])
    for name, area in (("s", SMALL), ("m", MEDIUM), ("l", LARGE)):
        numbers[f"AR{name}"] = mean_where_defined(r[:, :, area, last])
    return numbers


def mean_where_defined(values: np.ndarray) -> float:
    """Mean over what isn't -1; -1 where nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else -1.0


def _curve(true_positive, false_positive, score, truth_count):
    """Precision and score at the recall points, and the last recall, of (T, D) flags sorted by score."""
    thresholds, detections = true_positive.shape
    precision = np.zeros((thresholds, len(RECALL_POINTS)))
    scores = np.zeros((thresholds, len(RECALL_POINTS)))
    if detections == 0:
        return precision, np.zeros(thresholds), scores
    tp = np.cumsum(true_positive, axis=1, dtype=np.float64)
    fp = np.cumsum(false_positive, axis=1, dtype=np.float64)
    recalls = tp / truth_count
    exact = tp / (fp + tp + np.spacing(1))
    envelope = np.maximum.accumulate(exact[:, ::-1], axis=1)[:, ::-1]
    for t in range(thresholds):
        at = np.searchsorted(recalls[t], RECALL_POINTS, side="left")
        reached = at < detections
        precision[t, reached] = envelope[t, at[reached]]
        scores[t, reached] = score[at[reached]]
    return precision, recalls[:, -1], scores
