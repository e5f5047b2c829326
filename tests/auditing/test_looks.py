"""What boxes look like beside pictures that were drawn."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw

from boxwright.auditing.evidence import Evidence
from boxwright.auditing.looks import COMPONENTS, CROPS, Looks
from boxwright.auditing.planting import corrupt
from boxwright.auditing.scoring import score_audit
from boxwright.auditing.suspicions import suspect
from boxwright.data.tables import Tables
from tests.auditing.crowds import CELL, COLUMNS, ROWS, labels

GROUND, OBJECT = (90, 100, 80), (220, 210, 200)


def drawn(truth: Tables, folder: Path, lamps: Tables | None = None) -> Tables:
    """The labels with pictures: a disc for each box, a frame of the same colours for each lamp."""
    paths = [str(folder / name) for name in truth.images["file_name"]]
    for n, path in enumerate(paths):
        picture = Image.new("RGB", (CELL * COLUMNS, CELL * ROWS), GROUND)
        pen = ImageDraw.Draw(picture)
        for x, y, x2, y2 in corners(truth, n):
            pen.ellipse([x, y, x2, y2], fill=OBJECT)
        for x, y, x2, y2 in corners(lamps, n) if lamps else []:
            pen.rectangle([x, y, x2, y2], outline=OBJECT, width=5)
        picture.save(path)
    images = truth.images.with_columns(path=pl.Series(paths))
    return Tables(images, truth.boxes, truth.categories)


def corners(tables: Tables, image: int) -> np.ndarray:
    x, y, w, h = tables.boxes.filter(pl.col("image_id") == image).select("x", "y", "w", "h").to_numpy().T
    return np.column_stack([x, y, x + w, y + h])


def two_kinds() -> tuple[Tables, Tables]:
    """Objects in most cells, and lamps in half as many."""
    every = labels(classes=1)
    lamp = np.random.default_rng(1).random(len(every.boxes)) < 1 / 3
    return every.with_boxes(every.boxes.filter(~lamp)), every.with_boxes(every.boxes.filter(lamp))


@pytest.mark.parametrize("seen", [True, False])
def test_what_a_detector_takes_for_an_object_isnt_missing_where_it_can_be_seen(seen, tmp_path):
    truth, lamps = two_kinds()
    if seen:
        truth = drawn(truth, tmp_path, lamps)
    boxes = pl.concat([truth.boxes, lamps.boxes]).sort("image_id", maintain_order=True)
    rng = np.random.default_rng(0)
    off, scores = rng.normal(0, 1, (2, len(boxes))), rng.beta(8, 2, len(boxes))
    moved = {"x": boxes["x"] + off[0], "y": boxes["y"] + off[1], "score": pl.Series(scores)}
    found = truth.with_boxes(boxes.with_columns(**moved))
    planted = corrupt(truth, {"missing": 0.1, "spurious": 0.05}, seed=3)
    missing, *_ = score_audit(suspect(planted.tables, found), planted.answers)
    assert missing["kind"] == "missing"
    assert missing["planted"] > 60
    assert missing["AP"] > 0.9 if seen else missing["AP"] < 0.5


def told(looks: Looks, tables: Tables) -> np.ndarray:
    rows, none = np.arange(len(tables.boxes)), np.full(len(tables.boxes), -1)
    return looks.of_labels(Evidence(rows, np.zeros((len(rows), 0)), none, none), tables).numbers


@pytest.mark.parametrize("oriented", [False, True])
def test_boxes_are_found_again_by_their_place(oriented, tmp_path):
    clean = drawn(labels(6, oriented=oriented), tmp_path)
    others = [corrupt(clean, seed=n).tables for n in range(3)]
    looks = Looks([clean, *others])
    whole = told(looks, clean)
    assert whole.shape == (len(clean.boxes), len(CROPS) * COMPONENTS)
    assert np.isfinite(whole).all()
    for other in others:
        same = other.boxes.with_row_index().join(
            clean.boxes.with_row_index(), on=["image_id", "x", "y", "w", "h", "angle"], nulls_equal=True
        )
        assert len(clean.boxes) > len(same) > 0.7 * len(clean.boxes)
        own = told(looks, other)
        np.testing.assert_array_equal(own[same["index"].to_numpy()], whole[same["index_right"].to_numpy()])
        assert np.isfinite(own).all()


def test_images_are_opened_once_and_those_that_cant_be_read_are_counted(tmp_path):
    clean = drawn(labels(6), tmp_path)
    Path(clean.images["path"][2]).write_bytes(b"no picture")
    steps = []
    looks = Looks([clean, clean], steps.append)
    assert (len(steps), looks.unread) == (6, 1)
    unknown = np.isnan(told(looks, clean)).all(axis=1)
    np.testing.assert_array_equal(unknown, clean.boxes["image_id"].to_numpy() == 2)


def test_without_pictures_there_is_nothing_to_tell():
    looks = Looks([labels(6)])
    assert looks.unread == 6
    assert told(looks, labels(6)).shape[1] == 0


def test_components_of_many_boxes_are_those_of_the_first(tmp_path, monkeypatch):
    clean = drawn(labels(6), tmp_path)
    monkeypatch.setattr("boxwright.auditing.looks.ENOUGH", 40)
    assert np.isfinite(told(Looks([clean]), clean)).all()
