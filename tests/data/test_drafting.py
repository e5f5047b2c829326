"""`boxwright init`: what it chooses by what it finds, and that what it writes trains."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import boxwright
from boxwright.config import load_config
from boxwright.data import formats
from boxwright.data.formats.finding import find_parts
from boxwright.data.formats.options import ReadOptions
from boxwright.data.sources import load_parts
from boxwright.data.splitting import split, write_split
from boxwright.data.suggesting import suggest, suggest_size
from boxwright.data.tables import concat
from boxwright.errors import ConfigError, DataError
from tests.cli.test_cli import run
from tests.data.formats.samples import make_sample
from tests.scenes import oriented_tables, small_tables, square_tables
from tests.shared_data import shared_path


def parts_of(draft):
    config = load_config(draft.path)
    learnt, judged = load_parts(config.data)
    return [concat(learnt), judged]


@pytest.mark.parametrize("format", sorted(set(formats.READERS) - {"coco-results", "dota-results"}))
def test_data_of_every_format_becomes_an_experiment_that_reads(format, tmp_path, monkeypatch):
    source, _, options = make_sample(format, tmp_path / "data")
    tables = formats.read(source, format, options)
    if len(tables.images) < 2:
        with pytest.raises(DataError, match="1 image, expected two"):
            boxwright.init(source, tmp_path / "e.yaml", format)
        return
    draft = boxwright.init(source, tmp_path / "e.yaml", format)
    monkeypatch.chdir(tmp_path / "data")
    train, val = parts_of(draft)
    assert len(train.images) + len(val.images) == len(tables.images)
    assert min(len(train.images), len(val.images)) >= 1
    config = load_config(draft.path)
    assert config.model.name == ("compact_obb" if tables.boxes["angle"].is_not_null().any() else "compact")
    have_boxes = {t.categories["name"][n] for t in (train, val) for n in t.boxes["category_id"]}
    assert {*(config.data.classes or ()), *config.data.ignore} == have_boxes


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train.json", "val.json"),
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
        ("labels-train.parquet", "labels-test.parquet"),
    ],
)
def test_parts_that_the_data_names_are_taken(train, val, tmp_path):
    parts = split(square_tables(tmp_path / "images", 10), {"train": 0.7, "val": 0.3})
    for name, part in zip((train, val), parts.values()):
        formats.write(part, tmp_path / "set" / name)
    found = find_parts(tmp_path / "set", None, None)
    assert [p and p.root.relative_to(tmp_path / "set").as_posix() for p in found] == [train, val]
    draft = boxwright.init(tmp_path / "set", tmp_path / "e.yaml")
    assert [len(t.images) for t in parts_of(draft)] == [7, 3]
    assert draft.split is None


@pytest.mark.parametrize("around", [".", "b/c"])  # folders of an archive, which are looked through
@pytest.mark.parametrize("format", ["voc", "yolo"])
def test_the_lists_of_voc_and_yolo_are_taken(format, around, tmp_path):
    parts = split(square_tables(tmp_path / "images", 10), {"train": 0.7, "val": 0.3})
    write_split(parts, tmp_path / "set" / around, format)
    draft = boxwright.init(tmp_path / "set", tmp_path / "e.yaml")
    assert [len(t.images) for t in parts_of(draft)] == [7, 3]


def test_parts_by_name_have_no_image_twice(tmp_path):
    tables = square_tables(tmp_path / "images", 10)
    write_split(split(tables, {"train": 0.5, "val": 0.2, "test": 0.3}), tmp_path / "set", "voc")
    lists = tmp_path / "set" / "ImageSets" / "Main"
    names = [(lists / f"{part}.txt").read_text() for part in ("train", "val")]
    (lists / "trainval.txt").write_text("".join(names))
    (lists / "cat_train.txt").write_text(names[0])
    count = {part: len(t.images) for part, t in formats.read_parts(tmp_path / "set").items()}
    assert count == {"train": 5, "val": 2, "test": 3}
    (lists / "val.txt").unlink()
    count = {part: len(t.images) for part, t in formats.read_parts(tmp_path / "set").items()}
    assert count == {"trainval": 7, "test": 3}


def test_parts_stay_apart_where_they_are_converted(tmp_path):
    for part, count in (("train", 5), ("valid", 3), ("test", 2)):
        tables = square_tables(tmp_path / "set" / part, count)
        if part == "valid":  # which lists its categories otherwise
            tables = tables.with_boxes(tables.boxes.filter(pl.col("category_id") == 1))
        formats.write(tables, tmp_path / "set" / part / "_annotations.coco.json", "coco")
    shown = run("data", "convert", tmp_path / "set", "-o", tmp_path / "yolo", "--to", "yolo").stdout
    assert "10 images, 17 boxes" in shown
    counts = {name: len(t.images) for name, t in formats.read_parts(tmp_path / "yolo").items()}
    assert counts == {"train": 5, "val": 3, "test": 2}
    assert (
        formats.read(tmp_path / "yolo", options=ReadOptions("val")).boxes["category_id"].to_list() == [1] * 3
    )
    run("data", "convert", tmp_path / "yolo", "-o", tmp_path / "voc", "--to", "voc")
    assert [len(t.images) for t in formats.read_parts(tmp_path / "voc").values()] == [5, 3, 2]
    shown = run("data", "convert", tmp_path / "yolo", "-o", tmp_path / "all.json").stdout
    assert "train, val, test are together in it" in shown
    assert len(formats.read(tmp_path / "all.json").images) == 10
    (tmp_path / "voc/ImageSets/Main/test.txt").unlink()
    shown = run("data", "convert", tmp_path / "voc", "-o", tmp_path / "coco", "--to", "coco").stdout
    assert "8 images, 13 boxes" in shown
    assert "2 images are in none of these parts, and were left out" in shown
    assert sorted(p.name for p in (tmp_path / "coco").iterdir()) == ["train.json", "val.json"]


def test_several_files_without_a_part_are_asked_about(tmp_path):
    for name in ("old.json", "new.json"):
        formats.write(small_tables(tmp_path), tmp_path / "set" / name, "coco")
    with pytest.raises(DataError, match=r"which of its files holds the labels: new.json, old.json"):
        boxwright.init(tmp_path / "set", tmp_path / "e.yaml")
    assert find_parts(tmp_path / "set", None, None, "old")[0].root.name == "old.json"
    with pytest.raises(DataError, match="none with 'lost' in its name"):
        find_parts(tmp_path / "set", None, None, "lost")


def test_of_two_files_of_a_part_one_is_taken_and_the_other_told(tmp_path):
    for part in ("train", "val"):
        for name, tables in (
            ("rotate", oriented_tables(tmp_path / "images", 3)),
            ("normal", square_tables(tmp_path / "images", 3)),
        ):
            formats.write(tables, tmp_path / "set" / part / f"{name}.parquet")
    draft = boxwright.init(tmp_path / "set", tmp_path / "e.yaml")
    assert draft.found[-1] == "Labels of normal.parquet are taken; --labels takes others: rotate.parquet."
    assert load_config(draft.path).model.name == "compact"
    whole = formats.read(tmp_path / "set")
    assert [(Path(f.place).name, f.message) for f in whole.faults if f.code == "other-labels"] == [
        ("normal.parquet", "read, and not what stands beside it: rotate.parquet.")
    ] * 2
    run("init", tmp_path / "set", "-o", tmp_path / "other.yaml", "--labels", "rotate")
    assert load_config(tmp_path / "other.yaml").model.name == "compact_obb"


def test_parts_are_read_together_by_names_that_tell_them_apart(tmp_path):
    for part in ("train", "valid", "test"):
        tables = square_tables(tmp_path / "set" / part, 3)
        formats.write(tables, tmp_path / "set" / part / "_annotations.coco.json", "coco")
    (tmp_path / "set" / "README.dataset.txt").write_text("No labels.")
    whole = formats.read(tmp_path / "set")
    assert len(whole.boxes) == 3 * len(tables.boxes)
    assert whole.images["file_name"].sort()[0] == "test/000.png"
    assert whole.images["file_name"].n_unique() == 9
    assert all((tmp_path / "set" / name).is_file() for name in whole.images["file_name"])


def test_captions_are_no_labels(tmp_path):
    folder = tmp_path / "coco" / "annotations"
    for part in ("train2017", "val2017"):
        formats.write(square_tables(tmp_path / "images", 3), folder / f"instances_{part}.json", "coco")
        (folder / f"captions_{part}.json").write_text('{"images": [], "annotations": []}')
    (folder / "image_info_test2017.json").write_text('{"images": [], "categories": []}')
    train, val = find_parts(tmp_path / "coco", None, None)
    assert (train.root.name, val.root.name) == ("instances_train2017.json", "instances_val2017.json")
    assert train.beside == ("captions_train2017.json",)
    assert len(formats.read(tmp_path / "coco").images) == 6


def test_which_of_several_folders_is_asked(tmp_path):
    for name in ("may", "june"):
        formats.write(small_tables(tmp_path), tmp_path / "a" / "b" / name / "labels.json", "coco")
    with pytest.raises(DataError, match=r"which of its folders: b/june, b/may\? Expected one of them"):
        find_parts(tmp_path / "a", None, None)


def cvat_folder(tables, folder):
    formats.write(tables, folder / "annotations.xml", "cvat", "copy")


def label_studio_yolo(tables, folder):
    """images/ and labels/ with classes.txt in place of data.yaml, and notes that are no COCO."""
    write_yolo(tables, folder)
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_text("bright\ndark\n")
    (folder / "notes.json").write_text(
        '{"categories": [{"id": 0, "name": "bright"}], "info": {"year": 2026}}'
    )


def labelimg(tables, folder):
    """Labels beside the images."""
    label_studio_yolo(tables, folder)
    for file in [*folder.glob("images/*"), *folder.glob("labels/*")]:
        file.rename(folder / file.name)
    (folder / "notes.json").unlink()


def darknet(tables, folder):
    """CVAT's YOLO 1.1: labels beside the images, places as below a folder `data`."""
    labelimg(tables, folder / "obj_train_data")
    (folder / "obj_train_data" / "classes.txt").rename(folder / "obj.names")
    (folder / "obj.data").write_text(
        "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = b/\n"
    )
    images = sorted((folder / "obj_train_data").glob("*.png"))
    (folder / "train.txt").write_text("".join(f"data/obj_train_data/{p.name}\n" for p in images))


