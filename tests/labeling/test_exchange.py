"""Corrections that were made in other tools come into a review as what they are."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from boxwright.data import formats
from boxwright.data.synthetic import make_scenes
from boxwright.errors import DataError
from boxwright.labeling.corrections import corrections
from boxwright.labeling.exchange import take
from boxwright.labeling.store import Store
from tests.scenes import small_tables


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "review.sqlite", small_tables(tmp_path))


def changed(labels):
    """The first box moved, the second of the other class, the third gone, one new."""
    boxes = labels.boxes.with_row_index()
    moved = pl.when(pl.col("index") == 0).then(pl.col("x") + 2).otherwise("x")
    other = pl.when(pl.col("index") == 1).then(1 - pl.col("category_id")).otherwise("category_id")
    boxes = boxes.with_columns(x=moved, category_id=other.cast(pl.Int32)).filter(pl.col("index") != 2)
    new = boxes.tail(1).with_columns(
        image_id=pl.lit(2, pl.Int64), x=pl.lit(60.0), y=pl.lit(20.0), w=pl.lit(20.0), area=pl.lit(160.0)
    )
    return labels.with_boxes(pl.concat([boxes, new]).drop("index"))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cvat", "a.xml"),
        ("labelstudio", "a.json"),
        ("labelme", "folder"),
        ("fiftyone", "folder"),
        ("coco", "a.json"),
    ],
)
def test_what_was_corrected_elsewhere_is_corrections_here(store, tmp_path, name, file):
    formats.write(changed(store.tables()), tmp_path / "back" / file, name)
    found = take(store, formats.read(tmp_path / "back" / file, name), "anna", accept=True)
    assert found == {"shape": 1, "class": 1, "remove": 1, "add": 1, "same": 1}
    kinds = corrections(store)["kind"].sort().to_list()
    assert kinds == ["class", "location", "missing", "spurious"]
    assert set(corrections(store)["person"]) == {"anna"}
    assert {row["state"] for row in store.images()} == {"accepted"}


def test_labels_that_come_back_as_they_were_change_nothing(store, tmp_path):
    assert take(store, store.tables(), "anna") == {"same": 4}
    assert store.last_action() == 0
    scenes = make_scenes(tmp_path / "scenes", 3, size=(160, 128))
    oriented = Store(tmp_path / "oriented.sqlite", scenes)
    formats.write(scenes, tmp_path / "back.xml", "cvat")
    assert take(oriented, formats.read(tmp_path / "back.xml", "cvat"), "anna")["same"] == len(scenes.boxes)
    assert len(corrections(oriented)) == 0


def test_ignored_boxes_are_boxes_too(tmp_path):
    labels = small_tables(tmp_path)
    labels = labels.with_boxes(labels.boxes.with_columns(ignore=pl.lit(True)))
    store = Store(tmp_path / "review.sqlite", labels)
    assert take(store, labels, "anna") == {"same": 4}


def test_oriented_boxes_without_their_angles_are_refused(tmp_path):
    scenes = make_scenes(tmp_path / "scenes", 2, size=(160, 128))
    store = Store(tmp_path / "review.sqlite", scenes)
    with pytest.raises(DataError, match="came back without angles"):
        take(store, scenes.without_angles(), "anna")
    assert store.last_action() == 0


def test_images_that_did_not_come_back_stay(store):
    labels = store.tables()
    part = labels.select_images(np.array([True, False, False]))
    assert take(store, part.with_boxes(part.boxes.clear()), "anna") == {"remove": 2}
    assert len(store.boxes(0)) == 0
    assert len(store.boxes(1)) == 2


def test_other_images_and_classes_are_refused(store):
    labels = store.tables()
    other = labels.images.with_columns(file_name=pl.lit("other-") + pl.col("file_name"))
    with pytest.raises(DataError, match=r"image 'other-000\.png' is none of"):
        take(store, replace(labels, images=other), "anna")
    classes = labels.categories.with_columns(name=pl.Series(["cat", "bird"]))
    with pytest.raises(DataError, match="class 'bird' is none of"):
        take(store, replace(labels, categories=classes), "anna")
    assert store.last_action() == 0
