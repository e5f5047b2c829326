"""Metrics against the shared cases, tidecv, and their definitions spelled out the slow way."""

import contextlib
import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidecv import TIDE, Data

from boxwright.data.builder import TableBuilder
from boxwright.errors import ConfigError
from boxwright.evaluation.average_precision import average_precision, oriented, voc
from boxwright.evaluation.crowd import FALSE_POSITIVES, SCORES, crowd, jaccard
from boxwright.evaluation.evaluate import evaluate
from boxwright.evaluation.lrp import lrp
from boxwright.evaluation.matching import match
from boxwright.evaluation.tide import tide
from boxwright.geometry.iou import pairwise_iou
from tests.evaluation.oracles import eval_case, obb_case, random_case
from tests.shared_data import shared_cases

SEEDS = st.integers(0, 10_000)
EVAL_CASES = shared_cases("eval_cases/*/expected.json")


@pytest.mark.parametrize("path", EVAL_CASES, ids=lambda p: p.parent.name)
def test_voc_is_that_of_the_shared_cases(path):
    truth, found, expected = eval_case(path)
    rows = dict(zip(truth.categories["source_id"], voc(truth, found).rows))
    for key, numbers in expected["voc"].items():
        row = rows[int(key)]
        if numbers is None:
            assert row["truth"] == 0
            continue
        assert (row["TP"], row["FP"], row["truth"]) == (numbers["tp"], numbers["fp"], numbers["truth"])
        for name in ("voc07", "voc10"):
            assert row[name] == (numbers[name] and pytest.approx(numbers[name], abs=1e-9))


@pytest.mark.parametrize("path", EVAL_CASES, ids=lambda p: p.parent.name)
def test_tide_is_that_of_the_shared_cases(path):
    truth, found, expected = eval_case(path)
    reading = tide(truth, found, compatible=True).reading
    assert reading.overall["AP50"] == pytest.approx(expected["tide"]["ap50"], abs=1e-9)
    main = {row["error"]: row["AP points"] for row in reading.rows}
    assert main == pytest.approx(expected["tide"]["main"], abs=1e-9)
    special = {key: reading.overall[key] for key in expected["tide"]["special"]}
    assert special == pytest.approx(expected["tide"]["special"], abs=1e-9)


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_tide_is_tidecvs(seed):
    truth, found = random_case(seed)
    if len(truth.boxes) == 0 or len(found.boxes) == 0:
        return
    theirs_truth, theirs_found = Data("truth"), Data("found")
    for row in truth.images.iter_rows(named=True):
        theirs_truth.add_image(row["image_id"], row["file_name"])
    for row in truth.boxes.iter_rows(named=True):
        add = theirs_truth.add_ignore_region if row["crowd"] else theirs_truth.add_ground_truth
        add(row["image_id"], row["category_id"], [row[c] for c in "xywh"])
    for row in found.boxes.iter_rows(named=True):
        box = [row[c] for c in "xywh"]
        theirs_found.add_detection(row["image_id"], row["category_id"], row["score"], box)
    with contextlib.redirect_stdout(io.StringIO()):
        judge = TIDE()
        run = judge.evaluate(theirs_truth, theirs_found, mode=TIDE.BOX)
        main = {kind.short_name: gain for kind, gain in run.fix_main_errors().items()}
    ours = tide(truth, found, compatible=True).reading
    assert ours.overall["AP50"] == pytest.approx(run.ap, abs=1e-9)
    assert {row["error"]: row["AP points"] for row in ours.rows} == pytest.approx(main, abs=1e-9)


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_our_own_tide_starts_from_cocos_ap_and_names_every_error(seed):
    truth, found = random_case(seed)
    diagnosis = tide(truth, found)
    ap = evaluate(truth, found).coco["AP50"]
    assert diagnosis.reading.overall["AP50"] == pytest.approx(100 * max(ap, 0), abs=1e-9)
    counts = diagnosis.errors.group_by("kind").len()
    assert {row["error"]: row["count"] for row in diagnosis.reading.rows if row["count"]} == dict(
        counts.iter_rows()
    )
    false = match(truth, found, np.array([0.5])).outcomes()[1].sum()
    assert (diagnosis.errors["kind"] != "Miss").sum() == false


