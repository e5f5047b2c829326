"""Average precision in its conventions: VOC 2007 and 2010, DOTA's kit, COCO's 101 points."""

import numpy as np

from boxwright.data.tables import Tables
from boxwright.errors import ConfigError
from boxwright.evaluation.coco import IOU_THRESHOLDS, RECALL_POINTS
from boxwright.evaluation.matching import Matching, Rule, match
from boxwright.evaluation.reading import Reading, by_category, mean

# The recall points of a mean; "area" has none, it is the area under the whole curve.
POINTS = {
    "area": None,  # VOC 2010 on, DOTA's default
    "11": np.arange(11) / 10,  # VOC 2007
    # The floats of DOTA's kit: 0.3, 0.6 and 0.7 lie a hair too high, and a recall of 3/10 misses its step.
    "11-kit": np.arange(0.0, 1.1, 0.1),
    "101": RECALL_POINTS,  # COCO, whose linspace has such steps too
    "101-tidecv": np.arange(101) / 100,
}


def average_precision(true_positive: np.ndarray, truth: int, kind: str = "101") -> float | None:
    """AP of detections by descending score.

    Args:
        true_positive: (D,) bool, those that count; False is a false positive.
        truth: objects there are.
        kind: "area", "11", "11-kit" or "101".

    Returns:
        AP in [0, 1]; None without truth.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind not in POINTS:
        raise ConfigError(f"AP of kind '{kind}', expected one of {', '.join(POINTS)}.")
    if truth == 0:
        return None
    tp = np.cumsum(true_positive)
    recall, precision = tp / truth, tp / np.arange(1, len(tp) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    points = POINTS[kind]
    if points is None:
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    at = np.searchsorted(recall, points, side="left")
    return float(np.append(envelope, 0.0)[at].mean())


def voc(truth: Tables, predictions: Tables, iou: float = 0.5, plus_one: bool = False) -> Reading:
    """Pascal VOC's AP, by 11 points (2007) and by area (2010), with its rule of matching.

    Difficult, crowd and ignored truth counts neither way.

    Args:
        truth, predictions: aligned tables.
        iou: threshold; a detection must lie above it.
        plus_one: sides are one pixel longer, as the MATLAB and DOTA kits have them.
    """
    matching = match(
        truth, predictions, np.array([iou]), rule="voc", skip_difficult=True, plus_one=plus_one
    )  # fmt: skip
    rows = _rows(truth, matching, ("11", "area"))
    rows = [
        {"class": r["class"], "truth": r["truth"], "TP": r["TP"], "FP": r["FP"]}
        | {"voc07": r["AP 11"], "voc10": r["AP area"]}
        for r in rows
    ]
    return Reading(
        title=f"VOC, IoU {iou:g}" + (", sides + 1" if plus_one else ""),
        overall={name: mean(r[name] for r in rows) for name in ("voc07", "voc10")},
        rows=rows,
        source="Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010",
    )


def oriented(
    truth: Tables,
    predictions: Tables,
    rule: Rule = "voc",
    kind: str | None = None,
    iou_thresholds: np.ndarray = IOU_THRESHOLDS,
    plus_one: bool = False,
) -> Reading:
    """AP, true and false positives at every IoU threshold and class, of oriented or upright boxes.

    Args:
        truth, predictions: aligned tables.
        rule: "voc" as DOTA's kit and mmrotate match, "coco" for COCO's greedy match; difficult truth counts
            neither way in both.
        kind: of the AP, see `average_precision`; None: "area" for voc, "101" for coco.
        iou_thresholds: (T,).
        plus_one: sides are one pixel longer.
    """
    kind = kind or {"voc": "area", "coco": "101"}[rule]
    matching = match(truth, predictions, iou_thresholds, rule=rule, skip_difficult=True, plus_one=plus_one)
    rows = _rows(truth, matching, (kind,))
    for row in rows:
        row["AP"] = row.pop(f"AP {kind}")
    by_iou = {f"AP{100 * t:.0f}": mean(r["AP"] for r in rows if r["IoU"] == t) for t in iou_thresholds}
    name = "DOTA's match" if rule == "voc" else "COCO's match"
    return Reading(
        title=f"Oriented AP, {name}, {kind} interpolation",
        overall={"AP": mean(by_iou.values())} | by_iou,
        rows=[{"class": r["class"], "IoU": r["IoU"], "AP": r["AP"]} | _counts(r) for r in rows],
        source="Xia et al., DOTA, CVPR 2018 (DOTA_devkit)" if rule == "voc" else "COCO",
    )


def _counts(row: dict) -> dict:
    return {key: row[key] for key in ("TP", "FP", "truth")}


def _rows(truth: Tables, matching: Matching, kinds: tuple[str, ...]) -> list[dict]:
    """A row for each category and IoU threshold."""
    counts = matching.truth_counts()
    names = truth.categories["name"].to_list()
    rows = []
    for t, threshold in enumerate(matching.thresholds):
        hit, _ = matching.outcomes(t)
        for k, dets in by_category(matching, t):
            flags = hit[dets]
            tp = int(flags.sum())
            aps = {f"AP {kind}": average_precision(flags, int(counts[k]), kind) for kind in kinds}
            row = {"class": names[k], "IoU": float(threshold), "TP": tp, "FP": len(flags) - tp}
            rows.append(row | {"truth": int(counts[k])} | aps)
    return sorted(rows, key=lambda r: names.index(r["class"]))
