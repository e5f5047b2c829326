"""Oriented boxes in every format that has them: real samples, round trips, contradictions that are told."""

import json

import numpy as np
import polars as pl
import pytest
from shapely import Polygon

from boxwright.data import formats
from boxwright.data.builder import TableBuilder
from boxwright.data.formats.options import ReadOptions
from boxwright.data.oriented import fit_error, fit_rectangles, wrap
from boxwright.errors import ConfigError, DataError
from boxwright.geometry.conventions import CONVENTIONS, corners, min_area_rectangle, to_convention
from tests.scenes import oriented_tables
from tests.shared_data import shared_path

# Path, format, options, images, boxes, oriented boxes (SOURCE.md has these counts).
SAMPLES = [
    ("hituav_obb/train/rotate.json", "coco", {}, 480, 4868, 4868),
    ("hituav_obb/val/rotate_xml", "voc", {}, 120, 1171, 1171),
    ("fisheye_people_obb/one.json", "coco", {"angles": "degrees"}, 1, 89, 89),
    ("fisheye_people_obb/rolabelimg", "voc", {}, 1, 89, 89),
    ("rolabelimg_demo", "voc", {}, 3, 10, 6),
    ("dota8", "yolo", {}, 8, 133, 133),
    ("dota_samples", "dota", {}, 2, 600, 600),
    ("dota_samples/labelTxt_no_image", "dota", {}, 5, None, None),
]
WRITTEN = {
    "parquet": "t.parquet",
    "coco-angle": "t.json",
    "markers": "t.json",
    "voc": "out",
    "yolo": ".",
    "dota": "out",
}


def read(name: str, format: str, options: dict):
    return formats.read(shared_path(f"data/{name}"), format, ReadOptions(**options))


def same_corners(a: np.ndarray, b: np.ndarray) -> float:
    """Greatest distance of corners of boxes (N, 5), from whichever corner they are counted."""
    return float(fit_error(corners(a), b).max())


@pytest.mark.parametrize(("name", "format", "options", "images", "boxes", "oriented"), SAMPLES)
def test_every_real_sample_reads_whole(name, format, options, images, boxes, oriented):
    tables = read(name, format, options)
    assert len(tables.images) == images
    assert boxes is None or len(tables.boxes) == boxes
    assert oriented is None or tables.boxes["angle"].is_not_null().sum() == oriented
    assert not any(f.dropped for f in tables.faults)
    angle = tables.boxes["angle"].drop_nulls()
    assert angle.min() >= -np.pi / 2
    assert angle.max() < np.pi / 2


@pytest.mark.parametrize("part", ["train", "val"])
def test_the_two_files_of_one_data_set_agree(part):
    by_json = read(f"hituav_obb/{part}/rotate.json", "coco", {})
    by_xml = read(f"hituav_obb/{part}/rotate_xml", "voc", {})
    place = {name.rpartition(".")[0]: n for n, name in enumerate(by_xml.images["file_name"])}
    for n, name in enumerate(by_json.images["file_name"]):
        first, second = (
            t.rotated()[(t.boxes["image_id"] == k).to_numpy()]
            for t, k in ((by_json, n), (by_xml, place[name.rpartition(".")[0]]))
        )
        assert same_corners(first[np.lexsort(first.T)], second[np.lexsort(second.T)]) < 1e-3


def test_one_crowd_in_two_conventions_is_the_same_crowd():
    degrees = read("fisheye_people_obb/one.json", "coco", {"angles": "degrees"}).rotated()
    radians = read("fisheye_people_obb/rolabelimg", "voc", {}).rotated()
    error = np.array([fit_error(corners(radians), np.tile(box, (89, 1))).min() for box in degrees])
    assert error.max() < 0.01  # the text is rounded
    swapped = np.array(
        [fit_error(corners(radians), np.tile(box[[0, 1, 3, 2, 4]], (89, 1))).min() for box in degrees]
    )
    assert np.median(swapped) > 5


