"""Changes of AP by single repairs against judging the repaired labels."""

import numpy as np
import polars as pl
import pytest

from boxwright.auditing.gain import Gains
from boxwright.evaluation.coco import IOU_THRESHOLDS
from boxwright.evaluation.matching import match
from tests.auditing.crowds import detections, labels


def precision(truth, found):
    """Mean over classes with labels and thresholds of the area below precision, without interpolation."""
    matching = match(truth, found, IOU_THRESHOLDS)
    counts, values = matching.truth_counts(), []
    for t in range(len(IOU_THRESHOLDS)):
        hit = matching.outcomes(t)[0][matching.order]
        for k in np.flatnonzero(counts):
            own = hit[matching.starts[k] : matching.starts[k + 1]]
            rank = np.flatnonzero(own) + 1
            values.append((np.arange(1, len(rank) + 1) / rank).sum() / counts[k])
    return np.mean(values)


@pytest.fixture(scope="module")
def scene():
    truth = labels(images=6)
    return truth, detections(truth, jitter=0.08)


def changed(truth, row, **values):
    boxes = truth.boxes.to_dicts()
    boxes[row] |= values
    return truth.with_boxes(pl.DataFrame(boxes, schema=truth.boxes.schema))


def test_removed_labels(scene):
    truth, found = scene
    gains, before = Gains(truth, found), precision(truth, found)
    for row in range(0, len(truth.boxes), 7):
        without = truth.with_boxes(truth.boxes.filter(pl.int_range(pl.len()) != row))
        assert gains.removed(row) == pytest.approx(precision(without, found) - before, abs=1e-12)


def test_added_labels(scene):
    truth, found = scene
    gone = truth.with_boxes(truth.boxes.filter(pl.int_range(pl.len()) % 9 != 0))
    gains, before = Gains(gone, found), precision(gone, found)
    free = np.flatnonzero(~gains.hit.any(axis=0))
    assert len(free) > 10
    for row in free[:15]:
        new = found.boxes[[int(row)]].with_columns(score=pl.lit(None, pl.Float64))
        together = gone.with_boxes(pl.concat([gone.boxes, new]))
        assert gains.added(row) == pytest.approx(precision(together, found) - before, abs=1e-12)


def test_moved_labels(scene):
    truth, found = scene
    gains, before = Gains(truth, found), precision(truth, found)
    looked = 0
    for row in range(0, len(truth.boxes), 5):
        finder = gains.finder[0, row]
        if finder < 0:
            continue
        box = found.boxes.row(int(finder), named=True)
        moved = changed(truth, row, **{n: box[n] for n in ("x", "y", "w", "h", "area")})
        assert gains.moved(finder) == pytest.approx(precision(moved, found) - before, abs=1e-12)
        looked += 1
    assert looked > 10


def test_renamed_labels(scene):
    truth, found = scene
    looked = 0
    for row in range(0, len(truth.boxes), 7):
        own = truth.boxes["category_id"][row]
        wrong = changed(truth, row, category_id=(own + 1) % 3)
        was = Gains(truth, found).finder[0, row]
        if was < 0:
            continue
        gain = Gains(wrong, found).renamed(row, int(was))
        assert gain == pytest.approx(precision(truth, found) - precision(wrong, found), abs=1e-12)
        looked += 1
    assert looked > 5
