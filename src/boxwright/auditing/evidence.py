"""What predictions tell of labels: a row of numbers for each label, and for each prediction that has none."""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from boxwright.auditing.pairs import Pairs, best, greatest, overlapping
from boxwright.data.tables import HEADING_CERTAINTY, Tables
from boxwright.geometry.conventions import respell_like

LEAST_SCORE = 0.03  # of a prediction that tells anything
LEAST_IOU = 0.05  # of a prediction that may mean a label
SAME, NEAR = 0.5, 0.75  # IoU from which boxes are of one object, and from which they agree
SURE = 0.3  # score of a prediction that counts as an object of the image

LABEL_NUMBERS = (
    "score_same",  # best of the label's class with an IoU of `SAME` or more, 0 for none
    "score_near",  # with an IoU of `NEAR` or more
    "score_beside",  # with less than `SAME`
    "score_other",  # best of another class, with an IoU of `SAME` or more
    "score_lead",  # score_same - score_other
    "iou_any",  # greatest with any prediction, whatever its class
    "trace",  # greatest IoU squared times score, of any class and however weak: most objects leave one
    "trace_same",  # of the label's class
    "iou",  # with the prediction that means it, of its class and likeliest by IoU times score; NaN for none
    "score",  # of that prediction
    "shift_x",  # of its centre from the label's, along the prediction's sides and in shares of them
    "shift_y",
    "grow_w",  # log of its sides over the label's
    "grow_h",
    "far",  # length of the shift, and of the growth
    "grown",
    "angle",  # between them, in [0, pi / 2]
    "heading",  # in [0, pi]
    "ahead",  # how surely the prediction points where the label does, from -1 to 1; 0 where nothing tells
    "iou_label",  # greatest with another label of the class
    "iou_label_other",  # of another class
    "rival",  # how much better a label that the same prediction means fits it: its IoU less this one's
    "size",  # log of the root of the area
    "aspect",  # log of width over height
    "border",  # least distance of its hull from the border, in its sides, 1 at most
    "category",
    "labels",  # in the image
    "predictions",  # in the image, with a score of `SURE` or more
)
# Not how far the border is: what it cuts is left out most, and what is often left out would pass for nothing.
CANDIDATE_NUMBERS = (
    "score",
    "iou_label_same",  # greatest with a label of its class
    "iou_label",  # with any label
    "iou_better",  # with a prediction of its class and a greater score
    "score_better",  # of that prediction
    "iou_better_other",  # of another class
    "size",
    "aspect",
    "category",
    "labels",
    "predictions",
)


@dataclass(frozen=True)
class Evidence:
    """What predictions tell.

    Attributes:
        rows: (N,) of the boxes it is about.
        numbers: (N, F) float64, `LABEL_NUMBERS` or `CANDIDATE_NUMBERS`; NaN where there is none.
        partner: (N,) of a label the prediction that means it, of a prediction the label that it overlaps
            most; -1 for none.
        other: (N,) of a label the prediction of another class that fits it best, by IoU squared times score
            and however weak; -1 for none.
    """

    rows: np.ndarray
    numbers: np.ndarray
    partner: np.ndarray
    other: np.ndarray


@dataclass(frozen=True)
class Boxes:
    """Some boxes of a table as arrays."""

    rows: np.ndarray  # (N,)
    rotated: np.ndarray  # (N, 5) cx, cy, w, h, angle
    image: np.ndarray  # (N,)
    category: np.ndarray  # (N,)
    score: np.ndarray  # (N,) NaN for labels

    @classmethod
    def of(cls, tables: Tables, wanted: np.ndarray) -> "Boxes":
        """Those that are wanted, (N,) bool."""
        boxes = tables.boxes.filter(wanted)
        score = boxes["score"].fill_null(math.nan).to_numpy()
        image, category = boxes["image_id"].to_numpy(), boxes["category_id"].to_numpy()
        return cls(np.flatnonzero(wanted), tables.rotated()[wanted], image, category, score)

    def overlapping(self, other: "Boxes", least: float = LEAST_IOU) -> Pairs:
        """Pairs of the same image."""
        return overlapping(self.rotated, self.image, other.rotated, other.image, least)


def judged_labels(labels: Tables) -> np.ndarray:
    """(N,) bool, boxes that can be judged: no crowds, ignored regions, or boxes without area."""
    boxes = labels.boxes
    return (~(boxes["crowd"] | boxes["ignore"]) & (boxes["w"] > 0) & (boxes["h"] > 0)).to_numpy()