@pytest.mark.parametrize("format", WRITTEN)
@pytest.mark.parametrize(("name", "source", "options", "images", "boxes", "oriented"), SAMPLES[:7])
def test_real_samples_come_back_to_a_thousandth_of_a_pixel(
    format, name, source, options, images, boxes, oriented, tmp_path
):
    tables = read(name, source, options)
    target = tmp_path / WRITTEN[format]
    if format == "yolo":
        for row in tables.images.iter_rows(named=True):
            place = tmp_path / "images" / row["file_name"]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(shared_path("data").parent / row["path"])
    formats.write(tables, target, format)
    back = formats.read(target, format)
    assert len(back.boxes) == len(tables.boxes)
    own, again = (t.rotated()[np.lexsort([*t.rotated().T.round(2), _names(t)])] for t in (tables, back))
    assert same_corners(own, again) < 1e-3


def _names(tables) -> np.ndarray:
    stems = [n.rpartition("/")[2].rpartition(".")[0] for n in tables.images["file_name"]]
    order = {name: n for n, name in enumerate(sorted(stems))}
    return np.array([order[stems[i]] for i in tables.boxes["image_id"]])


def test_quadrilaterals_become_rectangles_and_the_error_is_told():
    rng = np.random.default_rng(0)
    boxes = np.column_stack(
        [rng.uniform(0, 99, (50, 2)), rng.uniform(5, 60, (50, 2)), rng.uniform(-4, 4, 50)]
    )
    exact = corners(boxes)
    for quads in (exact, exact[:, ::-1]):  # either way round
        found, faults = fit_rectangles(quads.reshape(-1, 8), ["place"] * 50)
        assert same_corners(boxes, found) < 1e-9
        assert not faults
    bent = exact.copy()
    bent[7, 0] += 9.0
    found, (fault,) = fit_rectangles(bent.reshape(-1, 8), [f"line {n}" for n in range(50)])
    moved = fit_error(bent[7:8], found[7:8])[0]
    assert fault.place == "line 7"
    assert f"{moved:.2f} px here" in fault.message
    assert same_corners(min_area_rectangle(bent[7])[None], found[7:8]) < 1e-9
    crossed = exact[:, [0, 2, 1, 3]]
    found, _ = fit_rectangles(crossed.reshape(-1, 8), ["place"] * 50)
    assert same_corners(boxes, found) < 1e-6


def test_dota_corners_are_kept_as_well_as_a_rectangle_can():
    tables = read("dota_samples", "dota", {})
    assert [f.code for f in tables.faults].count("fitted") == 1
    lines = (shared_path("data/dota_samples") / "labelTxt" / "P0706.txt").read_text().splitlines()[2:]
    quads = np.array([[float(v) for v in line.split()[:8]] for line in lines]).reshape(-1, 4, 2)
    mine = tables.rotated()[(tables.boxes["image_id"] == 0).to_numpy()]
    overlaps = []
    for quad, points in zip(quads, corners(mine)):
        a, b = Polygon(quad), Polygon(points)
        overlaps.append(a.intersection(b).area / a.union(b).area)
    assert min(overlaps) > 0.6
    assert np.mean(overlaps) > 0.95
    assert json.loads(tables.images["attributes"][0])["gsd"] == pytest.approx(0.255589285596)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_boxes_of_every_convention_come_back(name, tmp_path):
    tables = oriented_tables(tmp_path)
    spelled = to_convention(tables.rotated(), name)
    builder = TableBuilder("test", name)
    image, category = builder.image("a.jpg", None, 640, 480), builder.category("car")
    for n, box in enumerate(spelled.tolist()):
        builder.box(("box", n), image, category, box)
    back = builder.build()
    assert same_corners(tables.rotated(), back.rotated()) < 1e-9
    assert not [f for f in back.faults if f.code.startswith("angle")]


def build(boxes: list, angles: str | None):
    builder = TableBuilder("test", angles)
    image, category = builder.image("a.jpg", None, 640, 480), builder.category("car")
    for n, box in enumerate(boxes):
        builder.box(("box", n), image, category, box)
    return builder.build()


