"""Each image is predicted by a detector that hasn't seen it."""

import os

import numpy as np
import polars as pl
import pytest

from boxwright.data import formats
from boxwright.data.sources import mark_ignored
from boxwright.errors import ConfigError, DataError
from boxwright.training import folds
from boxwright.training.folds import assign_folds, out_of_fold
from tests.scenes import square_experiment, square_tables


def config(folder):
    return square_experiment(folder, epochs=1).model_dump(mode="json")


def test_all_images_are_predicted_and_done_folds_stay_done(tmp_path, monkeypatch):
    labels = square_tables(tmp_path / "images", images=7)
    settings = config(tmp_path)
    found = out_of_fold(labels, settings, tmp_path / "folds", folds=2)
    assert found.images.equals(labels.images)
    assert found.boxes["image_id"].n_unique() == 7
    assert found.boxes["score"].null_count() == 0
    seen = []
    for fold in ("fold-1", "fold-2"):
        train, val = (
            set(formats.read(tmp_path / "folds" / f"{fold}-{part}.parquet").images["file_name"])
            for part in ("train", "val")
        )
        assert not train & val
        assert len(train | val) == 7
        assert set(formats.read(tmp_path / "folds" / fold / "truth.parquet").images["file_name"]) == val
        seen += sorted(val)
    assert sorted(seen) == labels.images["file_name"].to_list()

    # A fold that was stopped goes on, a finished one is not trained again.
    os.remove(tmp_path / "folds" / "fold-2" / "evaluation.json")
    asked = []
    honest = folds.train
    monkeypatch.setattr(
        folds, "train", lambda *a, **k: (asked.append((k["name"], k["resume"])), honest(*a, **k))[1]
    )
    again = out_of_fold(labels, settings, tmp_path / "folds", folds=2)
    assert asked == [("fold-2", True)]
    assert again.boxes.equals(found.boxes)

    other = labels.with_boxes(labels.boxes.with_columns(w=pl.col("w") + 1))
    with pytest.raises(ConfigError, match=r"holds other labels: remove"):
        out_of_fold(other, settings, tmp_path / "folds", folds=2)
    with pytest.raises(ConfigError, match=r"folds is 1, expected two or more"):
        out_of_fold(labels, settings, tmp_path / "folds", folds=1)
    with pytest.raises(DataError, match=r"7 images for 8 folds"):
        out_of_fold(labels, settings, tmp_path / "folds", folds=8)


def test_images_of_a_video_stay_together(tmp_path):
    labels = square_tables(tmp_path, images=40)
    names = pl.Series([f"video-{n % 10}/{n}.png" for n in range(40)])
    videos = labels.select_images(np.ones(40, dtype=bool))
    videos = type(labels)(videos.images.with_columns(file_name=names), videos.boxes, videos.categories)
    place = assign_folds(videos, 5, seed=0)
    assert np.bincount(place).tolist() == [8] * 5
    for video in range(10):
        assert len(set(place[video::10])) == 1
    # One folder for all is no video.
    assert sorted(np.bincount(assign_folds(labels, 5, seed=0))) == [8] * 5
    assert not np.array_equal(assign_folds(labels, 5, seed=0), assign_folds(labels, 5, seed=1))


def test_ignored_classes_are_not_predicted(tmp_path):
    labels = mark_ignored(square_tables(tmp_path / "images", images=4), ["dark"])
    assert labels.boxes["ignore"].to_list() == [False, True] * 4
    settings = config(tmp_path)
    settings["data"]["ignore"] = ["dark"]
    found = out_of_fold(labels, settings, tmp_path / "folds", folds=2)
    assert found.categories["name"].to_list() == ["bright", "dark"]
    assert set(found.boxes["category_id"]) == {0}
    with pytest.raises(ConfigError, match=r"no class 'drak' to ignore"):
        mark_ignored(labels, ["drak"])
