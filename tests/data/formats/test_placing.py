"""What is written can be used where it stands: every pair of formats, from another working directory."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from boxwright.data import formats
from boxwright.data.formats.options import ReadOptions
from boxwright.data.images import image_size
from boxwright.data.splitting import split, write_split
from boxwright.errors import DataError
from tests.data.formats.samples import make_sample
from tests.scenes import small_tables
from tests.shared_data import shared_path

RESULTS = ("coco-results", "dota-results")  # name images of a truth, and hold no places
TARGETS = sorted(set(formats.WRITERS) - set(RESULTS))
SUFFIX = {"parquet": ".parquet", "odgt": ".odgt", "cvat": ".xml"} | dict.fromkeys(
    ("coco", "coco-angle", "citypersons", "markers", "via", "labelstudio"), ".json"
)
REAL = [
    ("bccd", "voc"),
    ("coco128_yolo", "yolo"),
    ("voc_sample/VOCdevkit", "voc"),
    ("hituav_obb/val/normal_xml", "voc"),
]


def missing(tables) -> list[str]:
    return [p for p in tables.images["path"] if p is None or not os.path.isfile(p)]


def written(tables, target: str, folder: Path, monkeypatch, images=None):
    """The tables written as `target`, and read again with no option from another working directory."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(folder)
    place = Path(f"out{SUFFIX.get(target, '')}")
    formats.write(tables, place, target, images)
    monkeypatch.chdir(elsewhere)
    return formats.read(Path("..") / place, target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", sorted(set(formats.READERS) - set(RESULTS)))
def test_every_pair_of_formats_keeps_images_and_boxes(source, target, tmp_path, monkeypatch):
    place, _, options = make_sample(source, tmp_path / "source")
    tables = formats.read(place, source, options)
    assert not missing(tables)
    back = written(tables, target, tmp_path / "deep" / "target", monkeypatch)
    assert not missing(back)
    assert (len(back.boxes), len(back.images)) == (len(tables.boxes), len(tables.images))
    pixels = sorted(Path(p).read_bytes() for p in back.images["path"])
    assert pixels == sorted(Path(p).read_bytes() for p in tables.images["path"])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("path", "format"), REAL)
def test_real_data_keeps_images_and_boxes(path, format, target, tmp_path, monkeypatch):
    tables = formats.read(shared_path(f"data/{path}").resolve(), format)
    keep = [n < 12 and p is not None and os.path.isfile(p) for n, p in enumerate(tables.images["path"])]
    tables = tables.select_images(keep)
    if target in ("dota", "text") and any(" " in name for name in tables.categories["name"]):
        with pytest.raises(DataError, match="'traffic light'"):
            written(tables, target, tmp_path / "target", monkeypatch)
        return
    back = written(tables, target, tmp_path / "target", monkeypatch)
    assert not missing(back)
    assert len(back.boxes) == len(tables.boxes)


@pytest.mark.parametrize("images", ["copy", "link"])
@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"parquet"}))
def test_images_are_laid_out_by_wish(images, target, tmp_path, monkeypatch):
    back = written(small_tables(tmp_path / "source"), target, tmp_path / "target", monkeypatch, images)
    assert not missing(back)
    assert all(Path(p).is_symlink() == (images == "link") for p in back.images["path"])
    assert all(tmp_path / "target" in Path(os.path.abspath(p)).parents for p in back.images["path"])


