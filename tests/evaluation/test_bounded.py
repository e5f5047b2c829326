"""Numbers of parts are those of the whole, to the last bit."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import boxwright
from boxwright.cli import app
from boxwright.data import formats
from boxwright.data.formats.parts import part_file
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame
from boxwright.errors import ConfigError, DataError, Fault
from boxwright.evaluation.bounded import evaluate_parts

IMAGES, CLASSES = 37, 3


def tables(rng, boxes: int, scored: bool, angled: bool, near: Tables | None = None) -> Tables:
    """Random boxes; of predictions many lie near those of the truth, and many scores are equal."""
    columns = {
        "image_id": np.sort(rng.integers(0, IMAGES, boxes)),
        "category_id": rng.integers(0, CLASSES, boxes),
    }
    place = rng.uniform(0, 300, (boxes, 2))
    size = np.exp(rng.uniform(2, 5, (boxes, 2)))
    if near is not None:
        of = rng.integers(0, len(near.boxes), boxes)
        columns["image_id"] = near.boxes["image_id"].to_numpy()[of]
        columns["category_id"] = near.boxes["category_id"].to_numpy()[of]
        place = near.boxes.select("x", "y").to_numpy()[of] + rng.normal(0, 4, (boxes, 2))
        size = near.boxes.select("w", "h").to_numpy()[of] * np.exp(rng.normal(0, 0.1, (boxes, 2)))
    columns |= dict(zip("xywh", [*place.T, *size.T])) | {"area": size.prod(axis=1)}
    if angled:
        columns["angle"] = rng.normal(0, 0.05, boxes)
    if scored:
        columns["score"] = rng.integers(1, 30, boxes) / 30
    else:
        columns |= {"crowd": rng.random(boxes) < 0.1, "ignore": rng.random(boxes) < 0.1}
    names = [f"{n}.png" for n in range(IMAGES)]
    ids = rng.permutation(IMAGES) + 5 if not scored else [None] * IMAGES
    images = frame(IMAGE_SCHEMA, {"image_id": range(IMAGES), "file_name": names, "source_id": ids})
    categories = frame(CATEGORY_SCHEMA, {"category_id": range(CLASSES), "name": ["a", "b", "c"]})
    return Tables(images, frame(BOX_SCHEMA, columns), categories)


def write_parts(predictions: Tables, folder, size: int, shown: np.ndarray) -> None:
    """Parts of the images in the order of `shown`."""
    folder.mkdir()
    for part, start in enumerate(range(0, len(shown), size)):
        own = np.zeros(IMAGES, dtype=bool)
        own[shown[start : start + size]] = True
        formats.write(predictions.select_images(own), part_file(folder, part))
    predictions.images.write_parquet(folder / "images.parquet")
    (folder / "plan.json").write_text(json.dumps({"images": len(shown), "part_size": size}))


@pytest.mark.parametrize("angled", ["none", "all", "truth", "few"])
@pytest.mark.parametrize("seed", range(4))
def test_numbers_are_those_of_the_whole(tmp_path, seed, angled):
    rng = np.random.default_rng(seed)
    truth = tables(rng, 300, scored=False, angled=angled != "none")
    predictions = tables(rng, 900, scored=True, angled=angled in ("all", "few"), near=truth)
    if angled == "few":  # most parts have no angle, and are compared as the others are
        few = pl.when(pl.col("image_id") < 2).then("angle")
        truth, predictions = (t.with_boxes(t.boxes.with_columns(angle=few)) for t in (truth, predictions))
    if angled == "truth":
        truth = replace(truth, faults=(Fault("broken", "error", "a.json", "no box.", dropped=True),))
    write_parts(predictions, tmp_path / "found", 5, rng.permutation(IMAGES))
    options = {"max_dets": (1, 5), "area_edges": (500.0, 4000.0)} if seed % 2 else {}
    whole = boxwright.evaluate(truth, predictions, **options)
    bounded = evaluate_parts(truth, tmp_path / "found", **options)
    assert bounded.to_dict() == whole.to_dict()
    for name in ("precision", "recall", "scores", "truth_count"):
        assert np.array_equal(getattr(bounded.curves, name), getattr(whole.curves, name)), name
    assert 0 < whole.coco["AP"] < 1


def test_the_command_takes_parts(tmp_path):
    rng = np.random.default_rng(5)
    truth = tables(rng, 300, scored=False, angled=False)
    predictions = tables(rng, 600, scored=True, angled=False, near=truth)
    write_parts(predictions, tmp_path / "found", 10, np.arange(IMAGES))
    formats.write(truth, tmp_path / "truth.parquet")
    command = ["evaluate", str(tmp_path / "truth.parquet"), str(tmp_path / "found"), "--json"]
    for name, more in {"parts": [], "whole": ["--metric", "voc"]}.items():
        done = CliRunner().invoke(app, [*command, str(tmp_path / f"{name}.json"), *more])
        assert done.exit_code == 0, done.output
    parts, whole = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("parts", "whole"))
    assert parts == {key: whole[key] for key in parts}
    assert "voc" in whole


def test_truth_of_images_in_no_part_is_missed(tmp_path):
    rng = np.random.default_rng(9)
    truth = tables(rng, 300, scored=False, angled=False)
    predictions = tables(rng, 600, scored=True, angled=False, near=truth)
    shown = np.arange(20)
    write_parts(predictions, tmp_path / "found", 8, shown)
    only = predictions.with_boxes(predictions.boxes.filter(predictions.boxes["image_id"] < 20))
    whole = evaluate_parts(truth, tmp_path / "found")
    assert whole.coco == boxwright.evaluate(truth, only).coco
    assert f"{len(truth.images) - 20} of {len(truth.images)} images of the truth aren't" in whole.notes[0]


def test_what_does_not_belong_is_told(tmp_path):
    rng = np.random.default_rng(3)
    truth = tables(rng, 100, scored=False, angled=False)
    predictions = tables(rng, 200, scored=True, angled=False, near=truth)
    write_parts(predictions, tmp_path / "found", 20, np.arange(IMAGES))
    with pytest.raises(ConfigError, match="max_dets"):
        evaluate_parts(truth, tmp_path / "found", max_dets=(10, 1))
    fewer = truth.select_images(np.arange(IMAGES) < 10)
    with pytest.raises(DataError, match="for an image that the truth doesn't have"):
        evaluate_parts(fewer, tmp_path / "found")
    (tmp_path / "found" / "part-000001.parquet").write_bytes(
        (tmp_path / "found" / "part-000000.parquet").read_bytes()
    )
    with pytest.raises(DataError, match=r"part-000001\.parquet: 0\.png is in a part before it too"):
        evaluate_parts(truth, tmp_path / "found")
