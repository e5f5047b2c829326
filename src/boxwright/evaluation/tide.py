"""What a detector's errors cost: each kind is mended in turn, and AP is taken again.

Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020, sections 2 and 3.
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from boxwright.data.tables import Tables
from boxwright.evaluation.average_precision import average_precision
from boxwright.evaluation.matching import match
from boxwright.evaluation.reading import Reading, mean
from boxwright.geometry.compilation import kernel
from boxwright.geometry.iou import prepare
from boxwright.geometry.kernels import overlap

NONE, CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(7)
NAMES = {
    CLASS: "Cls", LOCATION: "Loc", BOTH: "Both", DUPLICATE: "Dupe", BACKGROUND: "Bkg", MISSED: "Miss",
}  # fmt: skip
MEANINGS = {
    CLASS: "right place, wrong class",
    LOCATION: "right class, badly placed",
    BOTH: "wrong class and badly placed",
    DUPLICATE: "an object found before",
    BACKGROUND: "nothing there",
    MISSED: "not found at all",
}
COMPATIBLE_DETS = 100  # an image, of all classes: tidecv's limit


@dataclass(frozen=True)
class Diagnosis:
    """Errors and what they cost.

    Attributes:
        reading: AP to be gained by mending each kind, in points of 100; and how many there are.
        errors: one row an error: kind, det_row, gt_row (rows of the box tables, null for none), iou.
    """

    reading: Reading
    errors: pl.DataFrame


def tide(
    truth: Tables,
    predictions: Tables,
    iou: float = 0.5,
    background_iou: float = 0.1,
    max_dets: int = 100,
    compatible: bool = False,
) -> Diagnosis:
    """Sort every false positive and every miss into one of six kinds, and weigh them.

    Args:
        truth, predictions: aligned tables.
        iou: from which a detection is true.
        background_iou: up to which a detection has nothing to do with an object.
        max_dets: detections kept an image and class, as for COCO's AP.
        compatible: number for number as tidecv 1.0.1, whose own rules differ from COCO's: 100 detections an
            image over all classes, ignored detections can be errors too, equal scores put errors first, and
            a class with detections but no truth has AP 0. Ours keeps COCO's AP and its match.
    """
    case = (
        _compatible_case(truth, predictions, iou) if compatible else _case(truth, predictions, iou, max_dets)
    )
    kind, target = np.zeros(len(case.score), np.int8), np.full(len(case.score), -1)
    target_iou = np.zeros(len(case.score))
    begin, end = case.ranges()
    _classify(
        case.dets, case.det_class, case.status, begin, end, case.gts, case.gt_class, case.used,
        (iou, background_iou), compatible, (kind, target, target_iou),
    )  # fmt: skip
    mended = _first_of_each_target(kind, target, case)
    usable = np.zeros(len(case.used), dtype=bool)
    usable[target[mended]] = True
    missed = ~case.used & ~usable

    base = _mean_ap(case, compatible)
    errors_first = case
    if compatible:
        errors_first = replace(case, position=case.position + len(case.position) * (case.status == 1))
    gains: dict[str, float] = {}
    for error in (CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND):
        gains[NAMES[error]] = max(
            0.0, _mean_ap(_mend(errors_first, kind == error, mended, target), compatible) - base
        )
    counts = case.truth - np.bincount(case.gt_class[missed], minlength=len(case.truth))
    gains["Miss"] = max(0.0, _mean_ap(replace(errors_first, truth=counts), compatible) - base)
    unfound = case.truth - np.bincount(case.gt_class[~case.used], minlength=len(case.truth))
    certain = replace(errors_first, score=(case.status == 1).astype(float))
    special = {
        "FalsePos": _mean_ap(certain, compatible) - base,
        "FalseNeg": _mean_ap(replace(errors_first, truth=unfound), compatible) - base,
    }
    number = {NAMES[e]: int((kind == e).sum()) for e in NAMES} | {"Miss": int(missed.sum())}
    rows = [
        {"error": NAMES[e], "meaning": MEANINGS[e], "AP points": gains[NAMES[e]], "count": number[NAMES[e]]}
        for e in NAMES
    ]
    reading = Reading(
        title=f"TIDE, IoU {iou:g} and {background_iou:g}" + (", as tidecv" if compatible else ""),
        overall={f"AP{100 * iou:.0f}": base, **special},
        rows=rows,
        source="Bolya et al., TIDE, ECCV 2020",
    )
    return Diagnosis(reading, _error_table(case, kind, target, target_iou, missed))


@dataclass(frozen=True)
class _Case:
    """Detections by image and descending score, and truth that counts by image.

    `status` is 1 for a true positive, 0 for a false one, -1 for one that doesn't count; `position` decides
    between equal scores; `truth` (K,) counts objects.
    """

    dets: np.ndarray
    det_class: np.ndarray
    det_image: np.ndarray
    det_row: np.ndarray
    score: np.ndarray
    status: np.ndarray
    position: np.ndarray
    gts: np.ndarray
    gt_class: np.ndarray
    gt_image: np.ndarray
    gt_row: np.ndarray
    used: np.ndarray
    truth: np.ndarray

    def ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the truth of each detection's image begins and ends."""
        sides = (np.searchsorted(self.gt_image, self.det_image, side=s) for s in ("left", "right"))
        begin, end = sides
        return begin, end


