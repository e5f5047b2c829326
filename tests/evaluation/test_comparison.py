"""Comparing tables, intervals, thresholds and calibration."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import boxwright
from boxwright.data import formats
from boxwright.data.builder import TableBuilder
from boxwright.errors import ConfigError, DataError
from boxwright.evaluation.bounds import average_precisions, moved
from boxwright.evaluation.calibrate import calibrate
from boxwright.evaluation.calibration import load_calibration, tempered
from boxwright.evaluation.comparison import compare
from boxwright.evaluation.evaluate import evaluate
from boxwright.evaluation.intervals import intervals, intervals_of, take_images
from boxwright.evaluation.lrp import lrp
from boxwright.evaluation.matching import match
from boxwright.evaluation.pairing import read_pair
from boxwright.evaluation.thresholds import threshold
from boxwright.geometry.iou import pairwise_iou
from tests.evaluation.oracles import random_case
from tests.scenes import small_tables

SEEDS = st.integers(0, 10_000)


def annotations(rows: list, source: str = "anna"):
    builder = TableBuilder(source)
    for n in range(2):
        builder.image(f"{n}.jpg", width=200, height=200)
    for name in ("car", "van"):
        builder.category(name)
    for n, (image, k, xywh, flags) in enumerate(rows):
        builder.box((source, n), image, k, xywh, **flags)
    return builder.build()


def test_two_annotators():
    a = annotations(
        [
            (0, 0, (10, 10, 20, 20), {}),  # the same
            (0, 0, (50, 10, 20, 20), {}),  # a van to the other
            (0, 1, (100, 100, 10, 10), {}),  # not seen by the other
            (1, 0, (0, 0, 100, 100), {"ignore": True}),  # a region of no interest
        ]
    )
    b = annotations(
        [
            (0, 0, (10, 10, 20, 16), {}),
            (0, 1, (50, 10, 20, 20), {}),
            (1, 0, (20, 20, 20, 20), {}),  # within the region
            (1, 0, (150, 150, 20, 20), {}),
            (1, 1, (150, 100, 20, 20), {"difficult": True}),
        ],
        "ben",
    )
    found = compare(a, b)
    everything = found.rows[0]
    counts = {
        k: everything[k] for k in ("matched", "only A", "only B", "other class", "ignored A", "ignored B")
    }
    assert counts == {
        "matched": 1, "only A": 1, "only B": 1, "other class": 1, "ignored A": 1, "ignored B": 2,
    }  # fmt: skip
    assert everything["mean IoU"] == pytest.approx(0.8)
    assert everything["IoU A on B"] == pytest.approx(0.8 / 3)
    assert everything["agreement"] == pytest.approx(1 / 4)
    assert found.pairs["outcome"].to_list() == ["matched", "other class"]
    assert [r["group"] for r in found.rows] == ["all", "car", "van"]


def test_boxes_of_no_source_are_of_no_others():
    rows = [(0, 0, (10 + 30 * n, 10, 20, 20), {}) for n in range(4)]
    a = annotations(rows)
    # Two that a repair has added.
    a = a.with_boxes(a.boxes.with_columns(source=pl.Series(["anna", "ben", None, None])))
    found = compare(a, annotations(rows[:3]))
    counts = {r["group"]: (r["matched"], r["only A"]) for r in found.rows}
    assert counts == {
        "all": (3, 1), "car": (3, 1), "van": (0, 0), "source anna": (1, 0), "source ben": (1, 0),
    }  # fmt: skip


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_comparing_is_symmetric_and_counts_every_box_once(seed):
    a, b = random_case(seed)
    one, other = compare(a, b).rows[0], compare(b, a).rows[0]
    assert one["matched"] == other["matched"]
    assert (one["only A"], one["ignored A"]) == (other["only B"], other["ignored B"])
    assert one["IoU A on B"] == other["IoU B on A"]
    for side, tables in (("A", a), ("B", b)):
        total = one["matched"] + one[f"only {side}"] + one["other class"] + one[f"ignored {side}"]
        assert total == len(tables.boxes)
    same = compare(a, a).rows[0]
    assert same["only A"] == same["only B"] == same["other class"] == 0
    assert same["mean IoU"] in (None, pytest.approx(1.0))


def test_what_was_not_looked_at_is_told():
    truth, _ = random_case(12, images=20, classes=1, crowd=False)
    found = truth.with_boxes(truth.boxes.with_columns(score=pl.lit(0.7)))
    part = found.select_images(np.arange(20) < 15)
    name = truth.images["file_name"][15]
    told = [
        f"5 of 20 images of the truth aren't among those of the predictions, first '{name}': "
        "all that they show counts as missed."
    ]
    assert evaluate(truth, part).notes == told
    assert threshold(truth, part).notes == told
    assert compare(truth, part).notes == [
        f"5 of 20 images of A aren't in B, first '{name}': their boxes count as A's alone."
    ]
    with pytest.raises(DataError, match="Expected predictions of every image"):
        read_pair(truth, part, whole=True)
    # As results have it, which name no images but those of their boxes.
    bare = found.with_boxes(found.boxes.filter(pl.col("image_id") < 15))
    shown = truth.boxes.filter(~pl.col("ignore"))["image_id"]
    assert evaluate(truth, bare).notes == [
        f"{(shown.unique() >= 15).sum()} of {shown.n_unique()} images with objects have no detection: "
        "were all of them predicted?"
    ]
    assert evaluate(truth, found).notes == threshold(truth, found).notes == compare(truth, found).notes == []


def test_images_of_one_name_in_two_parts_are_told_apart_by_their_files(tmp_path):
    for part in ("train", "val"):
        formats.write(
            small_tables(tmp_path / "set" / part), tmp_path / "set" / part / "_annotations.coco.json"
        )
    truth = formats.read(tmp_path / "set")
    val = small_tables(tmp_path / "set" / "val", [0.9, 0.8, 0.7, 0.6])
    found = evaluate(truth, val)
    own = evaluate(formats.read(tmp_path / "set" / "val"), val)
    assert "3 of 6 images of the truth aren't" in found.notes[0]
    assert own.coco["AR100"] == 2 * found.coco["AR100"] > 0


def test_pairs_are_those_of_greatest_iou():
    a, b = random_case(11, images=1, classes=1, crowd=False)
    found = compare(a, b, iou=0.2)
    iou = pairwise_iou(*(t.boxes.select("x", "y", "w", "h").to_numpy() for t in (a, b)))
    expected = []
    while iou.size and iou.max() >= 0.2:
        i, j = np.unravel_index(np.argmax(iou), iou.shape)
        expected.append((int(i), int(j)))
        iou[i], iou[:, j] = -1, -1
    assert sorted(expected) == sorted(found.pairs.select("a_row", "b_row").iter_rows())


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_weighted_ap_is_that_of_images_drawn_more_than_once(seed):
    """The quick bootstrap of COCO's numbers against the tables truly drawn again."""
    truth, found = random_case(seed, images=6)
    if len(truth.boxes) == 0 or len(found.boxes) == 0:
        return
    quick = intervals(evaluate(truth, found), resamples=20, seed=3)
    drawn = []
    rng = np.random.default_rng(3)
    for _ in range(20):
        rows = np.repeat(np.arange(6), rng.multinomial(6, np.full(6, 1 / 6)))
        numbers = average_precisions(take_images(truth, rows), take_images(found, rows), 100)
        drawn.append(numbers["AP"])
    drawn = [v for v in drawn if v is not None]
    row = next((r for r in quick.rows if r["number"] == "AP"), None)
    if row is None:
        return
    assert row["value"] == pytest.approx(evaluate(truth, found).coco["AP"], abs=1e-9)
    assert [row["low"], row["high"]] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist(), abs=1e-9)


