"""COCO's average precision and recall, number for number as pycocotools 2.0 has them.

Lin et al., Microsoft COCO, ECCV 2014; https://cocodataset.org/#detection-eval.
"""

from dataclasses import dataclass

import numpy as np

from boxwright.evaluation.kernels import accumulate
from boxwright.evaluation.matching import Matching, in_parts

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], dtype=np.float64)
ALL, SMALL, MEDIUM, LARGE = range(4)


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision at the 101 recall points and the greatest recall; -1 where there is no truth.

    Attributes:
        precision: (T, R, K, A): thresholds, recall points, categories, areas; at the last of `max_dets`.
        recall: (T, K, A, M), at each of M `max_dets`.
        scores: (T, R, K, A) score at each recall point.
        truth_count: (K, A) truths that count.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    truth_count: np.ndarray


def precision_recall(matching: Matching, max_dets: tuple[int, ...]) -> PrecisionRecall:
    """COCOeval.accumulate: for every category, area range and limit of detections."""
    _, areas, thresholds = matching.matches.shape
    categories = len(matching.starts) - 1
    shape = (thresholds, len(RECALL_POINTS), categories, areas)
    counts = np.stack([matching.truth_counts(a) for a in range(areas)], axis=1)
    defined = np.where(counts > 0, 0.0, -1.0)
    precision, scores = np.empty(shape), np.empty(shape)
    precision[:], scores[:] = defined, defined
    recall = np.empty((thresholds, categories, areas, len(max_dets)))
    recall[:] = defined[:, :, None]
    limits = np.asarray(max_dets)
    m = matching
    in_parts(
        m.starts,
        lambda first, last: accumulate(
            m.order, m.starts, m.det_score, m.det_rank, m.det_outside, m.candidate, m.matches, m.gt_ignored,
            counts, limits, RECALL_POINTS, first, last, precision, recall, scores,
        ),
    )  # fmt: skip
    return PrecisionRecall(precision, recall, scores, counts)


def summary(curves: PrecisionRecall, max_dets: tuple[int, ...]) -> dict[str, float]:
    """The twelve numbers of COCOeval.summarize; AP is taken at the largest limit of `max_dets`."""
    p, r = curves.precision, curves.recall
    last = len(max_dets) - 1
    numbers = {
        "AP": mean_where_defined(p[:, :, :, ALL]),
        "AP50": mean_where_defined(p[0, :, :, ALL]),
        "AP75": mean_where_defined(p[5, :, :, ALL]),
    }
    for name, area in (("s", SMALL), ("m", MEDIUM), ("l", LARGE)):
        numbers[f"AP{name}"] = mean_where_defined(p[:, :, :, area])
    for m, limit in enumerate(max_dets):
        numbers[f"AR{limit}"] = mean_where_defined(r[:, :, ALL, m])
    for name, area in (("s", SMALL), ("m", MEDIUM), ("l", LARGE)):
        numbers[f"AR{name}"] = mean_where_defined(r[:, :, area, last])
    return numbers


def mean_where_defined(values: np.ndarray) -> float:
    """Mean over what isn't -1; -1 where nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else -1.0
