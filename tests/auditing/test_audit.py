"""What an audit finds of planted faults, and what it leaves alone."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import boxwright
from boxwright.auditing import judging
from boxwright.auditing.others import what_others_drew
from boxwright.auditing.planting import corrupt
from boxwright.auditing.repair import repair, undo
from boxwright.auditing.schema import SUSPICION_SCHEMA
from boxwright.auditing.scoring import are_planted, ranked, score_audit
from boxwright.auditing.suspicions import suspect
from boxwright.data import formats
from boxwright.data.oriented import wrap
from boxwright.errors import ConfigError, DataError
from boxwright.reporting.audit_page import mixed_up
from tests.auditing.crowds import CELL, detections, labels
from tests.cli.test_cli import run


@pytest.fixture(scope="module", params=[False, True], ids=["upright", "oriented"])
def audited(request):
    clean = labels(oriented=request.param)
    planted = corrupt(clean, seed=50)
    found = detections(clean)
    return clean, planted, found, suspect(planted.tables, found)


def test_planted_faults_are_found(audited):
    _, planted, _, suspicions = audited
    counts = dict(planted.answers["kind"].value_counts().iter_rows())
    for kind, count in counts.items():
        own = suspicions.filter((pl.col("kind") == kind) & (pl.col("probability") >= 0.5))
        hits = are_planted(own, planted.answers)
        assert hits.sum() >= 0.72 * count, kind
        assert hits.mean() >= 0.78, kind


def test_probabilities_are_frequencies(audited):
    _, planted, _, suspicions = audited
    hits, told = are_planted(suspicions, planted.answers), suspicions["probability"].to_numpy()
    place = np.minimum((told * 5).astype(int), 4)
    off = [abs(told[place == n].sum() - hits[place == n].sum()) for n in np.unique(place)]
    assert sum(off) / len(planted.tables.boxes) < 0.05
    assert told.sum() == pytest.approx(len(planted.answers), rel=0.2)


def test_kinds_share_a_label_by_their_odds():
    alone, beside, torn = judging._of_one_kind(np.array([[0.3, 0.0, 0.0], [0.99, 0.3, 0.1], [0.5, 0.5, 0.5]]))
    np.testing.assert_allclose(alone, [0.3, 0, 0])
    np.testing.assert_allclose(beside, np.array([99, 3 / 7, 1 / 9]) / (100 + 3 / 7 + 1 / 9))
    np.testing.assert_allclose(torn, [0.25, 0.25, 0.25])
    certain = judging._of_one_kind(np.array([[1.0, 0.9]]))
    np.testing.assert_allclose(certain, [[1, 0]], atol=1e-7)


def test_an_audit_is_scored(audited):
    _, planted, _, suspicions = audited
    rows = {row["kind"]: row for row in score_audit(suspicions, planted.answers)}
    for kind, count in planted.answers["kind"].value_counts().iter_rows():
        assert rows[kind]["planted"] == count
        assert rows[kind]["AP"] > 0.78
        assert rows[kind]["ECE"] < 0.3
    whole = rows.pop("all kinds")
    assert whole["planted"] == sum(row["planted"] for row in rows.values()) == len(planted.answers)
    found = sum(row["recall"] * row["planted"] for row in rows.values())
    assert whole["recall"] * whole["planted"] == pytest.approx(found)
    assert whole["ECE"] < 0.15
    nothing = score_audit(suspicions.clear(), planted.answers)
    assert all(row["recall"] == 0 and row["precision"] is None for row in nothing)


def test_of_two_alike_boxes_one_is_a_duplicate(audited):
    _, planted, _, suspicions = audited
    drawn = planted.answers.filter(pl.col("kind") == "duplicate")
    twice = suspicions.clear(2 * len(drawn)).with_columns(
        kind=pl.lit("duplicate"),
        row=pl.concat([drawn["twin"], drawn["row"]]).cast(pl.Int64),
        probability=pl.Series([0.6] * len(drawn) + [0.9] * len(drawn)),
    )
    np.testing.assert_array_equal(are_planted(twice, planted.answers), np.arange(len(twice)) >= len(drawn))


def test_a_detector_that_doubts_its_headings_is_not_believed(monkeypatch):
    monkeypatch.setattr(judging, "ROUNDS", 3)
    clean = labels(images=60, oriented=True)
    planted = corrupt(clean, {"heading": 0.05}, seed=50)
    found, rng = detections(clean), np.random.default_rng(0)
    count = len(found.boxes)
    wrong = rng.random(count) < 0.05
    certainty = np.where(wrong, rng.uniform(0, 0.6, count), rng.uniform(0.6, 1, count))
    found = found.with_boxes(
        found.boxes.with_columns(
            angle=pl.col("angle") + math.pi * pl.Series(wrong),
            attributes=pl.Series([f'{{"heading_certainty":{c:.3f}}}' for c in certainty]),
        )
    )
    blind = found.with_boxes(found.boxes.with_columns(attributes=pl.lit(None, dtype=pl.String)))
    scores = []
    for predictions in (found, blind):
        rows = score_audit(suspect(planted.tables, predictions), planted.answers)
        (row,) = [row for row in rows if row["kind"] == "heading"]
        scores.append(row)
    assert scores[0]["recall at 0.9"] > 0.8
    assert scores[0]["AP"] > scores[1]["AP"] + 0.15


def test_objects_that_leave_a_faint_trace_are_not_spurious(monkeypatch):
    monkeypatch.setattr(judging, "ROUNDS", 6)
    clean = labels(images=60)
    planted = corrupt(clean, {"spurious": 0.05, "class": 0.05}, seed=50)
    found, rng = detections(clean, miss=0.0), np.random.default_rng(0)
    faint = rng.random(len(found.boxes)) < 0.1
    weak = found.with_boxes(
        found.boxes.with_columns(score=pl.when(pl.Series(faint)).then(0.003).otherwise("score"))
    )
    rows = {}
    for name, predictions in (("faint", weak), ("lost", found.with_boxes(found.boxes.filter(~faint)))):
        suspicions = suspect(planted.tables, predictions)
        rows[name] = {row["kind"]: row for row in score_audit(suspicions, planted.answers)}
    assert rows["faint"]["spurious"]["precision"] > 0.9 > rows["lost"]["spurious"]["precision"]
    assert rows["faint"]["class"]["recall"] > 0.9 > rows["lost"]["class"]["recall"] + 0.02


def test_what_is_mostly_left_out_at_the_border_is_missing_there(monkeypatch):
    monkeypatch.setattr(judging, "ROUNDS", 6)
    whole = labels(images=80)
    cut = pl.when(pl.col("x") < CELL).then(0.0).otherwise("x")
    whole = whole.with_boxes(whole.boxes.with_columns(x=cut))
    border = (whole.boxes["x"] == 0).to_numpy()
    left_out = np.random.default_rng(0).random(len(border)) < np.where(border, 0.6, 0.02)
    given = whole.with_boxes(whole.boxes.filter(~left_out))
    suspicions = suspect(given, detections(whole)).filter(
        (pl.col("kind") == "missing") & (pl.col("probability") >= 0.5)
    )
    none = pl.lit(None, dtype=pl.Int64)
    gone = whole.boxes.filter(left_out).with_columns(kind=pl.lit("missing"), row=none, twin=none)
    hits = are_planted(suspicions, gone)
    at_border = (suspicions["new_x"] < 15).to_numpy()
    assert (hits & at_border).sum() > 0.9 * (left_out & border).sum()
    assert (hits & ~at_border).sum() > 0.9 * (left_out & ~border).sum()
    assert hits.mean() > 0.9


def test_what_others_drew_stands_beside_each_suspicion(audited):
    clean, planted, _, suspicions = audited
    ben = clean.select_images(np.arange(len(clean.images)) % 2 == 0)
    told = what_others_drew(
        suspicions, planted.tables, {"ben": ben, "eve": ben.with_boxes(ben.boxes.clear())}
    )
    names, seen = clean.categories["name"].to_list(), 0
    for row, text in zip(suspicions.iter_rows(named=True), told):
        if row["image_id"] % 2:
            assert text is None
            continue
        assert text.endswith("eve: nothing")
        mine = clean.boxes.filter(pl.col("image_id") == row["image_id"])
        prefix = "" if row["x"] is not None else "new_"
        box = {n: row[f"{prefix}{n}"] for n in ("x", "y", "w", "h", "angle")}
        off = np.hypot(
            mine["x"] + mine["w"] / 2 - box["x"] - box["w"] / 2,
            mine["y"] + mine["h"] / 2 - box["y"] - box["h"] / 2,
        )
        if row["kind"] in ("class", "heading", "duplicate") and row["probability"] > 0.9:
            own = mine.row(int(np.argmin(off)), named=True)
            assert text.startswith(f"ben: {names[own['category_id']]}, IoU ")
            seen += 1
        if off.min() > 60:  # farther than any two boxes that overlap
            assert text == "ben: nothing, eve: nothing"
    assert seen > 5


def test_others_that_do_not_fit_are_told_before_anything_is_trained(tmp_path):
    clean = labels(images=4)
    formats.write(clean, tmp_path / "labels.parquet")
    other = replace(clean, categories=clean.categories.with_columns(name=pl.Series(["x", "y", "z"])))
    formats.write(other, tmp_path / "other.parquet")
    words = ["data", "audit", tmp_path / "labels.parquet", "-o", tmp_path / "audit"]
    assert "no such file" in run(*words, "--other", tmp_path / "none.json", check=2).stderr
    assert "category that the truth doesn't have" in " ".join(
        run(*words, "--other", tmp_path / "other.parquet", check=2).stderr.split()
    )
    assert not (tmp_path / "audit" / "folds").exists()


def test_classes_that_are_mixed_up_are_counted(audited):
    _, planted, _, suspicions = audited
    rows = mixed_up(suspicions, planted.tables)
    own = suspicions.filter(pl.col("kind") == "class")
    assert sum(row["expected"] for row in rows) == pytest.approx(own["probability"].sum())
    assert sum(row["likely"] for row in rows) == (own["probability"] >= 0.5).sum()
    counts = np.bincount(planted.tables.boxes["category_id"].to_numpy())
    names = planted.tables.categories["name"].to_list()
    assert all(row["labels"] == counts[names.index(row["labelled"])] for row in rows)
    assert len({(row["labelled"], row["rather"]) for row in rows}) == len(rows)


def test_rankings_are_scored_as_by_hand():
    told = np.array([0.95, 0.9, 0.6, 0.55, 0.2])
    hit = np.array([True, True, False, True, False])
    numbers = ranked(told, hit, planted=4)
    assert numbers["precision"] == 0.75
    assert numbers["recall"] == 0.75
    assert numbers["recall at 0.9"] == 0.5
    assert numbers["AP"] == pytest.approx((1 + 1 + 0.75) / 4)
    assert numbers["ECE"] == pytest.approx((0.15 + 0.6 + 0.45 + 0.2) / 5)


def test_clean_labels_are_left_alone():
    clean = labels()
    suspicions = suspect(clean, detections(clean))
    likely = suspicions.filter(pl.col("probability") >= 0.5)
    assert len(likely) < 0.02 * len(clean.boxes)


def test_where_nothing_is_found_nothing_is_suspected():
    clean = labels()
    assert not len(suspect(clean, clean.with_boxes(clean.boxes.clear())))


def test_how_a_rectangle_is_spelled_says_nothing():
    clean = labels(10, oriented=True)
    clean = clean.with_boxes(clean.boxes.with_columns(pl.col("angle") / 2))  # no headings
    x, y, w, h = (pl.col(name) for name in "xywh")
    spelled = {"x": x + (w - h) / 2, "y": y + (h - w) / 2, "w": h, "h": w}
    spelled["angle"] = pl.Series(wrap(clean.boxes["angle"].to_numpy() + math.pi / 2, math.pi))
    some = pl.Series(np.random.default_rng(0).random(len(clean.boxes)) < 0.5)
    other = clean.with_boxes(
        clean.boxes.with_columns(pl.when(some).then(v).otherwise(n).alias(n) for n, v in spelled.items())
    )
    found = detections(clean)
    numbers = [judging.judge(each, found).labels.numbers for each in (clean, other)]
    assert not other.boxes["w"].equals(clean.boxes["w"])
    np.testing.assert_allclose(*numbers, atol=1e-6)


def test_rows_say_what_would_repair_them(audited):
    _, planted, _, suspicions = audited
    assert dict(suspicions.schema) == SUSPICION_SCHEMA
    assert suspicions["probability"].is_sorted(descending=True)
    boxes = planted.tables.boxes
    for row in suspicions.iter_rows(named=True):
        kind = row["kind"]
        if row["row"] is not None:
            own = boxes.row(row["row"], named=True)
            assert all(own[n] == row[n] for n in ("x", "y", "w", "h", "angle", "image_id"))
        assert (row["row"] is None) == (kind == "missing")
        assert (row["new_category"] is None) == (kind in ("spurious", "duplicate"))
        if kind == "heading":
            turn = abs((row["new_angle"] - row["angle"] + math.pi) % (2 * math.pi) - math.pi)
            assert turn == pytest.approx(math.pi)
        if kind == "class":
            assert row["new_category"] != row["category"]
            assert row["detail"] == f"{row['category']} is {row['new_category']}"
        if kind == "angle":
            turn = abs((row["new_angle"] - row["angle"] + math.pi) % (2 * math.pi) - math.pi)
            assert turn <= math.pi / 2 + 1e-9
    gains = suspicions.group_by("kind").agg(pl.col("gain").sum())
    for kind, gain in gains.iter_rows():
        assert gain > 0 or kind in ("duplicate", "heading"), kind


def test_repairs_bring_labels_nearer_to_the_truth(audited):
    clean, planted, _, suspicions = audited
    repaired = repair(planted.tables, suspicions, 0.5)

    def off(tables):
        """AP of the clean labels as if they were detections."""
        scored = tables.with_boxes(tables.boxes.with_columns(score=pl.lit(1.0)))
        return boxwright.evaluate(clean, scored).coco["AP"]

    assert off(repaired.tables) > off(planted.tables) + 0.03
    assert sum(repaired.counts.values()) == len(repaired.record)
    rows = suspicions.filter(pl.col("probability") >= 0.5)["row"].drop_nulls()
    assert len(repaired.record) == rows.n_unique() + len(
        suspicions.filter((pl.col("probability") >= 0.5) & (pl.col("kind") == "missing"))
    )
    again = undo(repaired.tables, repaired.record)
    order = ["image_id", "x", "y", "w", "h"]
    assert again.boxes.sort(order).equals(planted.tables.boxes.sort(order))
    few = repair(planted.tables, suspicions, 0.5, ["class", "missing"])
    assert set(few.counts) == {"class", "missing"}


def test_repairs_are_of_the_labels_that_were_audited(audited):
    clean, planted, _, suspicions = audited
    with pytest.raises(DataError, match=r"of the audit is .* and another here"):
        repair(clean, suspicions, 0.5)
    with pytest.raises(ConfigError, match=r"no suspicion of kind 'mising'"):
        repair(planted.tables, suspicions, 0.5, ["mising"])
    repaired = repair(planted.tables, suspicions, 0.5)
    with pytest.raises(DataError, match=r"isn't the one that was repaired"):
        undo(clean, repaired.record)


def test_few_labels_are_not_judged():
    few = labels(images=3)
    with pytest.raises(DataError, match=r"are too few to learn how faults look"):
        suspect(few, detections(few))


def test_ignored_regions_hide_what_is_found_there():
    clean = labels(images=12)
    found = detections(clean, miss=0.0)
    gone = clean.with_boxes(clean.boxes.with_columns(ignore=pl.col("image_id") == 0))
    suspicions = suspect(gone, found)
    assert 0 not in suspicions.filter(pl.col("probability") > 0.5)["image_id"].to_list()


def test_a_folder_has_table_and_page(tmp_path):
    from PIL import Image

    clean = labels(images=12)
    paths = [str(tmp_path / f"{n}.png") for n in range(12)]
    for path in paths[:-1]:  # the last is not there
        Image.new("RGB", (600, 500), (90, 120, 90)).save(path)
    names = pl.Series([f"<b>{n}</b>.png" for n in range(12)])
    clean = replace(clean, images=clean.images.with_columns(path=pl.Series(paths), file_name=names))
    planted = corrupt(clean, seed=1)
    formats.write(planted.tables, tmp_path / "labels.parquet")
    formats.write(detections(clean), tmp_path / "found.parquet")
    paths = (tmp_path / "labels.parquet", tmp_path / "found.parquet", tmp_path / "audit")
    table = boxwright.audit(*paths, others={"<i>ben</i>": clean})
    assert pl.read_parquet(tmp_path / "audit" / "audit.parquet").equals(table)
    page = (tmp_path / "audit" / "index.html").read_text()
    assert page.count("data:image/jpeg") >= 0.8 * len(table)
    assert "<b>0</b>" not in page
    assert "&lt;b&gt;0&lt;/b&gt;.png" in page
    assert "&lt;i&gt;ben&lt;/i&gt;: nothing" in page
    assert "<i>ben" not in page
