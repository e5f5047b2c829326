"""Faults of whole sources."""

import numpy as np
import polars as pl
import pytest

from boxwright.auditing.systematic import systematic
from boxwright.data.sources import scale_boxes
from tests.auditing.crowds import detections, labels


def sources(oriented=False, **faults):
    """Labels of three sources, one of which has a fault, and detections of the objects as they are."""
    clean = labels(oriented=oriented)
    names = pl.Series([("anna", "ben", "cleo")[n % 3] for n in range(len(clean.boxes))])
    clean = clean.with_boxes(clean.boxes.with_columns(source=names))
    wrong = scale_boxes(clean, faults.get("sides", (1.0, 1.0))).boxes
    wrong = wrong.with_columns(pl.col("x") + faults.get("x", 0.0), pl.col("y") + faults.get("y", 0.0))
    own = pl.col("source") == "ben"
    columns = [pl.when(own).then(wrong[n]).otherwise(clean.boxes[n]).alias(n) for n in ("x", "y", "w", "h")]
    return clean.with_boxes(clean.boxes.with_columns(columns)), detections(clean)


@pytest.mark.parametrize("oriented", [False, True])
def test_sides_and_shifts_of_a_source_are_told(oriented):
    rows = systematic(*sources(oriented, sides=(1.08, 1.0)))
    assert [row["told"].startswith("width times 1.0") for row in rows] == [False, True, False]
    assert rows[1]["times_w"] == pytest.approx(1.08, abs=0.015)
    rows = systematic(*sources(oriented, x=1.0, y=-0.7))
    assert rows[1]["told"].startswith("shifted by +")
    assert rows[1]["shift_x"] == pytest.approx(1.0, abs=0.3)
    assert rows[1]["shift_y"] == pytest.approx(-0.7, abs=0.3)


def test_sources_without_a_fault_are_left_alone():
    for seed in range(5):
        clean, _ = sources()
        rows = systematic(clean, detections(clean, seed=seed))
        assert [row["source"] for row in rows] == ["anna", "ben", "cleo"]
        assert not any(row["told"] for row in rows)


def test_one_source_has_shifts_alone():
    clean = labels()
    moved = clean.with_boxes(clean.boxes.with_columns(pl.col("x") + 1.5, pl.col("w") * 1.1))
    (row,) = systematic(moved, detections(clean))
    assert row["times_w"] is None
    assert "px in x" in row["told"]
    assert "width" not in row["told"]
    assert systematic(clean.with_boxes(clean.boxes[:10]), detections(clean)) == []
    assert np.isfinite(row["shift_y"])
