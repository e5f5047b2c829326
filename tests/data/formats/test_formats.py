"""What each format reads and writes, and what it does with nasty input."""

import json

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from boxwright.data import formats
from boxwright.data.builder import unpack
from boxwright.data.formats import coco_plain
from boxwright.data.formats.options import ReadOptions
from boxwright.errors import ConfigError, DataError
from tests.data.formats.samples import make_sample
from tests.scenes import small_tables
from tests.shared_data import shared_path

GEOMETRY = ["image_id", "category_id", "x", "y", "w", "h"]
# Every real sample of the formats: path, format, options, images, boxes (SOURCE.md has these counts).
SAMPLES = [
    ("bccd", "voc", {}, 364, 4888),
    ("bccd", "voc", {"list_name": "trainval"}, 292, None),
    ("bccd", "voc", {"list_name": "test"}, 72, None),
    ("voc_sample/VOCdevkit", "voc", {}, 2, 3),
    ("coco128_yolo", "yolo", {}, 36, 274),
    ("coco_json_nuts/trainval.json", "coco", {}, 18, 165),
    ("crowdhuman_odgt/annotation_train_sample.odgt", "odgt", {}, 3, 32),
    ("crowdhuman_odgt/annotation_train_sample.odgt", "odgt", {"boxes": "head"}, 3, 32),
    ("citypersons_labels/val_gt_half.json", "citypersons", {}, 250, 3628),
    ("citypersons_labels/val_gt_half.json", "citypersons", {"boxes": "visible"}, 250, 3628),
    ("hituav_obb/train/normal.json", "coco", {}, 480, 4868),
    ("hituav_obb/val/normal_xml", "voc", {}, 120, 1171),
    ("eval_fixtures/padilla_toyexample/gts_vocpascal_format", "voc", {}, 10, 12),
    ("eval_fixtures/padilla_toyexample/gts_coco_format/toy_example_coco.JSON", "coco", {}, 10, 12),
    ("eval_fixtures/padilla_toyexample/dets_coco_format/coco_dets.json", "coco", {}, 10, 12),
    ("eval_fixtures/padilla_toyexample/dets_classname_abs_xywh", "text", {"layout": "xywh"}, 10, 12),
    ("eval_fixtures/padilla_toyexample/dets_classname_abs_xyx2y2", "text", {"layout": "xyxy"}, 10, 12),
    ("eval_fixtures/padilla_toyexample/dets_classname_rel_xcycwh", "text", {"layout": "relative"}, 10, 12),
    ("eval_fixtures/padilla_test_case_1/gts", "text", {"layout": "xywh"}, 7, 15),
    ("eval_fixtures/coco_val2014_100/instances_val2014_100.json", "coco", {}, 100, 839),
]


@pytest.mark.parametrize(("path", "format", "options", "images", "boxes"), SAMPLES)
def test_every_real_sample_reads_whole(path, format, options, images, boxes):
    tables = formats.read(shared_path(f"data/{path}"), format, ReadOptions(**options))
    assert len(tables.images) == images
    assert boxes is None or len(tables.boxes) == boxes
    assert not any(f.dropped for f in tables.faults)


def test_the_two_boxes_without_area_of_bccd_are_kept_and_named():
    tables = formats.read(shared_path("data/bccd"), "voc")
    faults = [f for f in tables.faults if f.code == "zero-size"]
    assert [("00338" in f.place, "00343" in f.place) for f in faults] == [(True, False), (False, True)]
    assert ((tables.boxes["w"] == 0) & (tables.boxes["h"] == 0)).sum() == 2


@pytest.mark.parametrize("layout", ["xywh", "xyxy", "relative"])
def test_the_text_layouts_of_one_set_agree(layout):
    # The relative files are rounded to 6 digits of about 500 px, their absolute twins to whole pixels.
    root = shared_path("data/eval_fixtures/padilla_toyexample")
    name = {"xywh": "abs_xywh", "xyxy": "abs_xyx2y2", "relative": "rel_xcycwh"}[layout]
    tables = formats.read(root / f"dets_classname_{name}", "text", ReadOptions(layout=layout))
    reference = formats.read(root / "dets_classname_abs_xywh", "text", ReadOptions(layout="xywh"))
    difference = (
        tables.boxes.select("x", "y", "w", "h") - reference.boxes.select("x", "y", "w", "h")
    ).to_numpy()
    assert abs(difference).max() < 1.1