def _case(truth: Tables, predictions: Tables, iou: float, max_dets: int) -> _Case:
    """With the outcomes of COCO's match."""
    matching = match(truth, predictions, np.array([iou]), max_dets=max_dets)
    hit, false = matching.outcomes()
    found = matching.found()
    used = np.zeros(len(matching.gt_row), dtype=bool)
    used[found[hit]] = True
    dets = np.lexsort((-matching.det_score, matching.det_image))
    gts = np.flatnonzero(~matching.gt_ignored[0])
    gts = gts[np.argsort(matching.gt_image[gts], kind="stable")]
    return _Case(
        dets=prepare(matching.boxes[0][dets]),
        det_class=matching.det_category[dets].astype(np.int64),
        det_image=matching.det_image[dets],
        det_row=matching.det_row[dets],
        score=matching.det_score[dets],
        status=np.where(hit, 1, np.where(false, 0, -1))[dets],
        position=np.arange(len(dets)),
        gts=prepare(matching.boxes[1][gts]),
        gt_class=matching.gt_category[gts].astype(np.int64),
        gt_image=matching.gt_image[gts],
        gt_row=matching.gt_row[gts],
        used=used[gts],
        truth=matching.truth_counts(),
    )


def _compatible_case(truth: Tables, predictions: Tables, iou: float) -> _Case:
    """With tidecv's own match."""
    matching = match(truth, predictions, np.array([iou]), max_dets=COMPATIBLE_DETS, class_agnostic=True)
    det_class = predictions.boxes["category_id"].to_numpy()[matching.det_row].astype(np.int64)
    gt_class = truth.boxes["category_id"].to_numpy()[matching.gt_row].astype(np.int64)
    dets, gts = (prepare(b) for b in matching.boxes)
    ignored = matching.gt_ignored[0]
    begin, end = (np.searchsorted(matching.gt_image, matching.det_image, side=s) for s in ("left", "right"))
    status, used = np.zeros(len(dets), dtype=np.int64), np.zeros(len(gts), dtype=bool)
    _match_as_tidecv(dets, det_class, begin, end, gts, gt_class, ignored, iou, status, used)
    kept = np.flatnonzero(~ignored)
    image = predictions.boxes["image_id"].to_numpy()
    return _Case(
        dets=dets,
        det_class=det_class,
        det_image=matching.det_image,
        det_row=matching.det_row,
        score=matching.det_score,
        status=status,
        position=np.argsort(np.argsort(image[matching.det_row], kind="stable")),
        gts=gts[kept],
        gt_class=gt_class[kept],
        gt_image=matching.gt_image[kept],
        gt_row=matching.gt_row[kept],
        used=used[kept],
        truth=np.bincount(gt_class[kept], minlength=len(truth.categories)),
    )


def _first_of_each_target(kind: np.ndarray, target: np.ndarray, case: _Case) -> np.ndarray:
    """Detections whose mending makes a true positive: the best of those that mean the same unfound truth."""
    rows = np.flatnonzero(((kind == CLASS) | (kind == LOCATION)) & ~np.append(case.used, True)[target])
    rows = rows[np.argsort(-case.score[rows], kind="stable")]
    _, first = np.unique(target[rows], return_index=True)
    return rows[first]


