"""Operating thresholds, their way through tables, and the matrix of what is taken for what."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright.data import formats
from boxwright.data.builder import TableBuilder
from boxwright.data.confident import confident, thresholds_by_name
from boxwright.evaluation.calibration import Calibration
from boxwright.evaluation.confusion import confusion
from boxwright.evaluation.evaluate import evaluate
from boxwright.evaluation.matching import match
from boxwright.evaluation.operating import Operating, OperatingPoint, fit_operating
from boxwright.evaluation.pairing import align
from boxwright.evaluation.platt import fit_platt, probability
from tests.evaluation.oracles import random_case

SEEDS = st.integers(0, 10_000)


def at(truth, found, name: str, threshold: float) -> tuple[float, float, float]:
    """Precision, recall and F1 of a class where detections below the threshold aren't there."""
    k = truth.categories["name"].to_list().index(name)
    kept = found.with_boxes(found.boxes.filter((pl.col("score") >= threshold) & (pl.col("category_id") == k)))
    matching = match(truth, kept, np.array([0.5]))
    tp, fp = (int(flags.sum()) for flags in matching.outcomes())
    count = matching.truth_counts()[k]
    return tp / max(tp + fp, 1), tp / count, 2 * tp / (tp + fp + count)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_no_threshold_has_a_greater_f1(seed):
    truth, found = random_case(seed)
    operating = fit_operating(truth, found)
    calibrated = operating.apply(found)
    for name, point in operating.points.items():
        measured = at(truth, calibrated, name, point.threshold)
        assert measured == pytest.approx((point.precision, point.recall, point.f1))
        k = truth.categories["name"].to_list().index(name)
        for score in calibrated.boxes.filter(pl.col("category_id") == k)["score"]:
            assert at(truth, calibrated, name, score)[2] <= point.f1 + 1e-12


def test_a_wanted_precision_is_had_or_falls_back_to_the_greatest_f1():
    truth, found = random_case(3)
    points = fit_operating(truth, found, 0.8).points
    best = fit_operating(truth, found).points
    for name, point in points.items():
        assert point.precision >= 0.8 or point == best[name]
    assert any(p != best[n] for n, p in points.items())


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_calibration_of_scores_changes_no_ap(seed):
    truth, found = random_case(seed)
    calibrated = fit_operating(truth, found).apply(found)
    before, after = (evaluate(truth, tables).coco for tables in (found, calibrated))
    assert after == pytest.approx(before, abs=1e-12)


@given(slope=st.floats(0.3, 3), shift=st.floats(-2, 2), seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_the_curve_of_scores_is_found_again(slope, shift, seed):
    """Of draws with known probabilities; and no curve nearby is likelier, by finite differences."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(0.02, 0.98, 20_000)
    true = rng.random(len(score)) < probability(score, slope, shift)
    found = fit_platt(score, true)
    assert found == pytest.approx((slope, shift), abs=0.15)

    def likelihood(a, b):
        p = probability(score, a, b)
        return np.where(true, np.log(p), np.log1p(-p)).sum()

    best = likelihood(*found)
    for da, db in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02)):
        assert likelihood(found[0] + da, found[1] + db) <= best + 0.05


def test_scores_that_say_nothing_and_classes_without_truth_stay():
    score = np.array([0.2, 0.9])
    assert fit_platt(score, np.array([True, True])) == (1.0, 0.0)
    assert probability(np.array([0.0, 1.0]), 2.0, 1.0) == pytest.approx([0, 1], abs=1e-5)


def test_scores_that_are_all_too_low_become_probabilities():
    """Correct detections of 0.3 to 0.6 above false ones of 0 to 0.1, as a short training leaves them."""
    rng = np.random.default_rng(0)
    score = np.concatenate([rng.uniform(0.2, 0.6, 300), rng.uniform(0.0, 0.25, 900)])
    true = np.arange(1200) < 300
    p = probability(score, *fit_platt(score, true))
    assert p[true].mean() > 0.8
    assert p[~true].mean() < 0.05
    assert abs(p.mean() - true.mean()) < 0.01


def test_thresholds_travel_with_the_tables_and_pictures_follow_them(tmp_path):
    truth, found = random_case(5)
    points = {"class 0": OperatingPoint(0.6, 1, 1, 1), "class 2": OperatingPoint(0.2, 1, 1, 1)}
    formats.write(Operating(points).apply(found), tmp_path / "found.parquet")
    back = formats.read(tmp_path / "found.parquet")
    for tables in (back, align(truth, back)):
        assert thresholds_by_name(tables.categories) == {"class 0": 0.6, "class 2": 0.2}
        limits = np.array([0.6, 0.3, 0.2])[tables.boxes["category_id"].to_numpy()]
        assert np.array_equal(confident(tables), tables.boxes["score"].to_numpy() >= limits)
    assert confident(truth).all()
    assert confident(back, 2.0).sum() == 0


def test_thresholds_follow_scores_that_a_calibration_moves():
    _, found = random_case(5)
    operated = Operating({"class 0": OperatingPoint(0.6, 1, 1, 1)}).apply(found)
    before, after = operated, Calibration("all", {}, 0.5).apply(operated)
    mine = before.boxes["category_id"].to_numpy() == 0
    assert np.array_equal(confident(before)[mine], confident(after)[mine])
    assert thresholds_by_name(after.categories)["class 0"] == pytest.approx(0.6**2 / (0.6**2 + 0.4**2))


def test_the_plain_values_of_thresholds_come_back():
    operating = Operating({"a": OperatingPoint(0.5, 0.9, 0.8, 0.85, 1.7, -0.3)}, 0.9)
    assert Operating.from_dict(operating.to_dict()) == operating
    with pytest.raises((TypeError, KeyError, ValueError)):
        Operating.from_dict({"points": {"a": {"threshold": "x"}}, "precision": None})


def test_the_matrix_counts_what_is_taken_for_what():
    truth, found = TableBuilder("truth"), TableBuilder("found")
    for builder in (truth, found):
        builder.image("a.jpg", width=400, height=100)
        for name in ("cat", "dog", "cow"):
            builder.category(name)
    cells = [(0, 0), (0, 0), (0, 1), (1, 1), (1, None), (None, 2), (None, 2), (2, 2)]
    for n, (true, predicted) in enumerate(cells):
        if true is not None:
            truth.box(n, 0, true, (40 * n, 0, 20, 20))
        if predicted is not None:
            found.box(n, 0, predicted, (40 * n + 1, 0, 20, 20), score=0.9)
    found.box(99, 0, 0, (160, 0, 20, 20), score=0.1)  # of too low a score: a miss stays one
    truth.box(98, 0, 0, (240, 50, 20, 20), ignore=True)
    found.box(97, 0, 0, (240, 50, 20, 20), score=0.9)
    result = confusion(truth.build(), found.build())
    assert result.names == ["cat", "dog", "cow", "background"]
    assert result.counts.tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 2, 0]]
    assert {cell: len(rows) for cell, rows in result.examples.items()} == {
        (r, c): result.counts[r, c] for r in range(4) for c in range(4) if result.counts[r, c]
    }
    assert result.predictions.boxes["x"][result.examples[0, 1].tolist()].to_list() == [81.0]
