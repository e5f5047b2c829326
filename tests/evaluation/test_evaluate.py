"""Evaluation against expected numbers and against pycocotools itself."""

import contextlib
import io
import json

import numpy as np
import polars as pl
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxwright.data import formats
from boxwright.data.builder import TableBuilder
from boxwright.errors import ConfigError, DataError
from boxwright.evaluation.evaluate import evaluate
from boxwright.evaluation.matching import match
from boxwright.geometry.conventions import corners
from tests.scenes import small_tables
from tests.shared_data import shared_cases


@pytest.mark.parametrize("case", shared_cases("eval_cases/*/expected.json"), ids=lambda p: p.parent.name)
def test_every_shared_case_to_1e_9(case):
    expected = json.loads(case.read_text())
    found = evaluate(case.parent / "truth.json.gz", case.parent / "results.json.gz").to_dict()
    assert found["coco"] == pytest.approx(expected["coco"], abs=1e-9)
    assert found["per_class"].keys() == expected["per_class"].keys()
    for key, numbers in expected["per_class"].items():
        for name, value in numbers.items():
            wanted = value if value is None else pytest.approx(value, abs=1e-9)
            assert found["per_class"][key][name] == wanted, (key, name)


def _random_problem(seed: int):
    """Truth and results with crowd, ties, boxes without size, own areas, odd ids and empty images."""
    rng = np.random.default_rng(seed)
    images = [
        {"id": int(i), "file_name": f"{i}.jpg", "width": 200, "height": 200}
        for i in rng.permutation(9)[:4] + 3
    ]
    categories = [{"id": int(i), "name": f"c{i}"} for i in (2, 7, 11)]
    annotations, results = [], []
    for n in range(int(rng.integers(0, 40))):
        box = np.concatenate([rng.integers(0, 150, 2), rng.integers(0, 60, 2)]).astype(float)
        image, category = int(rng.choice([i["id"] for i in images])), int(rng.choice([2, 7]))
        row = {"image_id": image, "category_id": category, "bbox": box.tolist()}
        area = float(box[2] * box[3] * rng.choice([1.0, 0.5]))
        annotations.append(row | {"id": n + 1, "iscrowd": int(rng.random() < 0.15), "area": area})
        for _ in range(int(rng.integers(0, 4))):
            near = (box + rng.integers(-8, 9, 4)).clip(0)
            score = float(rng.choice([0.2, 0.5, 0.5, rng.random()]))
            results.append(
                row | {"bbox": near.tolist(), "score": score, "category_id": int(rng.choice([category, 11]))}
            )
    return {"images": images, "annotations": annotations, "categories": categories}, results


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_random_tables_agree_with_pycocotools(seed, tmp_path_factory):
    truth, results = _random_problem(seed)
    if not results:
        return
    folder = tmp_path_factory.mktemp("case")
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(folder / "truth.json"))
        judge = COCOeval(reference, reference.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    found = evaluate(folder / "truth.json", folder / "results.json")
    assert list(found.coco.values()) == pytest.approx(judge.stats.tolist(), abs=1e-12)
    assert found.curves.precision == pytest.approx(judge.eval["precision"][..., -1], abs=1e-12)
    assert found.curves.recall == pytest.approx(judge.eval["recall"], abs=1e-12)


def _crowded(count: int):
    """One image with `count` boxes of one class, and a perfect detection of each."""
    parts = []
    for score in (None, 0.5):
        builder = TableBuilder("x")
        builder.image("a.jpg", width=10_000, height=100)
        builder.category("ant")
        for n in range(count):
            builder.box(("x", n), 0, 0, (20.0 * n, 0, 10, 10), score=score)
        parts.append(builder.build())
    return parts


def test_a_limit_that_cuts_a_crowded_image_is_told():
    truth, predictions = _crowded(120)
    cut = evaluate(truth, predictions)
    assert cut.coco["AR100"] == pytest.approx(100 / 120)
    assert any("20 detections lie beyond the limit of 100" in n for n in cut.notes)
    assert any("120 boxes of one class, more than the limit of 100" in n for n in cut.notes)
    whole = evaluate(truth, predictions, (1, 10, 500))
    assert whole.coco["AR500"] == 1.0
    assert whole.notes == []


def test_a_crowd_region_absorbs_any_number_of_detections():
    truth, predictions = TableBuilder("t", "radians"), TableBuilder("p")
    for builder in (truth, predictions):
        builder.image("a.jpg", width=100, height=100)
        builder.category("ant")
    truth.box(("t", 0), 0, 0, (0, 0, 10, 10))
    truth.box(("t", 1), 0, 0, (50, 50, 50, 50), crowd=True)
    predictions.box(("p", 0), 0, 0, (0, 0, 10, 10), score=0.5)
    for n in range(5):
        predictions.box(("p", n + 1), 0, 0, (50 + n, 50, 20, 20), score=0.9)
    assert evaluate(truth.build(), predictions.build()).coco["AP"] == pytest.approx(1.0)


def test_upright_and_oriented_boxes_are_compared_as_what_they_are():
    truth, predictions = TableBuilder("t", "radians"), TableBuilder("p")
    for builder in (truth, predictions):
        builder.image("a.jpg", width=100, height=100)
        builder.category("car")
    truth.box(("t", 0), 0, 0, (50, 50, 40, 20, np.pi / 2))
    predictions.box(("p", 0), 0, 0, (40, 30, 20, 40), score=0.9)
    found = evaluate(truth.build(), predictions.build())
    assert found.coco["AP"] == pytest.approx(1.0)
    oriented = predictions.build()
    oriented = oriented.with_boxes(oriented.boxes.with_columns(angle=pl.lit(np.pi / 4)))
    pair = [shapely.Polygon(corners(np.array([[50, 50, 20, 40, angle]]))[0]) for angle in (0, np.pi / 4)]
    shared = pair[0].intersection(pair[1]).area
    found = evaluate(truth.build(), oriented)
    assert (found.coco["AP50"] > 0.5) == (shared / (1600 - shared) >= 0.5)
    assert match(truth.build(), oriented, np.array([0.1])).iou_of_found() == pytest.approx(
        shared / (1600 - shared)
    )


def test_parquet_is_joined_by_name_whatever_the_order(tmp_path):
    truth, predictions = small_tables(tmp_path), small_tables(tmp_path, [0.9, 0.8, 0.7, 0.6])
    shuffled = predictions.select_images(np.array([False, True, False]))
    formats.write(truth, tmp_path / "t.parquet")
    formats.write(shuffled, tmp_path / "p.parquet")
    found = evaluate(tmp_path / "t.parquet", tmp_path / "p.parquet")
    assert [c["AP50"] for c in found.per_class] == pytest.approx([0.504950495, 0.504950495])


def test_predictions_for_other_images_are_an_error(tmp_path):
    truth, predictions = small_tables(tmp_path), small_tables(tmp_path, [0.9, 0.8, 0.7, 0.6])
    with pytest.raises(
        DataError, match=r"2 predictions are for an image that the truth doesn't have.*000\.png"
    ):
        evaluate(truth.select_images(np.array([False, True, True])), predictions)


def test_truth_given_as_predictions_is_an_error(tmp_path):
    tables = small_tables(tmp_path)
    with pytest.raises(DataError, match="no score"):
        evaluate(tables, tables)


def test_limits_that_do_not_ascend_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match="ascending"):
        evaluate(small_tables(tmp_path), small_tables(tmp_path, [0.9, 0.8, 0.7, 0.6]), (100, 10))