def test_voc_with_images_beside_annotations_is_split_and_found(tmp_path, monkeypatch):
    """`annotations/*.xml` beside `images/*.jpg`, as people have it."""
    formats.write(small_tables(tmp_path / "made"), tmp_path / "voc", "voc", "copy")
    (tmp_path / "voc" / "Annotations").rename(tmp_path / "voc" / "annotations")
    (tmp_path / "voc" / "JPEGImages").rename(tmp_path / "voc" / "images")
    assert formats.guess_format(tmp_path / "voc") == "voc"
    tables = formats.read(tmp_path / "voc")
    assert tables.images["file_name"].to_list() == ["000.png", "001.png", "002.png"]
    assert not missing(tables)
    parts = write_split(split(tables, {"train": 0.67, "val": 0.33}), tmp_path / "out", "coco")
    monkeypatch.chdir(tmp_path / "made")
    for path in parts.values():
        assert not missing(formats.read(path))
        names = [i["file_name"] for i in json.loads(path.read_text())["images"]]
        assert all((path.parent / name).is_file() for name in names)


@pytest.mark.parametrize("target", ["yolo", "voc", "coco", "parquet", "odgt", "dota", "text", "markers"])
def test_parts_of_a_split_are_found_in_every_format(target, tmp_path, monkeypatch):
    tables = small_tables(tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    parts = write_split(split(tables, {"train": 0.67, "val": 0.33}), "out", target)
    monkeypatch.chdir(tmp_path / "made")
    boxes = 0
    for part, path in parts.items():
        lists = target in ("yolo", "voc")
        options = ReadOptions(list_name=part) if lists else ReadOptions()
        back = formats.read(Path("../out") if lists else Path("..") / path, target, options)
        assert not missing(back)
        boxes += len(back.boxes)
    assert boxes == 4


def test_a_yolo_split_is_laid_out_as_other_trainers_take_it(tmp_path):
    """A folder of images for each part, labels found by `images` becoming `labels`, no path in data.yaml."""
    tables = small_tables(tmp_path / "made")
    write_split(split(tables, {"train": 0.67, "val": 0.33}), tmp_path / "out", "yolo", "copy")
    config = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert config == {"train": "images/train", "val": "images/val", "names": {0: "cat", 1: "dog"}}
    images = sorted((tmp_path / "out" / "images").rglob("*.png"))
    assert len(images) == 3
    for image in images:
        assert Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt").is_file()
        assert image_size(image)[:2] == (96, 64)


def test_images_of_one_name_from_two_folders_stay_apart(tmp_path, monkeypatch):
    first, second = (small_tables(tmp_path / name) for name in ("a", "b"))
    images = pl.concat([first.images, second.images.with_columns(image_id=pl.col("image_id") + 3)])
    boxes = pl.concat([first.boxes, second.boxes.with_columns(image_id=pl.col("image_id") + 3)])
    both = type(first)(images, boxes, first.categories)
    for target in ("yolo", "voc", "dota", "text", "odgt"):
        back = written(both, target, tmp_path / target, monkeypatch)
        assert len(set(map(os.path.realpath, back.images["path"]))) == 6
        assert len(back.boxes) == 8


def test_another_file_in_the_way_is_told(tmp_path):
    tables = small_tables(tmp_path / "source")
    (tmp_path / "out" / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "out" / "images" / "000.png")
    with pytest.raises(DataError, match=r"000\.png is there, and isn't"):
        formats.write(tables, tmp_path / "out", "yolo")


@pytest.mark.parametrize(
    ("labels", "images"),
    [
        ("annotations/instances_train2017.json", "train2017"),  # COCO's own
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/instances_default.json", "images/default"),  # CVAT's
        ("annotations/train.json", "images/train"),
        ("annotations/train.json", "images"),
        ("annotations/train.json", "."),
        ("train.json", "images/train"),
        ("train/_annotations.coco.json", "train"),  # Roboflow's
    ],
)
def test_images_are_found_where_people_have_them(labels, images, tmp_path):
    folder = tmp_path / images
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 6, 3), dtype=np.uint8)).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 6, "height": 4}],
        "annotations": [],
        "categories": [],
    }
    (tmp_path / labels).parent.mkdir(exist_ok=True)
    (tmp_path / labels).write_text(json.dumps(content))
    found = formats.read(tmp_path / labels, "coco").images["path"].item()
    assert os.path.samefile(found, folder / "a.png")
