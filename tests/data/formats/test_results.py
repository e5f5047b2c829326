"""COCO results against truth of every kind: by ids where there are any, by file names, or not at all."""

import json
import os
import shutil

import numpy as np
import pytest

from boxwright.data import formats
from boxwright.data.formats.coco_results import with_ids
from boxwright.data.formats.options import ReadOptions
from boxwright.errors import DataError
from boxwright.evaluation.comparison import compare
from boxwright.evaluation.evaluate import evaluate
from boxwright.evaluation.pairing import align, read_pair
from boxwright.evaluation.thresholds import threshold
from boxwright.geometry.conventions import corners
from boxwright.geometry.iou import aligned_iou
from tests.cli.test_cli import run
from tests.scenes import small_tables

SCORES = [0.9, 0.8, 0.7, 0.6]


def write_results(path, change=lambda record: record, first=0):
    """Perfect results whose image ids count from `first`, and category ids too."""
    tables = small_tables(path.parent)
    records = [
        {"image_id": row["image_id"] + first, "category_id": row["category_id"] + first, "score": score}
        | {"bbox": [row[c] for c in "xywh"]}
        for row, score in zip(tables.boxes.iter_rows(named=True), SCORES)
    ]
    path.write_text(json.dumps([change(r) for r in records]))
    return path


def truth_of(format, folder):
    """Truth of a format without ids."""
    place = folder / ("truth.odgt" if format == "odgt" else format)
    formats.write(small_tables(folder), place, format)
    return place


@pytest.mark.parametrize("format", ["voc", "yolo", "odgt", "text"])
@pytest.mark.parametrize("first", [0, 1])
def test_ids_are_never_taken_for_rows(format, first, tmp_path):
    truth = truth_of(format, tmp_path)
    results = write_results(tmp_path / "results.json", first=first)
    message = f"results.json: names each image by an id .first {first}., and the truth's format has no ids"
    with pytest.raises(DataError, match=message):
        read_pair(truth, results)
    done = run("evaluate", truth, results, "--truth-format", format, check=2)
    assert "--truth-images FILE" in done.stderr


