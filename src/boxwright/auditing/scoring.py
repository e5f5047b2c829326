"""How well an audit finds faults that were planted: precision and recall by kind, and of all."""

from typing import Any

import numpy as np
import polars as pl

from boxwright.auditing.evidence import SAME
from boxwright.auditing.pairs import overlapping
from boxwright.auditing.planting import KINDS

BINS = 10  # of the calibration error
WANTED = 0.9  # precision at which recall is told
LIKELY = 0.5
ALL = "all kinds"


def score_audit(suspicions: pl.DataFrame, answers: pl.DataFrame) -> list[dict[str, Any]]:
    """A row a kind, and one of `ALL`: what was planted and found.

    Precision and recall of suspicions with a probability of `LIKELY` or more, the recall at a precision of
    `WANTED`, the average precision of the ranking, and the expected calibration error of all its suspicions
    (Naeini et al., AAAI 2015, section 2). Faults that were in the labels before count as mistakes.

    Args:
        suspicions: of `suspect`, on labels with planted faults.
        answers: of `corrupt`.
    """
    hits = are_planted(suspicions, answers)
    rows = []
    for kind in KINDS:
        planted = len(answers.filter(pl.col("kind") == kind))
        own = (suspicions["kind"] == kind).to_numpy()
        if not planted and not own.any():
            continue
        probability = suspicions["probability"].to_numpy()[own]
        rows.append({"kind": kind, "planted": planted} | ranked(probability, hits[own], planted))
    probability = suspicions["probability"].to_numpy()
    return [*rows, {"kind": ALL, "planted": len(answers)} | ranked(probability, hits, len(answers))]


def ranked(probability: np.ndarray, hit: np.ndarray, planted: int) -> dict[str, float | None]:
    """Numbers of a ranking (N,) whose hits (N,) bool are some of so many."""
    order = np.argsort(-probability, kind="stable")
    positives = np.cumsum(hit[order])
    precision = positives / np.arange(1, len(order) + 1)
    good, likely = np.flatnonzero(precision >= WANTED), probability >= LIKELY
    total = max(planted, 1)
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    off = [abs(probability[place == n].sum() - hit[place == n].sum()) for n in np.unique(place)]
    return {
        "precision": float(hit[likely].mean()) if likely.any() else None,
        "recall": float(hit[likely].sum() / total),
        "recall at 0.9": float(positives[good[-1]] / total) if len(good) else 0.0,
        "AP": float(precision[hit[order]].sum() / total),
        "ECE": float(sum(off) / max(len(order), 1)),
    }


def are_planted(suspicions: pl.DataFrame, answers: pl.DataFrame) -> np.ndarray:
    """(N,) bool, suspicions of a planted fault of their kind.

    Either of two alike boxes is a duplicate, not both; of several that mean one missing box the likeliest is
    right, too.
    """
    fault_of = {(kind, row): n for n, (kind, row) in enumerate(answers.select("kind", "row").rows())}
    twins = {("duplicate", twin): n for n, twin in enumerate(answers["twin"]) if twin is not None}
    fault_of = {pair: n for pair, n in (twins | fault_of).items() if pair[1] is not None}
    fault = np.array([fault_of.get(pair, -1) for pair in suspicions.select("kind", "row").rows()], dtype=int)
    likeliest = np.argsort(-suspicions["probability"].to_numpy(), kind="stable")
    hits = np.zeros(len(fault), dtype=bool)
    hits[likeliest[np.unique(fault[likeliest], return_index=True)[1]]] = True
    hits &= fault >= 0
    rows = np.flatnonzero((suspicions["kind"] == "missing").to_numpy())
    gone = answers.filter(pl.col("kind") == "missing")
    found = suspicions[rows]
    pairs = overlapping(
        _rotated(found, "new_"),
        found["image_id"].to_numpy(),
        _rotated(gone, ""),
        gone["image_id"].to_numpy(),
        SAME,
    )
    taken: set[int] = set()
    order = np.lexsort((-pairs.iou, -found["probability"].to_numpy()[pairs.first]))
    for place in order.tolist():
        row, fault = rows[pairs.first[place]], int(pairs.second[place])
        if fault not in taken and not hits[row]:
            taken.add(fault)
            hits[row] = True
    return hits


def _rotated(table: pl.DataFrame, prefix: str) -> np.ndarray:
    x, y, w, h, angle = (
        table[f"{prefix}{name}"].fill_null(0.0).to_numpy() for name in ("x", "y", "w", "h", "angle")
    )
    return np.column_stack([x + w / 2, y + h / 2, w, h, angle])