@pytest.mark.parametrize("path", shared_cases("obb_cases/obb_map*.json.gz"))
@pytest.mark.parametrize("rule", ["voc", "coco"])
@pytest.mark.parametrize("kind", ["area", "11", "11-kit", "101"])
def test_oriented_ap_is_that_of_dotas_kit(path, rule, kind):
    truth, found, expected = obb_case(path)
    key = {"area": "area", "11": "11_exact", "11-kit": "11", "101": "101"}[kind]
    reading = oriented(truth, found, rule, kind)
    for row in reading.rows:
        numbers = expected[rule]["per_iou"][f"{row['IoU']:.2f}"]["classes"][row["class"]]
        assert (row["TP"], row["FP"], row["truth"]) == (numbers["tp"], numbers["fp"], numbers["npos"])
        assert row["AP"] == pytest.approx(numbers[f"ap_{key}"], abs=1e-9)
    assert reading.overall["AP"] == pytest.approx(expected[rule][f"map_{key}_50_95"], abs=1e-9)


def test_the_historical_pixel_counts():
    """Two boxes whose IoU is 0.5 exactly without the pixel and above it with it."""
    truth, found = random_case(0, images=1, classes=1)
    square = {"x": 0.0, "y": 0.0, "w": 9.0, "h": 9.0, "crowd": False}
    pair = (
        truth.with_boxes(truth.boxes.head(1).with_columns(**{k: pl.lit(v) for k, v in square.items()})),
        found.with_boxes(
            found.boxes.head(1).with_columns(**{k: pl.lit(v) for k, v in (square | {"h": 4.5}).items()})
        ),
    )
    assert voc(*pair).overall["voc10"] == 0
    assert voc(*pair, plus_one=True).overall["voc10"] == 1


def test_average_precision_by_hand():
    flags = np.array([True, False, True])
    assert average_precision(flags, 4, "area") == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert average_precision(flags, 4, "11") == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)
    assert average_precision(flags, 0) is None
    assert average_precision(np.zeros(0, bool), 3) == 0
    with pytest.raises(ConfigError, match="kind"):
        average_precision(flags, 1, "12")


@given(seed=SEEDS, iou=st.sampled_from([0.3, 0.5, 0.75]))
@settings(max_examples=20, deadline=None)
def test_lrp_is_its_definition_at_every_threshold(seed, iou):
    truth, found = random_case(seed, classes=2, crowd=False)
    rows = lrp(truth, found, iou).rows
    for k, row in enumerate(rows):
        objects = int((truth.boxes["category_id"] == k).sum())
        if objects == 0:
            assert row["oLRP"] is None
            continue
        best = 1.0
        for score in found.boxes.filter(found.boxes["category_id"] == k)["score"]:
            kept = found.with_boxes(found.boxes.filter(found.boxes["score"] >= score))
            matching = match(truth, kept, np.array([iou]))
            mine = matching.det_category == k
            tp, fp = (flags & mine for flags in matching.outcomes())
            error = (1 - matching.iou_of_found()[tp]).sum() / (1 - iou)
            best = min(best, (error + fp.sum() + objects - tp.sum()) / (fp.sum() + objects))
        assert row["oLRP"] == pytest.approx(best, abs=1e-12)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_crowd_measures_are_their_definitions(seed):
    truth, found = random_case(seed, images=5, classes=1, crowd=False)
    if len(truth.boxes) == 0 or len(found.boxes) == 0:
        return
    reading = crowd(truth, found).overall
    matching = match(truth, found, np.array([0.5]))
    flags = matching.outcomes()[0][matching.order]
    tp, fp = np.cumsum(flags), np.cumsum(~flags)
    miss, rate = 1 - tp / len(truth.boxes), fp / 5
    at = [next((n for n, r in enumerate(rate) if r >= f), len(rate) - 1) for f in FALSE_POSITIVES]
    assert reading["MR"] == pytest.approx(np.exp(np.log(np.maximum(miss[at], 1e-10)).mean()))


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_the_jaccard_index_is_its_definition_with_ignored_regions_too(seed):
    truth, found = random_case(seed, images=5, classes=1)
    if len(truth.boxes.filter(~pl.col("crowd") & ~pl.col("ignore"))) == 0:
        return
    lowest, highest = np.array([_mean_jaccard_by_trying_all(truth, found, score) for score in SCORES]).T
    assert lowest.max() - 1e-9 <= crowd(truth, found).overall["JI"] <= highest.max() + 1e-9


