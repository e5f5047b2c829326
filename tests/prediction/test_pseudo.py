"""What a detector finds becomes labels that say how sure they are."""

import numpy as np
import polars as pl
import pytest

import boxwright
from boxwright.config import check_config
from boxwright.data import formats
from boxwright.errors import ConfigError
from tests.scenes import square_experiment, square_tables


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run that has learnt the squares somewhat, and its folder of images."""
    folder = tmp_path_factory.mktemp("teacher")
    config = square_experiment(folder, epochs=20, evaluate_every=20)
    return boxwright.train(config, name="teacher", runs=folder / "runs").folder, folder / "images"


def test_pseudo_labels_keep_score_source_and_threshold_and_tell_how_many_are_right(teacher, tmp_path):
    run, _ = teacher
    truth = square_tables(tmp_path / "new", 6, seed=3)
    made = boxwright.pseudo_label(tmp_path / "new", run, tmp_path / "pseudo.parquet", score=0.3, truth=truth)
    tables = formats.read(tmp_path / "pseudo.parquet")
    assert tables.boxes["score"].null_count() == 0
    assert tables.boxes["source"].str.contains("teacher").all()
    for row, k in zip(made.rows, range(2), strict=True):
        assert row["threshold"] == 0.3
        own = tables.boxes.filter(pl.col("category_id") == k)
        assert row["certain"] == (own["score"] >= 0.3).sum()
        assert row["below"] == (own["score"] < 0.3).sum()
        # Each image has one of each class; overlap counted by hand.
        sure, hits = own.filter(pl.col("score") >= 0.3), 0
        for image in range(6):
            name = tables.images["file_name"][image]
            row_of = truth.images["file_name"].to_list().index(name)
            wanted = truth.boxes.filter((pl.col("image_id") == row_of) & (pl.col("category_id") == k)).row(
                0, named=True
            )
            mine = sure.filter(pl.col("image_id") == image)
            hits += any(iou(box, wanted) >= 0.5 for box in mine.iter_rows(named=True))
        assert row["of the truth"] == pytest.approx(hits / 6)
        assert row["right"] == (pytest.approx(hits / len(sure)) if len(sure) else None)
    student = tmp_path / "pseudo.parquet"
    content = square_experiment(tmp_path).model_dump()
    content["data"]["train"] = [content["data"]["train"], {"root": str(student), "role": "pseudo"}]
    run = boxwright.train(check_config(content, "x"), name="student", runs=tmp_path / "runs")
    assert run.evaluation.coco["AP"] >= 0


def iou(one: dict, other: dict) -> float:
    sides = [
        min(one[a] + one[s], other[a] + other[s]) - max(one[a], other[a]) for a, s in (("x", "w"), ("y", "h"))
    ]
    inside = float(np.prod(np.maximum(sides, 0)))
    return inside / (one["w"] * one["h"] + other["w"] * other["h"] - inside)


def test_labelled_images_are_left_out(teacher, tmp_path):
    run, images = teacher
    labelled = square_tables(tmp_path / "labelled", 3)
    made = boxwright.pseudo_label(images, run, score=0.5, labelled=labelled)
    assert sorted(made.tables.images["file_name"]) == [f"{n:03d}.png" for n in range(3, 8)]


def test_thresholds_come_from_a_precision_on_the_run_s_validation_images(teacher):
    run, images = teacher
    wanted = 0.2
    made = boxwright.pseudo_label(images, run, precision=wanted)
    rows = boxwright.threshold(run / "truth.parquet", run / "predictions.parquet", precision=wanted).rows
    assert [row["threshold"] for row in made.rows] == [row["threshold"] for row in rows]
    with pytest.raises(ConfigError, match="a precision wants a finished run"):
        boxwright.pseudo_label(images, run / "checkpoints" / "best.safetensors", precision=wanted)
    with pytest.raises(ConfigError, match="no threshold is known for 'bright'"):
        boxwright.pseudo_label(images, run / "checkpoints" / "last.safetensors")
    with pytest.raises(ConfigError, match="can't promise both"):
        boxwright.pseudo_label(images, run, precision=0.5, score=0.5)
    with pytest.raises(ConfigError, match=r"pseudo.json: expected a .parquet, which keeps scores"):
        boxwright.pseudo_label(images, run, "pseudo.json", score=0.5)