@pytest.mark.parametrize("format", ["voc", "yolo", "text"])
def test_a_coco_file_gives_the_ids(format, tmp_path):
    truth = truth_of(format, tmp_path)
    own = small_tables(tmp_path)
    ids = {"image_id": [40, 7, 900], "category_id": [3, 1]}
    images = [
        {"id": i, "file_name": f"deep/{n}", "width": 96, "height": 64}
        for i, n in zip(ids["image_id"], own.images["file_name"])
    ]
    categories = [{"id": i, "name": n} for i, n in zip(ids["category_id"], own.categories["name"])]
    document = {"images": images[::-1], "annotations": [], "categories": categories}
    (tmp_path / "ids.json").write_text(json.dumps(document))
    results = write_results(
        tmp_path / "results.json",
        lambda r: r | {key: ids[key][r[key]] for key in ("image_id", "category_id")},
    )
    numbers = tmp_path / "numbers.json"
    run("evaluate", truth, results, "--truth-format", format, "--truth-images", tmp_path / "ids.json",
        "--json", numbers)  # fmt: skip
    assert json.loads(numbers.read_text())["coco"]["AP"] == pytest.approx(1.0)
    document["images"] = images[1:]
    (tmp_path / "ids.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"1 of the truth's 3 images have no id .* first '000.png'"):
        with_ids(formats.read(truth, format), formats.read(tmp_path / "ids.json"))


@pytest.mark.parametrize("format", ["voc", "yolo"])
def test_results_that_name_files_need_no_ids(format, tmp_path):
    truth = formats.read(truth_of(format, tmp_path), format)
    own = small_tables(tmp_path)
    names, classes = own.images["file_name"].to_list(), own.categories["name"].to_list()

    def stems(record):
        """As YOLO trainers write them."""
        return record | {
            "image_id": names[record["image_id"]].removesuffix(".png")
            + ("" if record["image_id"] else ".png"),
            "category_id": classes[record["category_id"]],
        }

    def keys(record):
        return record | {"file_name": names[record["image_id"]], "category": classes[record["category_id"]]}

    for change in (stems, keys):
        results = write_results(tmp_path / "results.json", change)
        found = formats.read(results, "coco-results", ReadOptions(truth=truth))
        assert not [f for f in found.faults if f.dropped]
        assert evaluate(truth, align(truth, found)).coco["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("first", [0, 1])
def test_class_numbers_of_yolo_trainers_are_told_from_ids(first, tmp_path):
    truth = formats.read(truth_of("yolo", tmp_path), "yolo")
    names = small_tables(tmp_path).images["file_name"].to_list()

    def numbered(record):
        return record | {"file_name": names[record["image_id"]], "category_id": record["category_id"] + first}

    judged = evaluate(*read_pair(truth, write_results(tmp_path / "results.json", numbered)))
    assert judged.coco["AP"] == pytest.approx(1.0)
    assert judged.notes == [
        f"category ids {first} to {first + 1} are taken for the truth's classes, in their order."
    ]
    truth, found = read_pair(truth, tmp_path / "results.json")
    assert compare(truth, found).notes == threshold(truth, found).notes == judged.notes
    # Of one class alone it can't be told, nor are classes numbered in VOC.
    one = write_results(tmp_path / "one.json", lambda r: numbered(r) | {"category_id": 1})
    for own in (truth, formats.read(truth_of("voc", tmp_path), "voc")):
        with pytest.raises(DataError, match=r"names each category by an id \(first 1\)"):
            read_pair(own, one)


def test_oriented_boxes_of_yolo_trainers_are_corners(tmp_path):
    """Beside them stand `rbox`, whose angle has a spelling of its own, and no `bbox`."""
    truth = formats.read(truth_of("yolo", tmp_path), "yolo")
    boxes = np.array([[20.0, 30, 24, 8, 0.4], [60.0, 20, 10, 30, -1.2]])
    names = truth.images["file_name"].to_list()
    records = [
        {"image_id": n, "file_name": names[n], "category_id": n + 1, "score": 0.5, "rbox": box.tolist()}
        | {"poly": corners(box[None])[0].round(3).ravel().tolist()}
        for n, box in enumerate(boxes)
    ]
    results = tmp_path / "predictions.json"
    results.write_text(json.dumps(records))
    _, found = read_pair(truth, results)
    assert found.has_angles()
    assert aligned_iou(found.rotated(), boxes) == pytest.approx(1, abs=1e-3)

    results.write_text(json.dumps([{k: v for k, v in r.items() if k != "poly"} for r in records]))
    with pytest.raises(DataError, match=r"none of the predictions can be read, first: .*bbox is None"):
        read_pair(truth, results)


@pytest.mark.parametrize("within", ["labels", "."])
def test_labels_of_a_run_are_of_the_images_of_the_truth(within, tmp_path):
    truth = formats.read(truth_of("yolo", tmp_path), "yolo")
    found = small_tables(tmp_path, SCORES)
    formats.write(found, tmp_path / "own", "yolo", "copy")
    run = tmp_path / "run"
    shutil.copytree(tmp_path / "own" / "labels", run / "labels")
    (run / "labels" / "002.txt").unlink()  # where nothing was found
    (run / "000.png").write_bytes(b"drawn on")
    (run / "labels" / "other.txt").write_text("0 0.5 0.5 0.1 0.1 0.9\n")
    truth, back = read_pair(truth, run / "labels" if within == "." else run)
    assert back.images.equals(truth.images)
    judged = evaluate(truth, back)
    assert judged.coco["AP"] == pytest.approx(1.0)
    assert "1 records of the predictions were left out, first:" in judged.notes[0]
    assert "other.txt: no image of the truth is called so" in judged.notes[0]
    with pytest.raises(DataError, match="Expected truth in YOLO's format"):
        read_pair(formats.read(truth_of("voc", tmp_path), "voc"), run / "labels")


def test_results_written_of_tables_without_ids_come_back(tmp_path):
    truth = formats.read(truth_of("yolo", tmp_path), "yolo")
    found = small_tables(tmp_path, SCORES)
    formats.write(found, tmp_path / "results.json", "coco-results")
    back = formats.read(tmp_path / "results.json", "coco-results", ReadOptions(truth=truth))
    assert evaluate(truth, align(truth, back)).coco["AP"] == pytest.approx(1.0)
    assert evaluate(*read_pair(truth, tmp_path / "results.json")).coco["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("truth", "predictions", "rows"),
    [
        (["a/1.jpg", "b/1.jpg"], ["b/1.jpg", "a/1.jpg"], [1, 0]),
        (["train/x.jpg", "train/y.jpg"], ["y.jpg", "x.jpg"], [1, 0]),
        (["x.jpg", "y.jpg"], ["../data/images/y.jpg", "val/x.jpg"], [1, 0]),
        (["a/1.jpg", "b/1.jpg"], ["1.jpg", "b/1.jpg"], None),
        (["a/1.jpg", "b/2.jpg"], ["b/1.jpg", "b/2.jpg"], None),
        (["1.jpg", "2.jpg"], ["a/1.jpg", "b/1.jpg"], None),
    ],
)
def test_images_are_joined_by_the_end_of_their_names_where_it_is_one(truth, predictions, rows, tmp_path):
    import polars as pl

    tables = small_tables(tmp_path, SCORES).select_images(np.array([True, True, False]))

    def named(names):
        no_path = pl.lit(None, dtype=pl.String)  # by which they would be joined too
        images = tables.images.with_columns(file_name=pl.Series(names), path=no_path)
        return type(tables)(images, tables.boxes, tables.categories)

    if rows is None:
        with pytest.raises(DataError, match="predictions"):
            align(named(truth), named(predictions))
        return
    aligned = align(named(truth), named(predictions))
    assert aligned.boxes["image_id"].to_list() == [rows[i] for i in tables.boxes["image_id"]]


def test_results_of_a_folder_of_images_are_shown_from_where_they_lie(tmp_path, monkeypatch):
    found = small_tables(tmp_path / "pictures", SCORES)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    formats.write(found, tmp_path / "deep" / "results.json", "coco-results")
    monkeypatch.chdir(tmp_path / "deep" / "er")
    back = formats.read("../results.json")
    assert [p for p in back.images["path"] if p is None or not os.path.isfile(p)] == []
    assert sorted(back.categories["name"]) == ["cat", "dog"]
    run("data", "show", tmp_path / "deep" / "results.json", "-o", tmp_path / "boxes.jpg")
    truth = formats.read(truth_of("voc", tmp_path), "voc")
    assert evaluate(*read_pair(truth, tmp_path / "deep" / "results.json")).coco["AP"] == pytest.approx(1.0)