def test_a_score_must_exceed_its_threshold_and_covered_truth_leaves():
    """Four persons: found, found at a score of exactly 0.5, missed, missed under an ignored region."""
    truth, found = TableBuilder("truth"), TableBuilder("found")
    for builder in (truth, found):
        builder.image("a.jpg", width=100, height=100)
        builder.category("person")
    for n, x in enumerate((0, 20, 40, 60)):
        truth.box(n, 0, 0, (x, 0, 10, 10))
    truth.box(4, 0, 0, (58, 0, 40, 40), ignore=True)
    for n, (x, y, score) in enumerate([(0, 0, 0.9), (20, 0, 0.5), (40, 20, 0.5), (80, 20, 0.8)]):
        found.box(n, 0, 0, (x, y, 10, 10), score=score)
    matching = match(truth.build(), found.build(), np.array([0.5]))
    # Above 0.4 two are found, one is false, one missed; above 0.5 one is found and two are missed.
    assert jaccard(matching, 0, 1, 0.5) == (pytest.approx(2 / 4), 0.0)


def _mean_jaccard_by_trying_all(truth, found, score) -> tuple[float, float]:
    """The least and the greatest mean over the choices of largest matchings."""
    values = []
    for image in range(len(truth.images)):
        a, b = (t.boxes.filter(t.boxes["image_id"] == image) for t in (truth, found))
        region = a["crowd"] | a["ignore"]
        a, regions = a.filter(~region), a.filter(region)
        b = b.filter(b["score"] > score)
        xywh = [x.select("x", "y", "w", "h").to_numpy() for x in (a, b, regions)]
        linked = pairwise_iou(xywh[0], xywh[1]) >= 0.5
        outside = [
            np.array([all(ioa(box, r) <= 0.5 for r in xywh[2]) for box in boxes], dtype=bool)
            for boxes in xywh[:2]
        ]
        outcomes, most = set(), 0
        for pairs in _matchings(linked):
            free = [sum(o) - sum(o[p[n]] for p in pairs) for n, o in enumerate(outside)]
            outcomes.add((len(pairs), *free))
            most = max(most, len(pairs))
        ratios = [k / (k + m + n) for k, m, n in outcomes if k == most and k + m + n]
        if ratios:
            values.append((min(ratios), max(ratios)))
    return tuple(np.mean(values, axis=0)) if values else (0.0, 0.0)


def _matchings(linked: np.ndarray, row: int = 0, taken: tuple = ()):
    """Every set of pairs of linked rows and columns without a row or column twice."""
    if row == len(linked):
        yield taken
        return
    yield from _matchings(linked, row + 1, taken)
    for column in np.flatnonzero(linked[row]):
        if column not in [c for _, c in taken]:
            yield from _matchings(linked, row + 1, (*taken, (row, column)))


def ioa(a: np.ndarray, b: np.ndarray) -> float:
    w, h = (max(min(a[n] + a[n + 2], b[n] + b[n + 2]) - max(a[n], b[n]), 0) for n in (0, 1))
    return w * h / (a[2] * a[3])
