"""COCO's average precision and recall, number for number as pycocotools 2.0 has them.

Lin et al., Microsoft COCO, ECCV 2014; https://cocodataset.org/#detection-eval.
"""

from dataclasses import dataclass

import numpy as np

from boxwright.evaluation.kernels import accumulate
from boxwright.evaluation.matching import Matching, in_parts

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREA_EDGES = (32.0**2, 96.0**2)  # px^2: small below the first, large above the second
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


def area_ranges(edges: tuple[float, float] = AREA_EDGES) -> np.ndarray:
    """(4, 2) least and greatest area of all, small, medium and large."""
    low, high = edges
    return np.array([[0, 1e10], [0, low], [low, high], [high, 1e10]], dtype=np.float64)


AREA_RANGES = area_ranges()


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


def summary(
    curves: PrecisionRecall, max_dets: tuple[int, ...], iou_thresholds: np.ndarray = IOU_THRESHOLDS
) -> dict[str, float]:
    """The twelve numbers of COCOeval.summarize; AP is taken at the largest limit of `max_dets`, AP50 and AP75
    where the grid has them."""
    p, r = curves.precision, curves.recall
    last = len(max_dets) - 1
    numbers = {"AP": mean_where_defined(p[:, :, :, ALL])}
    numbers |= {name: mean_where_defined(p[t, :, :, ALL]) for name, t in single_thresholds(iou_thresholds)}
    for name, area in (("s", SMALL), ("m", MEDIUM), ("l", LARGE)):
        numbers[f"AP{name}"] = mean_where_defined(p[:, :, :, area])
    for m, limit in enumerate(max_dets):
        numbers[f"AR{limit}"] = mean_where_defined(r[:, :, ALL, m])
    for name, area in (("s", SMALL), ("m", MEDIUM), ("l", LARGE)):
        numbers[f"AR{name}"] = mean_where_defined(r[:, :, area, last])
    return numbers


def single_thresholds(iou_thresholds: np.ndarray) -> list[tuple[str, int]]:
    """ "AP50" and "AP75" with their places in the grid, where it has them."""
    named = (("AP50", 0.5), ("AP75", 0.75))
    places = ((name, np.flatnonzero(np.abs(iou_thresholds - t) < 1e-9)) for name, t in named)
    return [(name, int(at[0])) for name, at in places if len(at)]


def mean_where_defined(values: np.ndarray) -> float:
    """Mean over what isn't -1; -1 where nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else -1.0