def test_noise_is_noise_and_a_real_difference_is_one():
    truth, found = random_case(7, images=60)
    rng = np.random.default_rng(0)
    jitter = found.boxes.with_columns(x=found.boxes["x"] + rng.normal(0, 0.05, len(found.boxes)))
    evaluation = evaluate(truth, found)
    same = intervals(evaluation, evaluate(truth, found.with_boxes(jitter)), resamples=200)
    assert "within what chance does" in same.notes[0]
    assert same.rows[0]["p"] > 0.05
    worse = intervals(evaluation, evaluate(truth, moved(found, width=0.7)), resamples=200)
    assert "more than chance" in worse.notes[0]
    assert worse.rows[0]["to"] < 0
    with pytest.raises(ConfigError, match="resamples"):
        intervals(evaluation, resamples=3)


def test_intervals_of_any_metric():
    truth, found = random_case(8, images=30)
    reading = intervals_of(lrp, truth, found, resamples=30)
    row = reading.rows[0]
    assert row["number"] == "oLRP"
    assert row["value"] == lrp(truth, found).overall["oLRP"]
    assert row["low"] <= row["value"] <= row["high"]


@pytest.mark.parametrize(("wanted", "value"), [("precision", 0.35), ("recall", 0.3)])
def test_thresholds_have_what_was_wanted(wanted, value):
    truth, found = random_case(9, images=40)
    for k, row in enumerate(threshold(truth, found, **{wanted: value}).rows):
        kept = found.with_boxes(found.boxes.filter(found.boxes["score"] >= row["threshold"]))
        matching = match(truth, kept, np.array([0.5]))
        tp, fp = (int((f & (matching.det_category == k)).sum()) for f in matching.outcomes())
        assert row["precision"] == pytest.approx(tp / (tp + fp))
        assert row["recall"] == pytest.approx(tp / row["truth"])
        assert row[wanted] >= value