@pytest.mark.parametrize("format", ["parquet", "coco", "citypersons", "voc", "yolo", "eurocity", "text"])
def test_boxes_come_back_from_every_format(format, tmp_path):
    tables = small_tables(tmp_path)
    target = tmp_path / {"parquet": "t.parquet", "coco": "t.json", "citypersons": "t.json"}.get(format, "out")
    if format == "yolo":
        target = tmp_path
    formats.write(tables, target, format)
    options = ReadOptions(images=tmp_path / "images") if format not in ("parquet", "yolo") else ReadOptions()
    back = formats.read(target, format, options)
    names, own = ({n: i for i, n in enumerate(t.images["file_name"])} for t in (back, tables))
    assert names.keys() == own.keys() or format == "voc"
    assert_frame_equal(
        _geometry(back), _geometry(tables), check_row_order=False, rel_tol=1e-12, abs_tol=1e-12
    )


def _geometry(tables) -> pl.DataFrame:
    images = tables.images.select("image_id", "file_name")
    categories = tables.categories.select("category_id", "name")
    joined = tables.boxes.select(GEOMETRY).join(images, on="image_id").join(categories, on="category_id")
    return joined.select("file_name", "name", "x", "y", "w", "h").sort("file_name", "x")


def test_coco_keeps_what_it_has_no_column_for(tmp_path):
    document = {
        "images": [{"id": 77, "file_name": "ö.jpg", "width": 50, "height": 40, "license": 3}],
        "annotations": [
            {"id": 5, "image_id": 77, "category_id": 90, "bbox": [1, 2, 3.5, 4], "area": 7.25, "iscrowd": 1}
            | {"segmentation": [[1, 2, 3, 4, 5, 6]]}
        ],
        "categories": [{"id": 90, "name": "车辆", "supercategory": "x"}, {"id": 3, "name": "empty"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    formats.write(formats.read(tmp_path / "a.json"), tmp_path / "b.json", "coco")
    assert json.loads((tmp_path / "b.json").read_text()) == document


def test_voc_to_coco_and_back_loses_nothing(tmp_path):
    tables = formats.read(shared_path("data/voc_sample/VOCdevkit"), "voc")
    formats.write(tables, tmp_path / "a.json", "coco")
    again = formats.read(tmp_path / "a.json", "coco")
    formats.write(again, tmp_path / "voc", "voc")
    back = formats.read(tmp_path / "voc", "voc")
    assert_frame_equal(back.boxes.select(GEOMETRY), tables.boxes.select(GEOMETRY))
    assert back.boxes["difficult"].to_list() == tables.boxes["difficult"].to_list()
    assert [unpack(a) for a in back.boxes["attributes"]] == [unpack(a) for a in tables.boxes["attributes"]]


FAULTY = [
    ({"bbox": [1, 2, 3]}, "bbox", True),
    ({"bbox": [1, 2, "wide", 4]}, "bbox", True),
    ({"bbox": [1, 2, float("nan"), 4]}, "not-finite", True),
    ({"bbox": [10, 2, -3, 4]}, "negative-size", True),
    ({"bbox": [10, 2, 0, 4]}, "zero-size", False),
    ({"bbox": [-5, 2, 10, 4]}, "leaves-image", False),
    ({"bbox": [200, 2, 10, 4]}, "outside-image", False),
    ({"image_id": 9}, "image-id", True),
    ({"category_id": 9}, "category-id", True),
    ({"iscrowd": "maybe"}, "flag", False),
    ({"area": -4}, "area", False),
    ({"wild": 1}, "unknown-key", False),
]


@pytest.mark.parametrize(("change", "code", "dropped"), FAULTY)
def test_a_faulty_annotation_is_named_and_counted(change, code, dropped, tmp_path):
    good = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 50, "height": 40}],
        "annotations": [good, good | {"id": 2, "bbox": [7, 7, 3, 4]} | change],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    tables = formats.read(tmp_path / "a.json")
    assert [(f.code, f.dropped) for f in tables.faults] == [(code, dropped)]
    assert len(tables.boxes) == (1 if dropped else 2)


def test_duplicates_empty_images_and_empty_categories_are_warned_of(tmp_path):
    row = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    document = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 50, "height": 40} for i in (1, 2)],
        "annotations": [row | {"id": 1}, row | {"id": 2}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    codes = [(f.code, f.severity) for f in formats.read(tmp_path / "a.json").faults]
    assert codes == [(c, "warning") for c in ("duplicate", "category-without-boxes", "image-without-boxes")]


def test_odgt_takes_the_wanted_box_and_its_ignore_flag(tmp_path):
    source, _, _ = make_sample("odgt", tmp_path)
    full = formats.read(source)
    assert full.boxes.row(0, named=True)["w"] == 20
    assert full.boxes["ignore"].to_list() == [False, True, False]
    head = formats.read(source, options=ReadOptions(boxes="head"))
    assert head.boxes["ignore"].to_list() == [True, True, False]  # head_attr says so of the first
    assert head.boxes.row(0, named=True)["w"] == 4
    formats.write(full, tmp_path / "again.odgt")
    assert_frame_equal(formats.read(tmp_path / "again.odgt").boxes.drop("source"), full.boxes.drop("source"))


def test_eurocity_reads_children_and_ignores_groups(tmp_path):
    source, _, _ = make_sample("eurocity", tmp_path)
    tables = formats.read(source, "eurocity")
    assert tables.categories["name"].to_list() == ["rider", "bicycle", "person-group-far-away"]
    assert tables.boxes["ignore"].to_list() == [False, False, True]
    assert unpack(tables.boxes["attributes"][1])["parent"] == "rider"


def test_an_option_a_format_does_not_take_is_an_error(tmp_path):
    source, _, _ = make_sample("coco", tmp_path)
    with pytest.raises(ConfigError, match="format coco has no option 'list'"):
        formats.read(source, "coco", ReadOptions(list_name="train"))


def test_an_unknown_format_names_the_nearest(tmp_path):
    source, _, _ = make_sample("coco", tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'coco'"):
        formats.read(source, "cocoo")


def test_a_missing_voc_list_names_the_nearest():
    with pytest.raises(DataError, match="Did you mean 'trainval'"):
        formats.read(shared_path("data/bccd"), "voc", ReadOptions(list_name="trainvall"))


def test_xml_entities_are_refused_not_expanded(tmp_path):
    source, files, _ = make_sample("voc", tmp_path)
    bomb = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;">]><annotation>&y;</annotation>'
    files[0].write_text(bomb)
    faults = [f for f in formats.read(source, "voc").faults if f.code == "annotation-file"]
    assert len(faults) == 1
    assert "entit" in faults[0].message.lower()


def test_xml_nested_without_end_is_one_fault(tmp_path):
    source, files, _ = make_sample("voc", tmp_path)
    files[0].write_text("<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>")
    faults = [f for f in formats.read(source, "voc").faults if f.code == "annotation-file"]
    assert len(faults) == 1
    assert "nested deeper" in faults[0].message


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"images": [{"id": 1, "file_name": "\\ud800", "x": NaN}]}']
)
def test_hostile_json_is_an_exact_error(content, tmp_path):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json"):
        formats.read(tmp_path / "a.json", "coco")


