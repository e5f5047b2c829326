"""What labelling tools and other data sets write: their geometry, their corners, how they are told apart."""

import json
import math

import numpy as np
import pytest
import shapely
import shapely.affinity
from PIL import Image
from polars.testing import assert_frame_equal

from boxwright.data import formats
from boxwright.data.builder import unpack
from boxwright.errors import DataError
from boxwright.geometry.conventions import corners
from tests.data.formats.samples import CVAT_VIDEO, make_sample
from tests.scenes import oriented_tables, small_tables

SAMPLED = sorted(
    set(formats.READERS) - {"citypersons", "coco-angle", "eurocity", "dota-results", "coco-results"}
)
WRITTEN = {
    "cvat": "out.xml",
    "labelme": "out",
    "labelstudio": "out.json",
    "via": "out.json",
    "fiftyone": "out",
}


@pytest.mark.parametrize("format", SAMPLED)
def test_every_format_is_told_from_the_others(format, tmp_path):
    source, _, _ = make_sample(format, tmp_path)
    assert formats.guess_format(source) == format


@pytest.mark.parametrize(("format", "name"), [*WRITTEN.items(), ("via", "out.csv")])
def test_boxes_come_back_from_the_formats_of_tools(format, name, tmp_path):
    tables = small_tables(tmp_path)
    formats.write(tables, tmp_path / "out" / name, format)
    back = formats.read(tmp_path / "out" / name)
    assert not [f for f in back.faults if f.severity == "error"]

    def rows(t):
        names = t.images["file_name"].str.split("/").list.last()
        boxes = t.boxes.join(t.images.with_columns(name=names).select("image_id", "name"), on="image_id")
        boxes = boxes.join(t.categories.select("category_id", label="name"), on="category_id")
        return boxes.select("name", "label", "x", "y", "w", "h").sort("name", "x")

    assert_frame_equal(rows(back), rows(tables), rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("format", ["cvat", "labelme", "labelstudio"])
def test_oriented_boxes_come_back_as_the_same_rectangles(format, tmp_path):
    tables = oriented_tables(tmp_path / "images", 4)
    formats.write(tables, tmp_path / WRITTEN[format], format)
    back = formats.read(tmp_path / WRITTEN[format], format)
    for a, b in zip(corners(tables.rotated()), corners(back.rotated())):
        first, second = shapely.Polygon(a), shapely.Polygon(b)
        assert first.intersection(second).area / first.union(second).area > 1 - 1e-6


def test_label_studio_turns_about_the_first_corner(tmp_path):
    value = {"x": 20, "y": 30, "width": 30, "height": 10, "rotation": 40, "rectanglelabels": ["car"]}
    result = {"type": "rectanglelabels", "value": value, "original_width": 200, "original_height": 100}
    task = {"data": {"image": "/data/upload/3/1f2e3d4c-a.png"}, "annotations": [{"result": [result]}]}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    upright = shapely.box(40, 30, 100, 40)
    expected = shapely.affinity.rotate(upright, 40, origin=(40, 30))  # y down: clockwise on the screen
    found = shapely.Polygon(corners(formats.read(tmp_path / "a.json").rotated())[0])
    assert found.intersection(expected).area == pytest.approx(600, rel=1e-6)


def test_label_studio_exports_of_either_kind_agree(tmp_path):
    small_tables(tmp_path)
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]}
    sizes = {"original_width": 96, "original_height": 64}
    result = {"type": "rectanglelabels", "value": value} | sizes
    address = "/data/upload/3/1f2e3d4c-000.png"
    whole = [{"data": {"image": address}, "annotations": [{"was_cancelled": True}, {"result": [result]}]}]
    minimal = [{"image": address, "label": [value | sizes], "id": 4, "annotator": 1}]
    for name, tasks in (("whole", whole), ("minimal", minimal)):
        (tmp_path / f"{name}.json").write_text(json.dumps(tasks))
        tables = formats.read(tmp_path / f"{name}.json")
        assert tables.images["file_name"].to_list() == ["000.png"]
        assert tables.boxes.select("x", "y", "w", "h").row(0) == pytest.approx((9.6, 12.8, 28.8, 25.6))