def _mend(case: _Case, chosen: np.ndarray, mended: np.ndarray, target: np.ndarray) -> _Case:
    """The case with the chosen errors mended: made true where they can be, else taken away."""
    status, det_class = case.status.copy(), case.det_class.copy()
    status[chosen] = -1
    becomes_true = mended[chosen[mended]]
    status[becomes_true] = 1
    det_class[becomes_true] = case.gt_class[target[becomes_true]]
    return replace(case, status=status, det_class=det_class)


def _mean_ap(case: _Case, compatible: bool) -> float:
    """Mean AP over classes, in points of 100."""
    counted = np.flatnonzero(case.status >= 0)
    order = counted[np.lexsort((case.position[counted], -case.score[counted], case.det_class[counted]))]
    edges = np.searchsorted(case.det_class[order], np.arange(len(case.truth) + 1))
    aps = []
    for k, count in enumerate(case.truth):
        flags = case.status[order[edges[k] : edges[k + 1]]] == 1
        ap = average_precision(flags, int(count), "101-tidecv" if compatible else "101")
        aps.append(0.0 if ap is None and compatible and len(flags) else ap)
    return 100 * (mean(aps) or 0.0)


def _error_table(case: _Case, kind, target, target_iou, missed) -> pl.DataFrame:
    wrong, lost = np.flatnonzero(kind), np.flatnonzero(missed)
    gt_row = np.append(case.gt_row, -1)[target[wrong]]
    names = [NAMES[int(k)] for k in kind[wrong]] + ["Miss"] * len(lost)
    return pl.DataFrame(
        {
            "kind": pl.Series(names, dtype=pl.String),
            "det_row": pl.Series(np.append(case.det_row[wrong], np.full(len(lost), -1)), dtype=pl.Int64),
            "gt_row": pl.Series(np.append(gt_row, case.gt_row[lost]), dtype=pl.Int64),
            "iou": pl.Series(np.append(target_iou[wrong], np.zeros(len(lost))), dtype=pl.Float64),
        }
    ).with_columns(pl.when(pl.col("det_row", "gt_row") >= 0).then(pl.col("det_row", "gt_row")))


@kernel
def _classify(dets, det_class, status, begin, end, gts, gt_class, used, limits, ignored_too, result):
    """Fill the kind of each error, the truth it means, and their IoU."""
    kind, target, target_iou = result
    high, low = limits
    for d in range(len(dets)):
        if status[d] == 1 or (status[d] < 0 and not ignored_too):
            continue
        same = other = taken = 0.0
        same_at = other_at = -1
        for g in range(begin[d], end[d]):
            iou = overlap(dets, d, gts, g, False)
            if gt_class[g] != det_class[d]:
                if iou > other:
                    other, other_at = iou, g
                continue
            if iou > same:
                same, same_at = iou, g
            if used[g]:
                taken = max(taken, iou)
        if same_at >= 0 and low <= same <= high:
            kind[d], target[d], target_iou[d] = LOCATION, same_at, same
        elif other_at >= 0 and other >= high:
            kind[d], target[d], target_iou[d] = CLASS, other_at, other
        elif taken >= high:
            kind[d], target[d], target_iou[d] = DUPLICATE, same_at, same
        elif max(same, other) <= low:
            kind[d], target_iou[d] = BACKGROUND, max(same, other)
        else:
            kind[d], target[d], target_iou[d] = BOTH, other_at, other


@kernel
def _match_as_tidecv(dets, det_class, begin, end, gts, gt_class, ignored, threshold, status, used):
    for d in range(len(dets)):
        best, best_iou = -1, 0.0
        for g in range(begin[d], end[d]):
            if not ignored[g] and not used[g] and gt_class[g] == det_class[d]:
                iou = overlap(dets, d, gts, g, False)
                if iou > best_iou:
                    best, best_iou = g, iou
        if best >= 0 and best_iou >= threshold:
            status[d], used[best] = 1, True
            continue
        for g in range(begin[d], end[d]):
            if ignored[g] and gt_class[g] == det_class[d] and overlap(dets, d, gts, g, True) > threshold:
                status[d] = -1