def test_what_a_convention_can_not_be_is_told():
    boxes = [[100.0, 100, 40, 20, a] for a in np.linspace(0.05, 3.1, 20)]
    for angles, code in ((None, "angle-convention"), ("degrees", "angle-unit"), ("oc", "angle-range")):
        assert code in [f.code for f in build(boxes, angles).faults]
    narrow = [[x, y, h, w, a] for x, y, w, h, a in boxes]
    (fault,) = [f for f in build(narrow, "le135").faults if f.code == "angle-side"]
    assert "20 of 20" in fault.message
    oriented = [[100.0, 100, 40, 20, a] for a in range(0, 180, 9)]
    assert "angle-unit" in [f.code for f in build(oriented, "radians").faults]
    taken = build(oriented, None)
    assert any("taken as degrees" in f.message for f in taken.faults)
    assert taken.rotated()[1, 4] == pytest.approx(np.radians(9))
    with pytest.raises(ConfigError, match="angles is 'left'"):
        formats.read(shared_path("data/hituav_obb/val/rotate.json"), "coco", ReadOptions(angles="left"))


def test_boxes_of_damaged_numbers_are_left_out_and_told():
    tables = build([[100.0, 100, 40, 20, np.nan], [1.0, 2, 3, 4, 0.5], [np.inf] * 8], "radians")
    assert len(tables.boxes) == 1
    assert sum(f.dropped for f in tables.faults) == 2


def test_wrapping_keeps_what_is_there_already():
    angle = np.array([-np.pi / 2, 0.3, np.pi / 2, 3.0, -7.0, np.nextafter(-np.pi / 2, -9)])
    wrapped = wrap(angle, np.pi)
    assert wrapped[1] == 0.3
    assert ((wrapped >= -np.pi / 2) & (wrapped < np.pi / 2)).all()
    assert np.allclose(np.tan(wrapped[[1, 3, 4]]), np.tan(angle[[1, 3, 4]]))


def test_markers_keep_headings(tmp_path):
    tables = oriented_tables(tmp_path, headings=True)
    boxes = tables.boxes.with_columns(ignore=pl.Series([True] + [False] * (len(tables.boxes) - 1)))
    formats.write(tables.with_boxes(boxes), tmp_path / "m.json", "markers")
    back = formats.read(tmp_path / "m.json")  # told by its content
    assert np.allclose(back.rotated(), tables.rotated())
    assert np.abs(back.rotated()[:, 4]).max() > np.pi / 2
    assert back.boxes["ignore"].to_list() == boxes["ignore"].to_list()
    document = json.loads((tmp_path / "m.json").read_text())
    document["version"] = 2
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="version 2, expected 1"):
        formats.read(tmp_path / "m.json")


def test_merged_results_of_dota_are_judged_against_its_truth(tmp_path):
    tables = oriented_tables(tmp_path, scores=True)
    formats.write(tables, tmp_path / "found", "dota-results")
    back = formats.read(tmp_path / "found")
    assert (
        same_corners(
            tables.rotated()[np.lexsort(tables.rotated().T)], back.rotated()[np.lexsort(back.rotated().T)]
        )
        < 1e-3
    )
    formats.write(tables, tmp_path / "truth", "dota")
    aligned = formats.read(tmp_path / "found", None, ReadOptions(truth=formats.read(tmp_path / "truth")))
    assert (
        aligned.images["file_name"].to_list()
        == formats.read(tmp_path / "truth").images["file_name"].to_list()
    )
    with pytest.raises(DataError, match="have no score"):
        formats.write(
            tables.with_boxes(tables.boxes.with_columns(score=pl.lit(None, pl.Float64))),
            tmp_path / "x",
            "dota-results",
        )


@pytest.mark.parametrize("scores", [False, True])
def test_json_keeps_angles_unless_another_format_is_wanted(scores, tmp_path):
    tables = oriented_tables(tmp_path / "images", scores=scores)
    formats.write(tables, tmp_path / "own.json")
    back = formats.read(tmp_path / "own.json")
    assert same_corners(back.rotated(), tables.rotated()) < 1e-9
    assert back.boxes["score"].equals(tables.boxes["score"])
    formats.write(tables, tmp_path / "upright.json", "coco")
    assert not formats.read(tmp_path / "upright.json").has_angles()
