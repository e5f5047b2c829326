"""The table of suspicions: which label, what is wrong with it, how likely, and what would repair it."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from boxwright.auditing.elsewhere import shown_elsewhere
from boxwright.auditing.evidence import CANDIDATE_NUMBERS, LABEL_NUMBERS
from boxwright.auditing.gain import Gains
from boxwright.auditing.judging import OF_LABELS, Judgement, judge
from boxwright.auditing.schema import BOX, SUSPICION_SCHEMA
from boxwright.data.oriented import wrap
from boxwright.data.tables import Tables, frame

LEAST = 0.05  # probability of a row
SHIFT, GROWTH = 0.08, 0.1  # in shares of a side: less is neither shifted nor loose or tight


def suspect(
    labels: Tables, predictions: Tables, seed: int = 0, tell: Callable[[int], None] = lambda count: None
) -> pl.DataFrame:
    """All suspicions with a probability of `LEAST` or more, likeliest first; `SUSPICION_SCHEMA`.

    Args:
        labels, predictions, seed, tell: see `judge`.

    Raises:
        DataError: too few images or labels to learn from.
    """
    judgement = judge(labels, predictions, seed, tell)
    gains = Gains(labels, predictions)
    rows = _of_labels(labels, predictions, judgement, gains)
    rows += _of_missing(labels, predictions, judgement, gains)
    table = frame(SUSPICION_SCHEMA, {n: [row.get(n) for row in rows] for n in SUSPICION_SCHEMA})
    return table.sort("probability", "gain", descending=True, maintain_order=True)


def _of_labels(labels: Tables, predictions: Tables, judgement: Judgement, gains: Gains) -> list[dict]:
    evidence, names = judgement.labels, labels.categories["name"].to_list()
    elsewhere, rows = shown_elsewhere(evidence, len(LABEL_NUMBERS)), []
    for n, k in zip(*np.nonzero(judgement.faults >= LEAST)):
        kind, label, probability = OF_LABELS[k], int(evidence.rows[n]), float(judgement.faults[n, k])
        means = int((evidence.other if kind == "class" else evidence.partner)[n])
        old = labels.boxes.row(label, named=True)
        found = predictions.boxes.row(means, named=True) if means >= 0 else None
        new, detail = _repair(kind, old, found, names)
        rows.append(
            _place(labels, old["image_id"])
            | {name: old[name] for name in BOX}
            | {"kind": kind, "row": label, "category": names[old["category_id"]], "source": old["source"]}
            | {"probability": probability, "gain": probability * _gain(gains, kind, label, means)}
            | {
                "detail": _with_others(detail, kind, *elsewhere[n]),
                "score": found["score"] if found else None,
            }
            | new
        )
    return rows


def _gain(gains: Gains, kind: str, label: int, means: int) -> float:
    """Of AP, which headings don't change."""
    if kind == "heading":
        return 0.0
    if kind in ("spurious", "duplicate"):
        return gains.removed(label)
    return gains.renamed(label, means) if kind == "class" else gains.moved(means)


def _repair(kind: str, old: dict, found: dict | None, names: Sequence[str]) -> tuple[dict, str | None]:
    """What the label becomes, and how to say what is wrong with it."""
    own = {f"new_{name}": old[name] for name in BOX} | {"new_category": names[old["category_id"]]}
    if kind == "heading":
        return own | {"new_angle": _wrap(old["angle"] + math.pi)}, None
    if kind in ("spurious", "duplicate") or found is None:
        return {}, None
    if kind == "class":
        new = names[found["category_id"]]
        return own | {"new_category": new}, f"{names[old['category_id']]} is {new}"
    box = {f"new_{name}": found[name] for name in BOX}
    if old["angle"] is not None and found["angle"] is not None:
        turned = abs(_wrap(found["angle"] - old["angle"])) > math.pi / 2
        box["new_angle"] = _wrap(found["angle"] + (math.pi if turned else 0))
    return own | box, _how(old, found) if kind == "location" else None


def _with_others(detail: str | None, kind: str, shown: int, labelled: int) -> str | None:
    """A detail, and what other images of the place say of whether there is an object."""
    if not shown or kind not in ("missing", "spurious"):
        return detail
    images = "1 other image" if shown == 1 else f"{shown} other images"
    return f"labelled in {labelled} of {images} of this place"


def _how(old: dict, found: dict) -> str:
    """How a label lies beside the box that means the same object."""
    shift = math.hypot(
        (old["x"] + old["w"] / 2 - found["x"] - found["w"] / 2) / found["w"],
        (old["y"] + old["h"] / 2 - found["y"] - found["h"] / 2) / found["h"],
    )
    growth = old["w"] * old["h"] / (found["w"] * found["h"])
    words = [f"shifted by {shift:.0%} of a side"] if shift >= SHIFT else []
    if abs(math.log(growth)) >= 2 * GROWTH:
        words.append(f"{'loose' if growth > 1 else 'tight'}: {growth:.2f} of the area")
    return ", ".join(words) or "other sides"


def _of_missing(labels: Tables, predictions: Tables, judgement: Judgement, gains: Gains) -> list[dict]:
    names = labels.categories["name"].to_list()
    elsewhere, rows = shown_elsewhere(judgement.candidates, len(CANDIDATE_NUMBERS)), []
    for n in np.flatnonzero(judgement.missing >= LEAST):
        row = int(judgement.candidates.rows[n])
        found = predictions.boxes.row(row, named=True)
        probability = float(judgement.missing[n])
        rows.append(
            _place(labels, found["image_id"])
            | {f"new_{name}": found[name] for name in BOX}
            | {"kind": "missing", "probability": probability, "gain": probability * gains.added(row)}
            | {"new_category": names[found["category_id"]], "category": names[found["category_id"]]}
            | {"score": found["score"], "detail": _with_others(None, "missing", *elsewhere[n])}
        )
    return rows


def _place(labels: Tables, image: int) -> dict:
    return {"image_id": image, "file_name": labels.images["file_name"][image]}


def _wrap(angle: float) -> float:
    return float(wrap(np.float64(angle), 2 * math.pi))
