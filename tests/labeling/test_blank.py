"""Labels that are drawn from nothing."""

import pytest

from boxwright.data import formats
from boxwright.data.synthetic import make_scenes
from boxwright.errors import ConfigError, DataError
from boxwright.labeling.blank import blank_labels, with_classes
from boxwright.labeling.store import Change, Store, shape_of
from tests.cli.test_cli import run
from tests.scenes import small_tables

BOX = {"category_id": 1, "x": 3.0, "y": 4.0, "w": 20.0, "h": 10.0, "angle": -3.0}


def test_images_of_a_folder_have_their_sizes_and_no_boxes(tmp_path):
    small_tables(tmp_path)
    found = blank_labels(tmp_path)
    assert found.images["file_name"].to_list() == [f"images/{n:03d}.png" for n in range(3)]
    assert found.images.select("width", "height").rows() == [(96, 64)] * 3
    assert len(found.boxes) == len(found.categories) == 0
    with pytest.raises(DataError, match="holds no image"):
        blank_labels((tmp_path / "empty").mkdir() or tmp_path / "empty")


def test_classes_come_behind_those_that_are_there(tmp_path):
    labels = small_tables(tmp_path)
    found = with_classes(labels, ["dog", "bird"])
    assert found.categories["name"].to_list() == ["cat", "dog", "bird"]
    assert found.boxes.equals(labels.boxes)
    for names in (["car", ""], ["car", "car"]):
        with pytest.raises(ConfigError, match="expected different names"):
            with_classes(labels, names)


@pytest.mark.parametrize(("draw", "angle"), [("headings", -3.0), ("oriented", pytest.approx(0.14159265))])
def test_what_is_drawn_has_the_wanted_shape_and_comes_out(tmp_path, draw, angle):
    small_tables(tmp_path)
    labels = with_classes(blank_labels(tmp_path / "images"), ["car", "bus"])
    store = Store(tmp_path / "review.sqlite", labels, draw)
    store.act(Change("drawn-first", "ada", 1, after=BOX))
    (box,) = store.tables().boxes.to_dicts()
    assert (box["image_id"], box["category_id"], box["angle"]) == (1, 1, angle)
    formats.write(store.tables(), tmp_path / "out.json", "coco")
    assert Store(tmp_path / "review.sqlite", labels).headings == (draw == "headings")
    with pytest.raises(ConfigError, match=f"{draw} boxes are drawn, not upright ones"):
        Store(tmp_path / "review.sqlite", labels, "upright")


def test_upright_boxes_are_drawn_where_nothing_else_is_said(tmp_path):
    labels = with_classes(small_tables(tmp_path), [])
    assert shape_of(labels) == "upright"
    store = Store(tmp_path / "review.sqlite", labels)
    with pytest.raises(ConfigError, match="expected a box without one"):
        store.act(Change("turned-box", "ada", 1, after=BOX))
    with pytest.raises(ConfigError, match="expected one of upright, oriented, headings"):
        Store(tmp_path / "other.sqlite", labels, "round")


def test_shapes_of_labels(tmp_path):
    scenes = make_scenes(tmp_path, 4, (128, 96))
    assert shape_of(scenes) == "headings"
    assert (
        shape_of(scenes.with_boxes(scenes.boxes.with_columns(angle=scenes.boxes["angle"] / 2))) == "oriented"
    )


def test_a_folder_without_labels_wants_classes(tmp_path):
    small_tables(tmp_path)
    done = run("label", tmp_path / "images", "-o", tmp_path / "review.sqlite", check=2)
    assert "--classes car,truck" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "review.sqlite").exists()
    Store(tmp_path / "other.sqlite", small_tables(tmp_path)).close()
    words = ["label", tmp_path / "images", "-o", tmp_path / "other.sqlite", "--classes", "cat,dog"]
    told = run(*words, "--predictions", tmp_path / "not-looked-at.parquet", check=2).stderr
    assert "review of other labels" in told.replace("\n", " ")
    done = run("label", tmp_path / "images", "--format", "coco", "--classes", "car", check=2)
    assert "--classes" not in done.stderr
