"""What boxes look like beside pictures that were drawn."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw

from boxwright.auditing import looks
from boxwright.auditing.evidence import Evidence
from boxwright.auditing.looks import COMPONENTS, CROPS, Looks
from boxwright.auditing.planting import corrupt
from boxwright.auditing.scoring import score_audit
from boxwright.auditing.suspicions import suspect
from boxwright.data.tables import Tables
from tests.auditing.crowds import CELL, COLUMNS, ROWS, detections, labels

GROUND, OBJECT = (90, 100, 80), (220, 210, 200)


def drawn(truth: Tables, folder: Path) -> Tables:
    """The labels with pictures: a disc for each box."""
    paths = [str(folder / name) for name in truth.images["file_name"]]
    x, y, w, h = truth.boxes.select("x", "y", "w", "h").to_numpy().T
    corners = np.column_stack([x, y, x + w, y + h])
    for path, own in zip(paths, truth.rows_by_image()):
        picture = Image.new("RGB", (CELL * COLUMNS, CELL * ROWS), GROUND)
        for box in corners[own]:
            ImageDraw.Draw(picture).ellipse(box.tolist(), fill=OBJECT)
        picture.save(path)
    return Tables(truth.images.with_columns(path=pl.Series(paths)), truth.boxes, truth.categories)


@pytest.mark.parametrize("seen", [True, False])
def test_objects_that_nothing_finds_arent_spurious_where_they_can_be_seen(seen, tmp_path):
    truth = labels(classes=1)
    if seen:
        truth = drawn(truth, tmp_path)
    found = detections(truth, miss=0.5)
    planted = corrupt(truth, {"spurious": 0.1}, seed=3)
    rows = score_audit(suspect(planted.tables, found), planted.answers)
    spurious = next(row for row in rows if row["kind"] == "spurious")
    assert spurious["planted"] > 60
    assert spurious["AP"] > 0.9 if seen else spurious["AP"] < 0.5


def told(seen: Looks, tables: Tables) -> np.ndarray:
    rows, none = np.arange(len(tables.boxes)), np.full(len(tables.boxes), -1)
    return seen.beside(Evidence(rows, np.zeros((len(rows), 0)), none, none), tables).numbers


@pytest.mark.parametrize("oriented", [False, True])
def test_boxes_are_found_again_by_their_place(oriented, tmp_path):
    clean = drawn(labels(6, oriented=oriented), tmp_path)
    others = [corrupt(clean, seed=n).tables for n in range(3)]
    seen = Looks([clean, *others])
    whole = told(seen, clean)
    assert whole.shape == (len(clean.boxes), len(CROPS) * COMPONENTS)
    assert np.isfinite(whole).all()
    for other in others:
        same = other.boxes.with_row_index().join(
            clean.boxes.with_row_index(), on=["image_id", "x", "y", "w", "h", "angle"], nulls_equal=True
        )
        assert len(clean.boxes) > len(same) > 0.7 * len(clean.boxes)
        own = told(seen, other)
        np.testing.assert_array_equal(own[same["index"].to_numpy()], whole[same["index_right"].to_numpy()])
        assert np.isfinite(own).all()


def test_images_are_opened_once_and_those_that_cant_be_read_are_counted(tmp_path):
    clean = drawn(labels(6), tmp_path)  # the last of which gets no box
    clean = clean.with_boxes(clean.boxes.filter(pl.col("image_id") < 5))
    Path(clean.images["path"][2]).write_bytes(b"no picture")
    steps = []
    seen = Looks([clean, clean], steps.append)
    assert (steps, seen.unread) == ([1] * 6, 1)
    unknown = np.isnan(told(seen, clean)).all(axis=1)
    np.testing.assert_array_equal(unknown, clean.boxes["image_id"].to_numpy() == 2)


def test_without_pictures_there_is_nothing_to_tell():
    seen = Looks([labels(6)])
    assert seen.unread == 6
    assert told(seen, labels(6)).shape[1] == 0


def test_components_of_many_boxes_are_those_of_the_first(tmp_path, monkeypatch):
    clean, found = drawn(labels(6), tmp_path), []
    components = looks._components
    monkeypatch.setattr(looks, "_components", lambda held: found.append(len(held)) or components(held))
    monkeypatch.setattr(looks, "ENOUGH", 40)
    few = told(Looks([clean]), clean)
    assert found == [2]  # images of two dozen boxes
    assert np.isfinite(few).all()
    monkeypatch.setattr(looks, "ENOUGH", 1000)
    assert np.abs(few - told(Looks([clean]), clean)).max() > 0.01
    assert found == [2, 6]