def evidence_of_labels(labels: Tables, predictions: Tables) -> Evidence:
    """Evidence about each label that can be judged.

    Args:
        labels: of any images.
        predictions: over the same images and categories, by a model that hasn't learnt from these labels.
    """
    own, found = Boxes.of(labels, judged_labels(labels)), Boxes.of(predictions, _telling(predictions, 0.0))
    count, pairs = len(own.rows), own.overlapping(found)
    trace, trace_same, other = _traces(own, found, pairs)
    pairs = pairs.where(found.score[pairs.second] >= LEAST_SCORE)
    same = own.category[pairs.first] == found.category[pairs.second]
    score = found.score[pairs.second]

    def best_score(wanted: np.ndarray) -> np.ndarray:
        return greatest(score[wanted], pairs.first[wanted], count)

    close = pairs.iou >= SAME
    score_same, score_other = best_score(same & close), best_score(~same & close)
    means = pairs.where(same)
    chosen = best(means.iou * score[same], means.first, count)
    partner = np.where(chosen >= 0, np.append(means.second, -1)[chosen], -1)
    iou = np.append(means.iou, np.nan)[chosen]
    among = own.overlapping(own)
    among = among.where(among.first != among.second)
    alike = own.category[among.first] == own.category[among.second]
    columns = {
        "score_same": score_same,
        "score_near": best_score(same & (pairs.iou >= NEAR)),
        "score_beside": best_score(same & ~close),
        "score_other": score_other,
        "score_lead": score_same - score_other,
        "iou_any": greatest(pairs.iou, pairs.first, count),
        "trace": trace,
        "trace_same": trace_same,
        "iou": iou,
        "score": np.append(found.score, np.nan)[partner],
        "iou_label": greatest(among.iou[alike], among.first[alike], count),
        "iou_label_other": greatest(among.iou[~alike], among.first[~alike], count),
        "rival": _rivals(among.where(alike), partner, iou, pairs, count),
    }
    means = np.vstack([found.rotated, np.full(5, np.nan)])[partner]
    if not labels.has_headings():
        means = respell_like(means, own.rotated)
    columns |= differences(own.rotated, means)
    sure = np.append(_heading_certainty(predictions)[found.rows], 0.0)[partner]
    columns["ahead"] = np.where(columns["heading"] < math.pi / 2, sure, -sure)
    columns |= _surroundings(own, labels, own, found)
    numbers = np.column_stack([columns[name] for name in LABEL_NUMBERS])
    return Evidence(own.rows, numbers, _row(found.rows, partner), other)


def evidence_of_predictions(labels: Tables, predictions: Tables) -> Evidence:
    """Evidence about each prediction that no label is: what may be missing.

    Predictions are given to the labels they overlap by `SAME` or more whatever the class, best scores first;
    those that none is left for remain, unless their centre lies in an ignored region or a crowd.
    """
    own, found = Boxes.of(labels, judged_labels(labels)), Boxes.of(predictions, _telling(predictions))
    count = len(found.rows)
    pairs = found.overlapping(own)
    free = ~_taken(pairs, found.score, len(own.rows)) & ~_in_regions(found, labels)
    same = found.category[pairs.first] == own.category[pairs.second]
    among = found.overlapping(found)
    among = among.where(found.score[among.first] < found.score[among.second])
    alike = found.category[among.first] == found.category[among.second]
    better = best(among.iou[alike], among.first[alike], count)
    most = best(pairs.iou, pairs.first, count)
    columns = {
        "score": found.score,
        "iou_label_same": greatest(pairs.iou[same], pairs.first[same], count),
        "iou_label": greatest(pairs.iou, pairs.first, count),
        "iou_better": greatest(among.iou[alike], among.first[alike], count),
        "score_better": np.append(found.score[among.second[alike]], 0.0)[better],
        "iou_better_other": greatest(among.iou[~alike], among.first[~alike], count),
    }
    columns |= _surroundings(found, labels, own, found)
    numbers = np.column_stack([columns[name] for name in CANDIDATE_NUMBERS])
    partner = _row(own.rows, np.append(pairs.second, -1)[most])
    none = np.full(count, -1)
    return Evidence(found.rows[free], numbers[free], partner[free], none[free])


def _telling(predictions: Tables, least: float = LEAST_SCORE) -> np.ndarray:
    boxes = predictions.boxes
    return ((boxes["score"] >= least) & (boxes["w"] > 0) & (boxes["h"] > 0)).to_numpy()