def test_a_threshold_that_cannot_be_had_is_said():
    truth, found = random_case(9)
    reading = threshold(truth, found, recall=1.0)
    assert all(row["threshold"] is None for row in reading.rows)
    assert "can't be had" in reading.notes[0]
    least = threshold(truth, found)
    assert [r["threshold"] for r in least.rows] == [r["threshold"] for r in lrp(truth, found).rows]
    with pytest.raises(ConfigError, match="both"):
        threshold(truth, found, precision=0.5, recall=0.5)


def test_calibration_finds_the_factors_that_were_put_in(tmp_path):
    truth, _ = random_case(10, images=40, classes=2, crowd=False)
    rng = np.random.default_rng(0)
    angle = pl.Series(rng.uniform(-1.5, 1.5, len(truth.boxes)))
    truth = truth.with_boxes(truth.boxes.with_columns(angle=angle))
    found = moved(truth, width=1.0, height=1 / 0.92, turn=np.radians(4))
    noisy = found.boxes.with_columns(
        score=pl.Series(rng.uniform(0.1, 1, len(angle))), x=found.boxes["x"] + rng.normal(0, 0.5, len(angle))
    )
    found = found.with_boxes(noisy)
    calibration = calibrate(truth, found, by="class", folds=3)
    for correction in calibration.corrections.values():
        assert correction.h == pytest.approx(0.92, abs=0.02)
        assert correction.w == pytest.approx(1.0, abs=0.02)
        assert np.degrees(correction.angle) == pytest.approx(-4, abs=1)
    fitted = calibration.fitted
    assert fitted["held-out AP after"] > fitted["held-out AP before"] + 0.1
    path = tmp_path / "calibration.json"
    calibration.save(path)
    loaded = load_calibration(path)
    assert loaded.corrections == calibration.corrections
    assert loaded.apply(found).boxes.equals(calibration.apply(found).boxes)
    assert evaluate(truth, loaded.apply(found)).coco["AP"] == pytest.approx(fitted["AP after"])
    assert boxwright.evaluate(truth, found, calibration=path).coco["AP"] == pytest.approx(fitted["AP after"])


def test_calibration_leaves_alone_what_is_right():
    truth, _ = random_case(12, images=20, classes=1, crowd=False)
    found = truth.with_boxes(truth.boxes.with_columns(score=pl.lit(0.7)))
    calibration = calibrate(truth, found, by="all", folds=2)
    assert calibration.corrections[""].w == calibration.corrections[""].h == 1.0
    with pytest.raises(ConfigError, match="folds"):
        calibrate(truth, found, folds=21)
    with pytest.raises(DataError, match="no predictions to calibrate by"):
        calibrate(truth, found.with_boxes(found.boxes.head(0)), folds=2)


def test_temperature_is_found():
    rng = np.random.default_rng(0)
    score = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    assert tempered(score, 1.0) == pytest.approx(score)
    assert tempered(tempered(score, 2.0), 0.5) == pytest.approx(score)
    honest = rng.uniform(0.02, 0.98, 4000)
    hits = rng.uniform(size=len(honest)) < honest
    truth, found = TableBuilder("t"), TableBuilder("d")
    for builder in (truth, found):
        builder.category("x")
        for n in range(2000):
            builder.image(f"{n}.jpg")
    for n, (p, hit) in enumerate(zip(tempered(honest, 0.5), hits)):
        box = (40.0 * (n % 2), 0.0, 10.0, 10.0)
        found.box(("d", n), n // 2, 0, box, score=float(p))
        if hit:
            truth.box(("t", n), n // 2, 0, box)
    assert calibrate(truth.build(), found.build(), by="all", folds=2).temperature == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"boxwright_calibration": 9},
        {"by": "colour"},
        {"temperature": 0},
        {"temperature": "hot"},
        {"corrections": []},
        {"corrections": {"car": {"w": -1, "h": 1, "angle": 0}}},
        {"corrections": {"car": {"w": 1, "h": 1}}},
        {"corrections": {"car": {"w": True, "h": 1, "angle": 0}}},
    ],
)
def test_a_hostile_calibration_is_an_exact_error(change, tmp_path):
    whole = {"boxwright_calibration": 1, "by": "class", "temperature": 1.0, "fitted": {}}
    whole |= {"corrections": {"car": {"w": 1.0, "h": 1.0, "angle": 0.0}}}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(whole))
    assert load_calibration(path).corrections["car"].w == 1
    path.write_text(json.dumps(whole | change))
    with pytest.raises(DataError, match=r"c\.json"):
        load_calibration(path)