def test_a_name_with_half_a_character_is_replaced_and_said(tmp_path):
    source, _, _ = make_sample("yolo", tmp_path)
    (source / "data.yaml").write_text('path: .\ntrain: images.txt\nnames: ["a\\ud800", "b"]\n')
    tables = formats.read(source, "yolo")
    assert tables.categories["name"].to_list() == ["a?", "b"]
    assert "encoding" in [f.code for f in tables.faults]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("../other/a.jpg", True),
        ("../other/secret", False),
        ("sub/../../other/a.jpg", False),
        ("/etc/a.jpg", False),
    ],
)
def test_a_file_name_leads_out_of_its_folder_to_images_alone(name, found, tmp_path):
    for folder in ("set", "other"):
        (tmp_path / folder).mkdir()
    for file in ("a.jpg", "secret"):
        (tmp_path / "other" / file).write_bytes(b"x")
    document = {"images": [{"id": 1, "file_name": name, "width": 5, "height": 5}]}
    (tmp_path / "set" / "a.json").write_text(json.dumps(document | {"annotations": [], "categories": []}))
    path = formats.read(tmp_path / "set" / "a.json").images["path"][0]
    assert path is not None if found else path is None


@pytest.mark.parametrize("segmentation", [False, True])
def test_a_plain_coco_file_reads_the_same_by_the_quick_way_and_the_careful_one(
    segmentation, tmp_path, monkeypatch
):
    truth = small_tables(tmp_path)
    formats.write(truth, tmp_path / "truth.json", "coco")
    document = json.loads((tmp_path / "truth.json").read_text())
    document["annotations"][1] |= {"bbox": [-5, 2, 1000, 0], "area": -3, "iscrowd": 1}
    if segmentation:
        document["annotations"][0]["segmentation"] = [[1, 2.5, 3, 4, 5, 6]]
    (tmp_path / "truth.json").write_text(json.dumps(document))
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 1.5}
        for a in document["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))

    def read_both():
        truth = formats.read(tmp_path / "truth.json")
        options = ReadOptions(truth=truth)
        return truth, *(formats.read(tmp_path / "results.json", options=o) for o in (None, options))

    quick = read_both()
    with monkeypatch.context() as patch:
        patch.setattr(coco_plain, "_decode", lambda raw, kind: None)
        careful = read_both()
    for a, b in zip(quick, careful):
        assert a.images.equals(b.images)
        assert a.boxes.equals(b.boxes)
        assert a.categories.equals(b.categories)
        assert a.faults == b.faults
        assert a.faults