def _traces(own: Boxes, found: Boxes, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of labels (N,) the greatest IoU squared times score, of any class and of theirs, and the row of the
    prediction of another class that has most."""
    count = len(own.rows)
    worth = pairs.iou**2 * found.score[pairs.second]
    same = own.category[pairs.first] == found.category[pairs.second]
    others = pairs.where(~same)
    other = np.append(others.second, -1)[best(worth[~same], others.first, count)]
    of_any = greatest(worth, pairs.first, count)
    return of_any, greatest(worth[same], pairs.first[same], count), _row(found.rows, other)


def _heading_certainty(predictions: Tables) -> np.ndarray:
    """(N,) in [0, 1], 0 where nothing tells."""
    told = predictions.boxes["attributes"].str.json_path_match(f"$.{HEADING_CERTAINTY}")
    return told.cast(pl.Float64, strict=False).fill_null(0.0).to_numpy()


def _row(rows: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Rows of a table from places among some of them; -1 stays."""
    return np.append(rows, -1)[place]


def _rivals(among: Pairs, partner: np.ndarray, iou: np.ndarray, pairs: Pairs, count: int) -> np.ndarray:
    """(N,) how much better than a label any other fits the prediction that means it; -1 without another."""
    width = int(pairs.second.max(initial=0)) + 1
    keys = pairs.first * width + pairs.second  # sorted by the first alone
    order = np.argsort(keys)
    wanted = among.second * width + partner[among.first]
    place = np.searchsorted(keys[order], wanted).clip(max=max(len(keys) - 1, 0))
    known = (partner[among.first] >= 0) & (len(keys) > 0)
    if len(keys):
        known &= keys[order][place] == wanted
    theirs = np.where(known, pairs.iou[order][place] if len(keys) else 0.0, 0.0)
    lead = theirs[known] - iou[among.first[known]]
    return greatest(lead, among.first[known], count, blank=-1.0)


def differences(labels: np.ndarray, means: np.ndarray) -> dict[str, np.ndarray]:
    """How boxes (N, 5) lie beside labels (N, 5)."""
    shift, turn = means[:, :2] - labels[:, :2], means[:, 4] - labels[:, 4]
    cos, sin = np.cos(means[:, 4]), np.sin(means[:, 4])
    along = (shift[:, 0] * cos + shift[:, 1] * sin) / means[:, 2]
    across = (shift[:, 1] * cos - shift[:, 0] * sin) / means[:, 3]
    grow = np.log(means[:, 2:4] / labels[:, 2:4])
    heading = np.abs(np.mod(turn + math.pi, 2 * math.pi) - math.pi)
    return {
        "shift_x": along,
        "shift_y": across,
        "grow_w": grow[:, 0],
        "grow_h": grow[:, 1],
        "far": np.hypot(along, across),
        "grown": np.hypot(grow[:, 0], grow[:, 1]),
        "angle": np.minimum(heading, math.pi - heading),
        "heading": heading,
    }


def _surroundings(boxes: Boxes, labels: Tables, own: Boxes, found: Boxes) -> dict[str, np.ndarray]:
    """Size and place of boxes, and how full their images are."""
    sizes = labels.images.select("width", "height").to_numpy().astype(float)[boxes.image]
    half = boxes.rotated[:, 2:4] / 2
    cos, sin = np.abs(np.cos(boxes.rotated[:, 4:])), np.abs(np.sin(boxes.rotated[:, 4:]))
    reach = half * cos + half[:, ::-1] * sin  # of the hull
    gaps = np.minimum(boxes.rotated[:, :2] - reach, sizes - boxes.rotated[:, :2] - reach)
    sure = found.image[found.score >= SURE]
    images = len(labels.images)
    return {
        "size": np.log(boxes.rotated[:, 2] * boxes.rotated[:, 3]) / 2,
        "aspect": np.log(boxes.rotated[:, 2] / boxes.rotated[:, 3]),
        "border": np.minimum((gaps / (2 * reach)).min(axis=1), 1.0),
        "category": boxes.category.astype(float),
        "labels": np.bincount(own.image, minlength=images)[boxes.image].astype(float),
        "predictions": np.bincount(sure, minlength=images)[boxes.image].astype(float),
    }


def _taken(pairs: Pairs, scores: np.ndarray, labels: int) -> np.ndarray:
    """(M,) bool, predictions that get a label: each in turn by its score the free label it overlaps most."""
    close = pairs.where(pairs.iou >= SAME)
    order = np.lexsort((-close.iou, close.first, -scores[close.first]))
    taken, used = np.zeros(len(scores), dtype=bool), np.zeros(labels, dtype=bool)
    for prediction, label in zip(close.first[order].tolist(), close.second[order].tolist()):
        if not taken[prediction] and not used[label]:
            taken[prediction] = used[label] = True
    return taken


def _in_regions(found: Boxes, labels: Tables) -> np.ndarray:
    """(M,) bool, predictions whose centre lies in a crowd or an ignored region."""
    regions = Boxes.of(labels, (labels.boxes["crowd"] | labels.boxes["ignore"]).to_numpy())
    pairs = found.overlapping(regions, least=0.0)
    shift = found.rotated[pairs.first, :2] - regions.rotated[pairs.second, :2]
    angle, half = regions.rotated[pairs.second, 4], regions.rotated[pairs.second, 2:4] / 2
    along = shift[:, 0] * np.cos(angle) + shift[:, 1] * np.sin(angle)
    across = shift[:, 1] * np.cos(angle) - shift[:, 0] * np.sin(angle)
    result = np.zeros(len(found.rows), dtype=bool)
    result[pairs.first[(np.abs(along) <= half[:, 0]) & (np.abs(across) <= half[:, 1])]] = True
    return result
