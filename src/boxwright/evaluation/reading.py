"""What every metric gives: a few numbers, a table, curves, and what to know before believing them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from boxwright.evaluation.matching import Matching


@dataclass(frozen=True)
class Reading:
    """One metric of one match.

    Attributes:
        title: what it is.
        overall: numbers by name; None where there is nothing to judge by.
        rows: a table, a dict a row, all with the same keys.
        curves: plots by title: series of x and y by name, and the names of the axes.
        notes: what the reader should know.
        source: the paper or program it follows.
        beside: the column of `rows` that several models are set side by side by; "" for `overall`.
    """

    title: str
    overall: dict[str, float | None]
    rows: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, "Curves"] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    source: str = ""
    beside: str = ""

    def numbers(self) -> dict[str, float | None]:
        """Every number by name: `overall`, and each cell of `rows` by what tells its row from the others."""
        found = dict(self.overall)
        columns = list(self.rows[0]) if self.rows else []
        keys = 1
        while keys < len(columns) and len({tuple(r.values())[:keys] for r in self.rows}) < len(self.rows):
            keys += 1
        for row in self.rows:
            label = ", ".join(
                f"{v:g}" if isinstance(v, float) else str(v) for v in tuple(row.values())[:keys]
            )
            cells = {f"{name} ({label})": row[name] for name in columns[keys:]}
            found |= {name: value for name, value in cells.items() if not isinstance(value, str)}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "title": self.title,
            "source": self.source,
            "overall": self.overall,
            "rows": self.rows,
            "curves": {t: {"x": c.x, "y": c.y, "series": c.series} for t, c in self.curves.items()},
            "notes": self.notes,
        }


@dataclass(frozen=True)
class Curves:
    """Lines of one plot, or its bars: names of the axes, and (x, y) by name of the line."""

    x: str
    y: str
    series: dict[str, tuple[list[float], list[float]]]
    bars: bool = False


def side_by_side(readings: dict[str, Reading]) -> list[dict[str, Any]]:
    """One table of several models' readings of one metric, by the name of the model."""
    first = next(iter(readings.values()))
    if not first.beside:
        return [{"model": name} | reading.overall for name, reading in readings.items() if reading.overall]
    key = next(iter(first.rows[0]), "") if first.rows else ""
    names = dict.fromkeys(row[key] for reading in readings.values() for row in reading.rows)
    found = {n: {row[key]: row[first.beside] for row in r.rows} for n, r in readings.items()}
    return [{key: name} | {model: rows.get(name) for model, rows in found.items()} for name in names]


def by_category(matching: Matching, threshold: int = 0, area: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """Each category and its detections that count (true or false positives), by descending score."""
    tp, fp = matching.outcomes(threshold, area)
    counts = tp | fp
    for k in range(len(matching.starts) - 1):
        rows = matching.order[matching.starts[k] : matching.starts[k + 1]]
        yield k, rows[counts[rows]]


def last_of_equal(score: np.ndarray) -> np.ndarray:
    """Places of the last of each run of equal scores: a threshold keeps every detection of its score."""
    if len(score) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.append(score[1:] != score[:-1], True))


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is there; None where nothing is."""
    defined = [v for v in values if v is not None and not math.isnan(v)]
    return float(np.mean(defined)) if defined else None