def wider(tables, folder):
    """A list in wider_face_split, images in WIDER_train."""
    formats.write(tables, folder / "wider_face_split" / "wider_face_train_bbx_gt.txt", "wider")
    shutil.copytree(Path(tables.images["path"][0]).parent, folder / "WIDER_train" / "images")


def write_yolo(tables, folder):
    formats.write(tables, folder, "yolo", "copy")
    (folder / "images.txt").unlink()


@pytest.mark.parametrize("make", [cvat_folder, label_studio_yolo, labelimg, darknet, wider])
def test_exports_of_other_tools_are_understood_as_they_come(make, tmp_path):
    tables = square_tables(tmp_path / "images", 6)
    make(tables, tmp_path / "export")
    train, val = parts_of(boxwright.init(tmp_path / "export", tmp_path / "e.yaml"))
    assert (len(train.images), len(val.images)) == (5, 1)
    assert len(train.boxes) + len(val.boxes) == len(tables.boxes)
    assert set(train.categories["name"]) == ({"face"} if make is wider else {"bright", "dark"})
    assert all(Path(p).is_file() for p in [*train.images["path"], *val.images["path"]])
    columns = ["x", "y", "w", "h"]
    assert (
        formats.read(tmp_path / "export")
        .boxes.select(columns)
        .sort(columns)
        .equals(pl.concat([train.boxes, val.boxes]).select(columns).sort(columns))
    )
    found = pl.concat([train.boxes, val.boxes]).select(columns).sort(columns)
    np.testing.assert_allclose(
        found.to_numpy(), tables.boxes.select(columns).sort(columns).to_numpy(), atol=0.01
    )


