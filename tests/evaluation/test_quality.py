"""Confidence, bounds, correction cost, PDQ, tubes, vehicles and slices against their definitions."""

import math
from itertools import permutations

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm

from boxwright.data.builder import TableBuilder
from boxwright.errors import ConfigError, DataError
from boxwright.evaluation.accuracy import accuracy
from boxwright.evaluation.assignment import cheapest_assignment
from boxwright.evaluation.bounds import moved, sensitivity, upper_bound
from boxwright.evaluation.confidence import calibration_error, confidence
from boxwright.evaluation.correction import correction_cost
from boxwright.evaluation.evaluate import evaluate
from boxwright.evaluation.matching import match
from boxwright.evaluation.pdq import pdq
from boxwright.evaluation.slices import slices
from boxwright.evaluation.tubes import tubes
from boxwright.evaluation.vehicle import bound_errors, vehicle
from boxwright.geometry.conventions import corners
from boxwright.geometry.iou import pairwise_iou
from tests.evaluation.oracles import random_case

SEEDS = st.integers(0, 10_000)


@given(seed=SEEDS, rows=st.integers(1, 9), columns=st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_assignment_is_scipys(seed, rows, columns):
    cost = np.random.default_rng(seed).normal(size=(rows, columns)).round(1)
    column = cheapest_assignment(cost)
    chosen = np.flatnonzero(column >= 0)
    assert len(set(column[chosen])) == len(chosen) == min(rows, columns)
    expected = cost[linear_sum_assignment(cost)].sum()
    assert cost[chosen, column[chosen]].sum() == pytest.approx(expected)


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_correction_cost_is_the_cheapest_of_all_ways(seed):
    truth, found = random_case(seed, images=1, classes=2, crowd=False)
    found = found.with_boxes(found.boxes.head(5))
    truth = truth.with_boxes(truth.boxes.head(4))
    n, m = len(found.boxes), len(truth.boxes)
    value = correction_cost(truth, found).overall["OC-cost"]
    if n + m == 0:
        assert value is None
        return
    giou = pairwise_iou(*(t.boxes.select("x", "y", "w", "h").to_numpy() for t in (found, truth)), "giou")
    score, labels = found.boxes["score"].to_numpy(), found.boxes["category_id"].to_numpy()
    same = labels[:, None] == truth.boxes["category_id"].to_numpy()[None]
    cost = 0.5 * (1 - giou) / 2 + 0.5 * np.where(same, 1 - score[:, None], 1 + score[:, None]) / 2
    ways = []
    for pick in set(permutations([*range(m), *[-1] * n], n)):
        pairs = [(i, j) for i, j in enumerate(pick) if j >= 0]
        total = sum(cost[p] for p in pairs) + 0.6 * (n + m - 2 * len(pairs))
        ways.append((total, total / (n + m - len(pairs))))
    assert value == pytest.approx(min(ways)[1])


def test_calibration_error_by_hand():
    score = np.array([0.91, 0.99, 0.15, 0.12, 0.11, 0.18])
    true = np.array([True, False, False, True, False, False])
    expected = 2 / 6 * abs(0.5 - 0.95) + 4 / 6 * abs(0.25 - 0.14)
    assert calibration_error(score[:, None], true, score, 10) == pytest.approx(expected)
    places = np.column_stack([score, [0.1, 0.9, 0.1, 0.1, 0.9, 0.9]])
    groups = [[0], [1], [2, 3], [4, 5]]
    expected = sum(abs(true[g].sum() - score[g].sum()) for g in groups) / 6
    assert calibration_error(places, true, score, 10) == pytest.approx(expected)


def test_honest_scores_have_no_calibration_error_and_bold_ones_have():
    rng = np.random.default_rng(0)
    score = rng.uniform(0, 1, 100_000)
    true = rng.uniform(size=len(score)) < score
    assert calibration_error(score[:, None], true, score, 20) < 0.01
    assert calibration_error(np.sqrt(score)[:, None], true, np.sqrt(score), 20) > 0.1
    truth, found = random_case(1)
    with pytest.raises(ConfigError, match="dimensions"):
        confidence(truth, found, dimensions=("score", "colour"))
    assert len(confidence(truth, found, dimensions=("score", "cx", "h")).rows) == 3


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_the_upper_bound_bounds_ap_where_classes_are_right(seed):
    truth, found = random_case(seed, classes=1, crowd=False)
    if len(truth.boxes) == 0:
        return
    numbers = upper_bound(truth, found).overall
    assert numbers["AP50 now"] == pytest.approx(evaluate(truth, found).coco["AP50"])
    assert numbers["AP50 bound"] >= numbers["AP50 now"] - 1e-9
    assert numbers["AP bound"] == pytest.approx(numbers["AP50 bound"])
    recalled = len(set(match(truth, found, np.array([0.5])).found()) - {-1})
    assert numbers["AP50 bound"] == pytest.approx(
        len([r for r in np.linspace(0, 1, 101) if r <= recalled / len(truth.boxes)]) / 101 if recalled else 0
    )


def test_sensitivity_finds_a_systematic_error():
    truth, _ = random_case(2, classes=1, crowd=False)
    found = truth.with_boxes(truth.boxes.with_columns(score=pl.lit(0.5)))
    assert sensitivity(truth, found).overall == pytest.approx({"AP": 1.0, "best AP": 1.0})
    reading = sensitivity(truth, moved(found, width=1 / 1.2, height=1 / 1.2))
    assert reading.overall["AP"] < 0.7
    assert reading.overall["best AP"] == pytest.approx(1.0)
    assert "scale of 1.2" in reading.notes[0]


def test_moving_boxes_follows_their_heading_and_leaves_the_given_ones_alone():
    truth, _ = random_case(3)
    truth = truth.with_boxes(truth.boxes.with_columns(angle=pl.lit(np.pi / 2)))
    before = truth.boxes.clone()
    after = moved(truth, along=0.5, across=0.25, width=2, height=3, turn=0.1).boxes
    assert truth.boxes.equals(before)
    center = [(t["x"] + t["w"] / 2).to_numpy() for t in (before, after)]
    assert center[1] - center[0] == pytest.approx(-0.25 * before["h"].to_numpy())
    assert after["w"].to_numpy() == pytest.approx(2 * before["w"].to_numpy())
    assert after["angle"].to_numpy() == pytest.approx(np.pi / 2 + 0.1)


def probabilistic(rows: list) -> tuple:
    truth, found = TableBuilder("t"), TableBuilder("d")
    for builder in (truth, found):
        builder.image("a.png", width=60, height=60)
        builder.category("car")
        builder.category("van")
    truth.box(("t", 0), 0, 0, (10, 12, 20, 10))
    for n, (k, xywh, score, variance) in enumerate(rows):
        found.box(("d", n), 0, k, xywh, score=score, attributes={"variance": variance})
    return truth.build(), found.build()


def test_pdq_of_a_perfect_and_of_an_uncertain_detection():
    exact = pdq(*probabilistic([(0, (10, 12, 20, 10), 1.0, [0, 0, 0, 0])])).overall
    assert exact["PDQ"] == pytest.approx(1.0)
    variance = [4.0, 1.0, 9.0, 2.25]
    unsure = pdq(*probabilistic([(0, (11, 12, 18, 11), 0.8, variance)])).overall
    # The definition, pixel by pixel with scipy's normal distribution.
    u, v = np.meshgrid(np.arange(-20, 90) + 0.5, np.arange(-20, 90) + 0.5)
    sides = [(11, 2), (12, 1), (29, 3), (23, 1.5)]
    p = norm.cdf(u, *sides[0]) * norm.sf(u, *sides[2]) * norm.cdf(v, *sides[1]) * norm.sf(v, *sides[3])
    inside = (u > 10) & (u < 30) & (v > 12) & (v < 22)
    foreground = -np.log(p[inside]).sum() / 200
    background = -np.log1p(-p[~inside]).sum() / 200
    quality = math.sqrt(math.exp(-foreground - background) * 0.8)
    assert unsure["PDQ"] == pytest.approx(quality, rel=1e-6)
    assert unsure["spatial quality"] == pytest.approx(math.exp(-foreground - background), rel=1e-6)
    wrong = [(0, (11, 12, 18, 11), 0.8, variance), (1, (10, 12, 20, 10), 1.0, [0, 0, 0, 0])]
    assert pdq(*probabilistic(wrong)).overall["PDQ"] == pytest.approx(quality / 2, rel=1e-6)


def test_pdq_says_which_box_has_no_variance():
    truth, found = probabilistic([(0, (1, 1, 2, 2), 0.5, [1, 2, 3])])
    with pytest.raises(DataError, match=r"box 0.*variance.*\[1, 2, 3\].*four numbers"):
        pdq(truth, found)


def tracked(tracks: dict, frames: int, scores: dict | None = None):
    builder = TableBuilder("video")
    builder.category("person")
    for n in range(frames):
        builder.image(f"walk/{n:03d}.jpg", width=100, height=100)
    for name, boxes in tracks.items():
        for frame, xywh in boxes.items():
            score = None if scores is None else scores[name]
            builder.box(("r", frame), frame, 0, xywh, score=score, attributes={"track_id": name})
    return builder.build()


def test_tubes_by_hand():
    a = {n: (10 + n, 10, 20, 20) for n in range(4)}
    b = dict.fromkeys(range(2), (60, 60, 20, 20))
    truth = tracked({"a": a, "b": b}, 4)
    # One follows a for three of four frames; one lies on b, half as wide, for one frame too many.
    half = dict.fromkeys(range(3), (60, 60, 10, 20))
    found = tracked({1: {n: a[n] for n in range(3)}, 2: half}, 4, {1: 0.9, 2: 0.8})
    # Tube IoU of the first: 3 / 4; of the second: 400 shared of 600 + 800 - 400.
    row = tubes(truth, found, (0.3, 0.5, 0.8)).rows[0]
    assert (row["truth"], row["tubes"]) == (2, 2)
    assert row["AP30"] == pytest.approx(1.0)
    assert row["AP50"] == pytest.approx(51 / 101)
    assert row["AP80"] == 0
    with pytest.raises(DataError, match="track_id"):
        tubes(*random_case(0))


def test_bound_errors_of_an_oriented_vehicle():
    truth = np.array([[50.0, 50, 40, 20, np.pi / 2]])  # heading down the screen
    found = np.array([[48.0, 53, 44, 16, np.pi / 2 + np.radians(3)]])
    # 3 px further on, 2 px to its right (the screen's left), 4 longer, 4 narrower.
    left, right, head, back, heading = bound_errors(found, truth)[0]
    tilt = np.cos(np.radians(3))
    assert [left, right] == pytest.approx([8 * tilt - 2 - 10, 8 * tilt + 2 - 10])
    assert [head, back] == pytest.approx([3 + 22 * tilt - 20, 22 * tilt - 3 - 20])
    assert heading == pytest.approx(3)
    middle = corners(found)[0][1:3].mean(axis=0)  # of the front side
    assert middle[1] - 70 == pytest.approx(head)
    reversed_found = found + np.array([0, 0, 0, 0, np.pi])
    assert bound_errors(reversed_found, truth)[0] == pytest.approx([left, right, head, back, 3])
    assert abs(bound_errors(reversed_found, truth, directed=True)[0][4]) == pytest.approx(177)


def test_vehicle_errors_in_metres_by_class_and_size():
    truth, found = random_case(4)
    pixels, metres = (vehicle(truth, found, metres_per_pixel=m) for m in (None, 0.1))
    assert metres.overall["mean |head|"] == pytest.approx(0.1 * pixels.overall["mean |head|"])
    true = match(truth, found, np.array([0.5])).outcomes()[0].sum()
    of_class = [r["count"] for r in pixels.rows if r["error"] == "head" and r["group"].startswith("class")]
    of_size = [r["count"] for r in pixels.rows if r["error"] == "head" and not r["group"].startswith("class")]
    assert sum(of_class) == sum(of_size) == true


@pytest.mark.parametrize(
    "by", ["size", "aspect", "position", "source", "density", "image:weather", "box:worn"]
)
def test_slices_divide_the_whole(by):
    truth, found = random_case(5)
    rng = np.random.default_rng(0)
    worn = [orjson.dumps({"worn": bool(rng.random() < 0.5)}).decode() for _ in range(len(truth.boxes))]
    weather = [orjson.dumps({"weather": ["sun", "rain"][n % 2]}).decode() for n in range(len(truth.images))]
    truth = truth.__class__(
        truth.images.with_columns(attributes=pl.Series(weather)),
        truth.boxes.with_columns(attributes=pl.Series(worn)),
        truth.categories,
    )
    cut = slices(truth, found, by)
    matching = match(truth, found, np.array([0.5]))
    hit, false = matching.outcomes()
    counted = int((~matching.gt_ignored[0]).sum())
    totals = {key: sum(row[key] for row in cut.reading.rows) for key in ("TP", "FP", "FN", "truth")}
    assert totals == {"TP": hit.sum(), "FP": false.sum(), "FN": counted - hit.sum(), "truth": counted}
    for (_, cell), rows in cut.examples.items():
        assert len(set(rows.tolist())) == len(rows), cell
    if by == "box:worn":
        assert "don't carry 'worn'" in cut.reading.notes[0]


def test_a_slice_of_everything_has_the_whole_ap_and_an_unknown_one_is_refused():
    truth, found = random_case(6)
    row = slices(truth, found, "source").reading.rows
    whole = evaluate(truth, found).coco["AP50"]
    assert max(r["AP"] for r in row if r["AP"] is not None) == pytest.approx(whole, abs=1e-9)
    with pytest.raises(ConfigError, match="position"):
        slices(truth, found, "weather")
    with pytest.raises(ConfigError, match="no truth"):
        slices(truth, found, "box:colour")


def test_boxes_of_no_source_are_a_slice_of_their_own():
    truth, found = random_case(6)
    first = pl.col("image_id") == truth.boxes["image_id"][0]
    some = truth.with_boxes(truth.boxes.with_columns(source=pl.when(first).then(pl.lit("anna"))))
    rows = {row["source"]: row for row in slices(some, found, "source").reading.rows}
    assert set(rows) == {"(none)", "anna"}
    whole = sum(row["truth"] for row in slices(truth, found, "size").reading.rows)
    assert sum(row["truth"] for row in rows.values()) == whole


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_accuracy_is_counted_image_by_image(seed):
    truth, found = random_case(seed, images=6, classes=3, crowd=True)
    counted = truth.boxes.filter(~truth.boxes["crowd"] & ~truth.boxes["ignore"])
    first, five, left_out = [], [], 0
    for image in range(len(truth.images)):
        own = counted.filter(pl.col("image_id") == image)["category_id"].to_list()
        if len(own) != 1:
            left_out += 1
            continue
        ranked = found.boxes.filter(pl.col("image_id") == image).sort("score", descending=True)
        labels = ranked["category_id"].to_list()
        first.append(labels[:1] == own)
        five.append(own[0] in labels[:5])
    if not first:
        with pytest.raises(DataError, match="just one object"):
            accuracy(truth, found)
        return
    reading = accuracy(truth, found)
    assert reading.overall["top-1"] == pytest.approx(np.mean(first))
    if reading.overall["top-5"] is not None:
        assert reading.overall["top-5"] == pytest.approx(np.mean(five))
    assert sum(row["images"] for row in reading.rows) == len(first)
    hits = sum(row["images"] * row["accuracy"] for row in reading.rows)
    assert hits == pytest.approx(sum(first))
    assert (str(left_out) in "".join(reading.notes)) == bool(left_out)