def test_tracks_of_a_cvat_video_become_frames_with_track_ids(tmp_path):
    (tmp_path / "video.xml").write_text(CVAT_VIDEO)
    tables = formats.read(tmp_path / "video.xml")
    assert tables.images["file_name"].to_list() == ["frame_000000.PNG", "frame_000001.PNG"]
    assert tables.images["width"].to_list() == [96, 96]
    assert [unpack(a)["track_id"] for a in tables.boxes["attributes"]] == [0, 0, 1]
    assert unpack(tables.boxes["attributes"][2])["attributes"] == {"breed": "pug"}
    assert tables.boxes["angle"].to_list() == [None, pytest.approx(math.radians(30)), None]
    turned = tables.boxes.row(1, named=True)
    assert (turned["x"] + turned["w"] / 2, turned["y"] + turned["h"] / 2) == pytest.approx((22, 20))


def test_polygons_are_read_as_hulls_and_keep_their_points(tmp_path):
    points = [[10, 20], [30, 15], [25, 40]]
    shapes = [{"label": "cat", "shape_type": "polygon", "points": points}]
    shapes += [{"label": "cat", "shape_type": "rectangle", "points": [[50, 40], [20, 10]]}]  # from below
    shapes += [{"label": "cat", "shape_type": "line", "points": [[5, 4], [2, 1]]}]
    record = {"shapes": shapes, "imagePath": "a.jpg", "imageData": None, "imageWidth": 96, "imageHeight": 64}
    (tmp_path / "a.json").write_text(json.dumps(record))
    tables = formats.read(tmp_path / "a.json")
    assert tables.boxes.select("x", "y", "w", "h").rows() == [(10, 15, 20, 25), (20, 10, 30, 30)]
    assert unpack(tables.boxes["attributes"][0])["points"] == points
    assert [f.place.rpartition(" ")[2] for f in tables.faults if f.dropped] == ["2"]


def test_open_images_shares_become_pixels_and_groups_crowds(tmp_path):
    small_tables(tmp_path)
    (tmp_path / "boxes.csv").write_text(
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
        "000,xclick,/m/01yrx,1,0.25,0.5,0.5,0.75,0,0,0,0,0\n001,xclick,/m/0bt9lr,1,0,1,0,1,0,0,1,0,0\n"
    )
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    tables = formats.read(tmp_path / "boxes.csv")
    assert tables.categories["name"].to_list() == ["Cat", "Dog"]
    assert tables.boxes.select("x", "y", "w", "h").rows() == [(24, 32, 24, 16), (0, 0, 96, 64)]
    assert tables.boxes["crowd"].to_list() == [False, True]


def test_regions_that_nobody_is_judged_by_are_ignored(tmp_path):
    for format, ignored in (("kitti", [False, True, False]), ("visdrone", [False, True, False, False])):
        source, _, _ = make_sample(format, tmp_path / format)
        assert formats.read(source).boxes["ignore"].to_list() == ignored


def test_a_fiftyone_data_set_of_samples(tmp_path):
    small_tables(tmp_path)
    (tmp_path / "images").rename(tmp_path / "data")
    found = {"_cls": "Detection", "label": "cat", "bounding_box": [0.25, 0.5, 0.25, 0.25], "confidence": 0.7}
    sample = {"filepath": "data/000.png", "metadata": {"width": 96, "height": 64}, "tags": []}
    sample["predictions"] = {"_cls": "Detections", "detections": [found]}
    (tmp_path / "samples.json").write_text(json.dumps({"samples": [sample]}))
    tables = formats.read(tmp_path)
    assert tables.boxes.select("x", "y", "w", "h", "score").rows() == [(24, 32, 24, 16, 0.7)]
    assert tables.images["path"][0].endswith("data/000.png")


