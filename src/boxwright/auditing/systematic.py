"""Faults that all labels of a source share: sides too long, boxes shifted, against what a detector finds."""

import math
from typing import Any

import numpy as np

from boxwright.auditing.evidence import SAME, SURE, Boxes, judged_labels
from boxwright.auditing.pairs import best
from boxwright.data.tables import Tables

ENOUGH = 30  # labels of a source that predictions mean
CERTAIN = 3.3  # standard errors that a fault is away from none: 1 in 1,000
LEAST_FACTOR, LEAST_SHIFT = 1.02, 0.3  # of sides, and px, that are worth a word


def systematic(labels: Tables, predictions: Tables) -> list[dict[str, Any]]:
    """A row a source of labels: how far its boxes are from the predictions that mean them, in the median.

    Sides are compared with those of the other sources, as a detector learns the sides that it is shown; where
    there is one source alone they tell nothing. Shifts stand for themselves where the detector was trained
    with mirror images, which have the opposite shift.

    Args:
        labels: with a `source` each.
        predictions: see `suspect`.

    Returns:
        source, boxes, shift_x, shift_y (px), times_w, times_h (of the predicted sides; None with one source),
        and `told`, what is wrong for sure and worth a word (empty: nothing).
    """
    own = Boxes.of(labels, judged_labels(labels))
    found = Boxes.of(predictions, (predictions.boxes["score"] >= SURE).to_numpy())
    pairs = own.overlapping(found, SAME)
    pairs = pairs.where(own.category[pairs.first] == found.category[pairs.second])
    chosen = best(pairs.iou, pairs.first, len(own.rows))
    there = np.flatnonzero(chosen >= 0)
    label, means = own.rotated[there], found.rotated[pairs.second[chosen[there]]]
    sources = labels.boxes["source"].fill_null("").to_numpy()[own.rows[there]]
    turn = np.abs(np.mod(label[:, 4] - means[:, 4] + math.pi / 2, math.pi) - math.pi / 2)
    alike = (turn < math.pi / 4)[:, None]
    off = np.hstack(
        [label[:, :2] - means[:, :2], np.where(alike, np.log(label[:, 2:4] / means[:, 2:4]), np.nan)]
    )
    rows = []
    for source in np.unique(sources):
        mine = sources == source
        if mine.sum() < ENOUGH:
            continue
        middle, error = _median(off[mine])
        others = off[~mine]
        alone = len(others) < ENOUGH
        if not alone:
            their_middle, their_error = _median(others)
            middle[2:] -= their_middle[2:]
            error[2:] = np.hypot(error[2:], their_error[2:])
        rows.append(_row(str(source), int(mine.sum()), middle, error, alone))
    return rows


def _median(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(4,) of (N, 4), and their standard errors."""
    middle = np.nanmedian(values, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(values - middle), axis=0)
    return middle, 1.2533 * spread / math.sqrt(len(values))


def _row(source: str, boxes: int, middle: np.ndarray, error: np.ndarray, alone: bool) -> dict[str, Any]:
    sure = np.abs(middle) > CERTAIN * np.maximum(error, 1e-9)
    told = [
        f"shifted by {middle[n]:+.1f} px in {axis}"
        for n, axis in enumerate("xy")
        if sure[n] and abs(middle[n]) >= LEAST_SHIFT
    ]
    factors = np.exp(middle[2:])
    if not alone:
        told += [
            f"{side} times {factors[n]:.3f}"
            for n, side in enumerate(("width", "height"))
            if sure[n + 2] and abs(middle[n + 2]) >= math.log(LEAST_FACTOR)
        ]
    times = [None, None] if alone else [float(f) for f in factors]
    shift = {"shift_x": float(middle[0]), "shift_y": float(middle[1])}
    return (
        {"source": source, "boxes": boxes}
        | shift
        | {
            "times_w": times[0],
            "times_h": times[1],
            "told": ", ".join(told),
        }
    )
