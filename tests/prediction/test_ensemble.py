"""Several detectors' boxes become one table."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from ensemble_boxes import weighted_boxes_fusion

import boxwright
from boxwright.data.confident import thresholds_by_name, with_thresholds
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.prediction.ensemble import fuse_tables
from tests.scenes import oriented_tables, square_experiment, square_tables


def found_by(truth: Tables, seed: int, name: str) -> Tables:
    """Truth's boxes a little off, some of them missed, and some that aren't there."""
    rng = np.random.default_rng(seed)
    off = {side: pl.Series(truth.boxes[side] + rng.normal(0, 1.5, len(truth.boxes))) for side in "xywh"}
    score = pl.Series(rng.uniform(0.2, 1, len(truth.boxes)))
    boxes = truth.boxes.with_columns(score=score, source=pl.lit(name), **off)
    boxes = boxes.filter(pl.Series(rng.random(len(boxes)) < 0.8))
    stray = boxes.sample(3, seed=seed).with_columns(x=pl.col("x") / 2, score=pl.lit(0.3))
    return truth.with_boxes(pl.concat([boxes, stray]).sort("image_id", maintain_order=True))


def test_boxes_are_those_of_ensemble_boxes(tmp_path):
    truth = square_tables(tmp_path, 6)
    members = [found_by(truth, seed, f"model{seed}") for seed in range(3)]
    fused = fuse_tables(members)
    assert fused.boxes["image_id"].is_sorted()
    assert set(fused.boxes["source"]) == {"model0 + model1 + model2"}
    for image in range(6):
        own = [m.boxes.filter(pl.col("image_id") == image) for m in members]
        xyxy = [np.column_stack([b["x"], b["y"], b["x"] + b["w"], b["y"] + b["h"]]) / 100 for b in own]
        boxes, scores, labels = weighted_boxes_fusion(
            xyxy, [b["score"] for b in own], [b["category_id"] for b in own], iou_thr=0.55
        )
        mine = fused.boxes.filter(pl.col("image_id") == image)
        order = np.lexsort((boxes[:, 0], labels, -scores.round(6)))
        mine = mine[np.lexsort((mine["x"], mine["category_id"], -mine["score"].round(6)))]
        np.testing.assert_allclose(mine["score"], scores[order], atol=1e-6)
        assert mine["category_id"].to_list() == labels[order].tolist()
        np.testing.assert_allclose(mine["x"], 100 * boxes[order, 0], atol=1e-4)
        np.testing.assert_allclose(mine["w"], 100 * (boxes[order, 2] - boxes[order, 0]), atol=1e-4)
    few = fuse_tables(members, max_detections=1)
    assert few.boxes["image_id"].to_list() == list(range(6))
    assert (few.boxes["score"] >= 0.3).all()


def test_classes_are_joined_by_name_and_thresholds_are_means(tmp_path):
    truth = square_tables(tmp_path, 4)
    one = found_by(truth, 0, "one")
    # The other knows its classes in the other order, and one more.
    names = ["round", "dark", "bright"]
    turned = pl.DataFrame(
        {"category_id": [0, 1, 2], "name": names}, schema_overrides={"category_id": pl.Int32}
    )
    categories = pl.concat([truth.categories.clear(), turned], how="diagonal")
    boxes = one.boxes.with_columns(category_id=2 - pl.col("category_id"), source=pl.lit("other"))
    other = Tables(one.images, boxes, categories)
    one = replace(one, categories=with_thresholds(one.categories, {"dark": 0.4, "bright": 0.2}))
    other = replace(other, categories=with_thresholds(other.categories, {"dark": 0.6, "round": 0.5}))
    fused = fuse_tables([one, other])
    assert fused.categories["name"].to_list() == ["bright", "dark", "round"]
    assert thresholds_by_name(fused.categories) == pytest.approx({"bright": 0.2, "dark": 0.5, "round": 0.5})
    # The same boxes twice are the same boxes, of the same scores.
    alone = fuse_tables([one, one])
    assert fused.boxes.select("x", "y", "w", "h", "score", "category_id").equals(
        alone.boxes.select("x", "y", "w", "h", "score", "category_id")
    )


def test_boxes_without_a_source_are_fused(tmp_path):
    truth = oriented_tables(tmp_path, 4)
    named = truth.with_boxes(truth.boxes.with_columns(score=pl.lit(0.8), source=pl.lit("a")))
    nameless = named.with_boxes(named.boxes.with_columns(source=pl.lit(None, dtype=pl.String)))
    for members, source in (([named, nameless], "a"), ([nameless, nameless], None)):
        assert set(fuse_tables(members).boxes["source"]) == {source}


def test_oriented_boxes_keep_their_angles(tmp_path):
    truth = oriented_tables(tmp_path, 4)
    scored = truth.with_boxes(truth.boxes.with_columns(score=pl.lit(0.8), source=pl.lit("a")))
    # The same rectangles, spelled with width and height exchanged.
    middle = {
        "x": pl.col("x") + pl.col("w") / 2 - pl.col("h") / 2,
        "y": pl.col("y") + pl.col("h") / 2 - pl.col("w") / 2,
    }
    turned = scored.with_boxes(
        scored.boxes.with_columns(w=pl.col("h"), h=pl.col("w"), angle=pl.col("angle") + np.pi / 2, **middle)
    )
    fused = fuse_tables([scored, turned])
    assert len(fused.boxes) == len(scored.boxes)
    key = ["image_id", "x", "y"]
    got, wanted = (t.boxes.with_columns(pl.col("x", "y").round(6)).sort(key) for t in (fused, scored))
    np.testing.assert_allclose(got["x"], wanted["x"], atol=1e-5)
    np.testing.assert_allclose(got["h"], wanted["h"], atol=1e-6)
    np.testing.assert_allclose(got["score"], 0.8)
    with pytest.raises(DataError, match="upright and oriented boxes can't be fused"):
        fuse_tables([scored, scored.without_angles()])


def test_predict_fuses_several_checkpoints(tmp_path):
    config = square_experiment(tmp_path, epochs=2)
    runs = [
        boxwright.train(
            config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})}),
            name=f"run{seed}",
            runs=tmp_path / "runs",
        ).folder
        for seed in range(2)
    ]
    images = tmp_path / "images"
    members = [boxwright.predict(images, run) for run in runs]
    together = boxwright.predict(images, runs, tmp_path / "both.parquet", max_detections=4)
    assert together.boxes["source"][0] == "run0 + run1"
    expected = fuse_tables([boxwright.predict(images, run, max_detections=4) for run in runs], 4)
    assert together.boxes.equals(expected.boxes)
    assert len(together.boxes) < sum(len(m.boxes) for m in members)
    with pytest.raises(DataError, match="other images"):
        fuse_tables([members[0], members[0].select_images(np.arange(8) > 2)])