def test_numbers_of_an_imagefolder_are_named_by_its_classes(tmp_path):
    source, (file, *_), _ = make_sample("imagefolder", tmp_path)
    text = file.read_text().replace('"cat"', "0").replace('"dog"', "1")
    file.write_text(text)
    assert formats.read(source).categories["name"].to_list() == ["0", "1"]
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    tables = formats.read(source)
    assert tables.categories["name"].to_list() == ["cat", "dog"]
    assert np.array_equal(tables.boxes["category_id"].to_numpy(), [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax\na.png,60,40,cat,10,20,40,35\n", []),
        ("image_path,xmin,ymin,xmax,ymax,label\na.png,10,20,40,35,cat\n", []),  # DeepForest's
        ("label,X1,Y1,X2,Y2,image\ncat,10,20,40,35,a\n", []),
        (
            'image_id,width,height,bbox,source\na,60,40,"[10.0, 20.0, 30.0, 15.0]",x\n',
            ["bbox", "category", "unknown-column"],
        ),
        ("image_id,bbox\na,10 20 30 15\n", ["bbox", "category"]),
        ("path,left,top,right,bottom,class\na.png,10,20,40,35,cat\nb.png,,,,,\n", ["background"]),
    ],
)
def test_columns_of_a_csv_go_by_the_names_that_people_give_them(lines, warned, tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text(lines)
    found = formats.read(tmp_path / "labels.csv")
    assert found.images.select("file_name", "width", "height").rows()[0] == ("a.png", 60, 40)
    assert found.boxes.select("x", "y", "w", "h").rows() == [(10, 20, 30, 15)]
    assert found.categories["name"].to_list() == ["object" if "category" in warned else "cat"]
    assert len(found.images) == 1 + lines.count("b.png")
    assert sorted({f.code for f in found.faults} - {"image-without-boxes"}) == [
        w for w in warned if w != "background"
    ]


def test_a_csv_of_other_columns_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("image_id,x,y,w,h\na,1,2,3,4\n")
    with pytest.raises(DataError, match=r"columns 'image_id, x, y, w, h', expected filename, width"):
        formats.read(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("image_id,bbox\na,1 2 3\n../b,1 2 3 4\n")
    found = formats.read(tmp_path / "labels.csv")
    assert [
        f.place.rpartition(" ")[2] for f in found.faults if f.code == "bbox" and f.severity == "error"
    ] == ["2"]
    assert found.images["path"].null_count() == 1


def test_outlines_and_key_points_of_yolo_are_read_as_boxes(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    five = [(15, 20), (40, 22), (38, 35), (20, 33), (10, 30)]
    four = [(10, 20), (40, 20), (40, 35), (10, 35)]
    lines = ["0 " + " ".join(f"{x / 60} {y / 40}" for x, y in points) for points in (five, four)]
    (tmp_path / "labels" / "a.txt").write_text("\n".join(lines))
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    tables = formats.read(tmp_path)
    np.testing.assert_allclose(tables.boxes.select("x", "y", "w", "h").to_numpy(), [[10, 20, 30, 15]] * 2)
    assert tables.boxes["angle"].null_count() == 2
    assert [f.message for f in tables.faults if f.code == "outline"] == [
        "1 outlines are taken as upright boxes."
    ]

    (tmp_path / "labels" / "a.txt").write_text(f"0 {25 / 60} {27.5 / 40} 0.5 0.375 0.4 0.5 2 0.6 0.7 1\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\nkpt_shape: 17\n")
    with pytest.raises(DataError, match="kpt_shape is 17, expected points"):
        formats.read(tmp_path)
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\nkpt_shape: [2, 3]\n")
    tables = formats.read(tmp_path)
    np.testing.assert_allclose(tables.boxes.select("x", "y", "w", "h").to_numpy(), [[10, 20, 30, 15]])
    assert [f.message for f in tables.faults if f.code == "keypoints"] == [
        "key points of 1 boxes are not read."
    ]


@pytest.mark.parametrize(("line", "format"), [("0 0.5 0.5 0.1 0.2", "yolo"), ("cat 10 20 30 40", "text")])
def test_empty_labels_do_not_hide_the_format(line, format, tmp_path):
    for n in range(25):
        (tmp_path / f"a{n:02}.txt").touch()
    (tmp_path / "z.txt").write_text(line + "\n")
    assert formats.guess_format(tmp_path) == format