def test_places_of_roboflow_are_those_below_its_folder(tmp_path):
    parts = split(square_tables(tmp_path / "images", 10), {"train": 0.7, "valid": 0.3})
    for name, part in parts.items():
        write_yolo(part, tmp_path / "set" / name)
        (tmp_path / "set" / name / "data.yaml").unlink()
    config = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [bright, dark]\n"
    (tmp_path / "set" / "data.yaml").write_text(config)
    train, val = parts_of(boxwright.init(tmp_path / "set", tmp_path / "e.yaml"))
    assert (len(train.images), len(val.images)) == (7, 3)
    assert train.categories["name"].to_list() == ["bright", "dark"]


def test_names_of_darknet_are_of_its_folder(tmp_path):
    darknet(square_tables(tmp_path / "images", 3), tmp_path / "set")
    (tmp_path / "secret").write_text("a secret\n")
    for place in ("../secret", str(tmp_path / "secret")):
        (tmp_path / "set" / "obj.data").write_text(f"train = data/train.txt\nnames = {place}\n")
        assert formats.read(tmp_path / "set", "yolo").categories["name"].to_list() == ["0", "1"]


def test_nothing_is_learnt_without_boxes(tmp_path):
    empty = square_tables(tmp_path / "images", 3)
    formats.write(empty.with_boxes(empty.boxes.clear()), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="no box in 2 images, nothing to learn from"):
        boxwright.init(tmp_path / "empty.parquet", tmp_path / "e.yaml")


