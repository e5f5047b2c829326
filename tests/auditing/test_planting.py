"""Planted faults are what they are said to be, and nothing else changes."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from boxwright.auditing.planting import KINDS, SHARES, corrupt
from boxwright.errors import ConfigError
from boxwright.geometry.iou import pairwise_iou
from tests.auditing.crowds import labels

BOX = ["x", "y", "w", "h", "angle"]


@pytest.mark.parametrize("oriented", [False, True])
def test_each_kind_is_there_as_often_as_asked(oriented):
    clean = labels(oriented=oriented)
    planted = corrupt(clean)
    counts = dict(planted.answers["kind"].value_counts().iter_rows())
    for kind, share in SHARES.items():
        possible = oriented or kind not in ("angle", "heading")
        assert counts.get(kind, 0) == (round(share * len(clean.boxes)) if possible else 0)
    originals = planted.answers["original"].drop_nulls()
    assert originals.n_unique() == len(originals)


@pytest.mark.parametrize("oriented", [False, True])
def test_faults_are_what_they_are_said_to_be(oriented):
    clean = labels(oriented=oriented)
    before = clean.boxes.clone()
    planted = corrupt(clean, seed=3)
    assert clean.boxes.equals(before)
    new = planted.tables.boxes
    assert new["image_id"].is_sorted()
    for answer in planted.answers.iter_rows(named=True):
        kind = answer["kind"]
        was = before.row(answer["original"], named=True) if answer["original"] is not None else None
        now = new.row(answer["row"], named=True) if answer["row"] is not None else None
        assert answer["image_id"] == (now or was)["image_id"]
        if kind == "missing":
            assert now is None
        elif kind == "spurious":
            own = clean.select_images(np.arange(40) == now["image_id"]).boxes.select("x", "y", "w", "h")
            shape = np.array([[now["x"], now["y"], now["w"], now["h"]]])
            assert oriented or pairwise_iou(shape, own.to_numpy()).max() < 0.1
        elif kind == "class":
            assert now["category_id"] != was["category_id"]
            assert all(now[n] == was[n] for n in BOX)
        elif kind == "duplicate":
            twin = new.row(answer["twin"], named=True)
            assert all(twin[n] == was[n] for n in (*BOX, "category_id"))
            assert all(abs(now[n] / was[n] - 1) <= 0.0801 for n in "wh")
        elif kind == "location":
            shift = math.hypot((now["x"] - was["x"]) / was["w"], (now["y"] - was["y"]) / was["h"])
            grow = now["w"] / was["w"]
            assert 0.149 <= (shift if abs(grow - 1) < 1e-9 else abs(grow - 1)) <= 0.401
            assert now["area"] == pytest.approx(now["w"] * now["h"])
        else:
            turn = abs((now["angle"] - was["angle"] + math.pi) % (2 * math.pi) - math.pi)
            assert kind == "heading" or math.radians(15) <= turn <= math.radians(45)
            assert kind == "angle" or turn == pytest.approx(math.pi)
    touched = planted.answers["original"].drop_nulls().to_list()
    kept = [n for n in range(len(before)) if n not in touched]
    others = new.filter(pl.Series(planted.kinds() < 0))
    # Those that were drawn twice stand there as they were, too.
    twice = planted.answers.filter(pl.col("kind") == "duplicate")["original"].to_list()
    assert others.equals(before[sorted(kept + twice)])


def test_the_seed_decides():
    clean = labels()
    assert corrupt(clean, seed=1).tables.boxes.equals(corrupt(clean, seed=1).tables.boxes)
    assert not corrupt(clean, seed=1).tables.boxes.equals(corrupt(clean, seed=2).tables.boxes)


def test_crowds_and_ignored_regions_stay():
    clean = labels()
    marked = clean.with_boxes(clean.boxes.with_columns(ignore=pl.int_range(pl.len()) % 2 == 0))
    planted = corrupt(marked, {"missing": 0.5, "class": 0.5})
    assert planted.tables.boxes.filter("ignore").equals(marked.boxes.filter("ignore"))
    assert len(planted.answers) == len(marked.boxes) // 2


def test_wrong_classes_are_those_of_other_boxes():
    clean = labels(classes=3)
    ignored = clean.with_boxes(clean.boxes.with_columns(ignore=pl.col("category_id") == 1))
    planted = corrupt(ignored, {"class": 0.5})
    was = ignored.boxes["category_id"].to_numpy()[planted.answers["original"].to_numpy()]
    now = planted.tables.boxes["category_id"].to_numpy()[planted.answers["row"].to_numpy()]
    np.testing.assert_array_equal(now, np.where(was == 0, 2, 0))


def test_boxes_end_where_their_image_does():
    clean = labels()
    edge = clean.with_boxes(clean.boxes.with_columns(x=pl.lit(0.0), y=pl.lit(0.0)))
    moved = corrupt(edge, {"location": 0.5, "duplicate": 0.5}).tables.boxes
    assert moved["x"].min() >= 0
    assert moved["y"].min() >= 0
    assert moved["w"].min() > 0


def test_what_cannot_be_is_told():
    one = labels(classes=1)
    assert "class" not in corrupt(one).answers["kind"].to_list()
    for tables, shares, message in (
        (one, {"class": 0.1}, r"class is 0.1, but they are of one class"),
        (one, {"heading": 0.1}, r"but no box has an angle"),
        (one, {"mising": 0.1}, r"no kind of fault 'mising'.*missing"),
        (one, {"missing": 1.5}, r"expected a share from 0 to 1"),
        (one, {"missing": 0.7, "location": 0.7}, r"more than all boxes together"),
    ):
        with pytest.raises(ConfigError, match=message):
            corrupt(tables, shares)
    with pytest.raises(ConfigError, match=r"expected 0 < from <= to < 1"):
        corrupt(one, strength=(0.5, 0.2))


def test_only_angles_that_tell_front_from_back_can_point_backwards():
    whole = labels(oriented=True)
    half = whole.with_boxes(whole.boxes.with_columns(angle=pl.col("angle") / 2))
    assert "heading" in set(corrupt(whole).answers["kind"])
    planted = corrupt(half)
    assert set(planted.answers["kind"]) == set(KINDS) - {"heading"}
    assert not planted.tables.has_headings()
    with pytest.raises(ConfigError, match=r"no angle tells front from back"):
        corrupt(half, {"heading": 0.1})


def test_images_of_unknown_size_get_no_spurious_boxes():
    clean = labels()
    unknown = replace(
        clean, images=clean.images.with_columns(width=pl.lit(None, pl.Int32), height=pl.lit(None, pl.Int32))
    )
    kinds = set(corrupt(unknown).answers["kind"])
    assert kinds == set(KINDS) - {"spurious", "angle", "heading"}