def test_a_file_that_is_there_is_kept(tmp_path):
    (tmp_path / "e.yaml").write_text("mine")
    formats.write(small_tables(tmp_path), tmp_path / "a.json", "coco")
    with pytest.raises(ConfigError, match="is there already"):
        boxwright.init(tmp_path / "a.json", tmp_path / "e.yaml")


@pytest.mark.parametrize(
    ("image", "side", "expected", "crop"),
    [
        ((640, 480), 100, (320, 256), None),  # large objects: small images do
        ((640, 480), 20, (640, 480), (320, 256)),  # never larger than the images; small objects: half of one
        ((640, 480), 64, (320, 256), None),
        ((4000, 3000), 240, (384, 288), None),
        ((4000, 3000), 24, (4000, 3008), (640, 640)),  # small objects in large images: crops
        ((96, 64), 30, (96, 64), None),
    ],
)
def test_the_image_size_follows_the_objects(image, side, expected, crop, tmp_path):
    tables = small_tables(tmp_path)
    images = tables.images.with_columns(width=pl.lit(image[0], pl.Int32), height=pl.lit(image[1], pl.Int32))
    boxes = tables.boxes.with_columns(w=pl.lit(float(side)), h=pl.lit(float(side)))
    size, crops = suggest_size(type(tables)(images, boxes, tables.categories))
    assert size == expected
    assert crops == crop


def test_headings_are_found_by_angles_that_only_they_have(tmp_path):
    for headings in (False, True):
        tables = oriented_tables(tmp_path / str(headings), 8, headings=headings)
        target = tmp_path / f"{headings}.json"
        formats.write(tables, target, "markers")
        assert np.abs(tables.boxes["angle"].to_numpy()).max() > 0.5
        draft = boxwright.init(target, tmp_path / f"{headings}.yaml")
        assert load_config(draft.path).model.heading == headings


@pytest.mark.parametrize(
    ("names", "regions"),
    [
        (["car", "DontCare"], ["DontCare"]),
        (["Don't care", "car"], ["Don't care"]),
        (["dont_care", "ignored regions"], []),  # nothing would be left to learn
        (["ignored-regions", "don't care much"], ["ignored-regions"]),  # whole names alone
    ],
)
def test_categories_that_are_regions_are_not_learnt(names, regions, tmp_path):
    tables = small_tables(tmp_path)
    tables = type(tables)(
        tables.images, tables.boxes, tables.categories.head(2).with_columns(name=pl.Series(names))
    )
    data = suggest(tables, tmp_path / "labels.parquet")["data"]
    assert data.get("ignore", []) == regions
    assert data["classes"] == [n for n in names if n not in regions]


def test_two_commands_lead_from_a_folder_to_a_trained_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    formats.write(square_tables(tmp_path / "pictures", 10), tmp_path / "my data", "voc")
    told = run("init", "my data").stdout
    assert "10 images with 20 boxes of 2 classes" in told
    command = told.strip().splitlines()[-1].split()
    assert command[:2] == ["boxwright", "train"]
    quick = ["train.epochs=1", "train.precision=fp32", "model.width=0.25", "image_size=[64,64]"]
    run(*command[1:], *[word for change in quick for word in ("--set", change)])
    assert (tmp_path / "runs" / "my-data" / "report" / "index.html").is_file()


def test_real_data_is_understood(tmp_path):
    draft = boxwright.init(shared_path("data/bccd"), tmp_path / "e.yaml")
    config = load_config(draft.path)
    assert config.image_size == (320, 256)
    assert [len(t.images) for t in parts_of(draft)] == [205, 87]
