"""Landmarks of faces: from files to tables, through a network's input and back, and into files again."""

import numpy as np
import polars as pl
import pytest
import torch

from boxwright.config.augment import AugmentConfig
from boxwright.config.experiment import View
from boxwright.data import formats
from boxwright.data.conversion import convert
from boxwright.data.dataset import DetectionDataset, collate
from boxwright.data.formats.options import ReadOptions
from boxwright.data.tables import LANDMARKS, Tables
from boxwright.data.transforms import MIRRORED, transform_landmarks
from boxwright.errors import DataError
from boxwright.models.detections import Detections
from boxwright.prediction.views import from_view, fuse_views, to_view
from tests.scenes import FACE_COLORS, face_tables, small_tables
from tests.shared_data import shared_path

FACE_LINE = "449 330 122 149 488.906 373.643 0.0 542.089 376.442 0.0 515.031 412.83 1.0 485.174 425.893 0.0"


def test_retinaface_notation_has_landmarks_and_those_that_are_missing(tmp_path):
    none = " ".join(["-1.0 -1.0 -1.0"] * LANDMARKS)
    text = f"# 0--Parade/a b.jpg\n{FACE_LINE} 538.357 431.491 0.0 0.82\n10 20 30 40 {none} 0.5\n"
    (tmp_path / "label.txt").write_text(text)
    tables = formats.read(tmp_path / "label.txt")
    assert tables.images["file_name"].to_list() == ["0--Parade/a b.jpg"]
    assert tables.categories["name"].to_list() == ["face"]
    assert tables.landmarks()[0, 2].tolist() == [515.031, 412.83]
    assert np.isnan(tables.landmarks()[1]).all()
    assert tables.boxes["attributes"].to_list() == ['{"hidden_landmarks":[2],"blur":0.82}', '{"blur":0.5}']


def test_the_official_notation_has_invalid_faces_and_images_without(tmp_path):
    text = "a.jpg\n2\n10 20 30 40 1 0 0 0 2 0\n50 60 5 6 0 0 0 1 0 0\nb.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
    (tmp_path / "wider_face_val_bbx_gt.txt").write_text(text)
    tables = formats.read(tmp_path / "wider_face_val_bbx_gt.txt")
    assert len(tables.images) == 2
    assert tables.boxes["ignore"].to_list() == [False, True]
    assert tables.boxes.select("x", "y", "w", "h").row(0) == (10, 20, 30, 40)
    assert '"occlusion":2.0' in tables.boxes["attributes"][0]


def test_labelv2_has_corners_and_the_images_size(tmp_path):
    (tmp_path / "labelv2.txt").write_text("# a.jpg 100 80\n74 41 82 46\n")
    tables = formats.read(tmp_path / "labelv2.txt")
    assert tables.images.select("width", "height").row(0) == (100, 80)
    assert tables.boxes.select("x", "y", "w", "h").row(0) == (74, 41, 8, 5)


def test_what_is_no_face_is_named(tmp_path):
    (tmp_path / "label.txt").write_text("# a.jpg\n1 2 3\n1 2 3 four\n10 20 30 40\n")
    tables = formats.read(tmp_path / "label.txt")
    assert [f.place.rpartition(" ")[2] for f in tables.faults if f.dropped] == ["2", "3"]
    assert len(tables.boxes) == 1
    (tmp_path / "label.txt").write_text("10 20 30 40\n")
    with pytest.raises(DataError, match=r"line 1: .*expected the path of an image first"):
        formats.read(tmp_path / "label.txt", "wider")


def test_all_shared_labels_of_faces_are_read():
    files = sorted(shared_path("data/wider_labels").glob("*.txt"))
    for file in files:
        tables = formats.read(file)
        assert not [f for f in tables.faults if f.severity == "error"], file
        assert len(tables.boxes) >= len(tables.images) > 0
        assert (tables.boxes["landmarks"].null_count() == 0) == ("retinaface" in file.name), file


@pytest.mark.parametrize("name", ["parquet", "coco", "wider", "coco-results"])
def test_landmarks_survive_a_format_that_holds_them(name, tmp_path):
    tables = face_tables(tmp_path / "images")
    scored = tables.with_boxes(tables.boxes.with_columns(score=pl.lit(0.5)))
    target = tmp_path / {"parquet": "a.parquet", "wider": "a.txt"}.get(name, "a.json")
    convert(scored if name == "coco-results" else tables, target, name)
    options = ReadOptions(truth=tables) if name == "coco-results" else None
    again = formats.read(target, name, options)
    assert np.array_equal(again.landmarks(), tables.landmarks())
    assert again.faults == ()


def test_a_format_without_a_place_for_them_says_so(tmp_path):
    assert convert(face_tables(tmp_path / "images"), tmp_path / "voc", "voc")["landmarks"] == 8


def test_keypoints_of_other_things_stay_attributes(tmp_path):
    (tmp_path / "coco.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}],'
        '"categories": [{"id": 1, "name": "person"}], "annotations": [{"id": 1, "image_id": 1,'
        '"category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0, "keypoints": [1, 2, 2]}]}'
    )
    tables = formats.read(tmp_path / "coco.json")
    assert tables.boxes["landmarks"][0] is None
    assert '"keypoints":[1,2,2]' in tables.boxes["attributes"][0]


def test_a_file_from_before_there_were_landmarks_is_read(tmp_path):
    formats.write(small_tables(tmp_path), tmp_path / "new.parquet")
    metadata = pl.read_parquet_metadata(tmp_path / "new.parquet")
    old = pl.read_parquet(tmp_path / "new.parquet").drop("landmarks")
    kept = {k: v for k, v in metadata.items() if k != "ARROW:schema"}
    old.write_parquet(tmp_path / "old.parquet", metadata=kept)
    assert formats.read(tmp_path / "old.parquet").boxes.equals(small_tables(tmp_path).boxes)


def test_tables_refuse_landmarks_that_are_none(tmp_path):
    tables = face_tables(tmp_path, 1)
    for wrong in ([[1.0, 2.0]], [[np.nan] * 2 * LANDMARKS]):
        boxes = tables.boxes.with_columns(landmarks=pl.Series(wrong))
        with pytest.raises(DataError, match="landmarks must be 10 finite numbers"):
            Tables(tables.images, boxes, tables.categories)


def colors_at(pixels: np.ndarray, landmarks: np.ndarray) -> list[int]:
    """Which of the colours lies at each landmark."""
    found = []
    for x, y in landmarks:
        color = pixels[int(y), int(x)].astype(int)
        found.append(int(np.abs(np.array(FACE_COLORS) - color).sum(axis=1).argmin()))
    return found


@pytest.mark.parametrize(
    "flips", [{}, {"flip_horizontal": 1.0}, {"flip_vertical": 1.0}, {"quarter_turn": 1.0}]
)
def test_a_warped_image_has_its_landmarks_where_they_are_seen(flips, tmp_path):
    plain = {"flip_horizontal": 0.0, "brightness": 0.0, "contrast": 0.0, "color": 0.0, "scale": (0.9, 1.1)}
    augment = AugmentConfig(**(plain | flips))
    tables = face_tables(tmp_path, 4)
    for sample in (DetectionDataset(tables, (128, 128), augment)[n] for n in range(4)):
        order = list(range(LANDMARKS))
        if "flip" in str(flips):  # the image's left eye is the one that was its right
            order = list(MIRRORED)
        inside = (sample.landmarks[0] > 1).all(1) & (sample.landmarks[0] < 127).all(1)
        found = colors_at(sample.pixels, np.clip(sample.landmarks[0], 0, 127))
        assert [c for c, i in zip(found, inside) if i] == [c for c, i in zip(order, inside) if i]


def test_a_batch_has_nan_where_there_are_none(tmp_path):
    tables = face_tables(tmp_path, 2)
    boxes = pl.concat(
        [tables.boxes, tables.boxes[:1].with_columns(landmarks=pl.lit(None, pl.List(pl.Float64)))]
    )
    dataset = DetectionDataset(tables.with_boxes(boxes), (64, 64))
    targets = collate([dataset[0], dataset[1]]).targets
    assert targets.landmarks.shape == (2, 2, LANDMARKS, 2)
    assert targets.landmarks.isfinite().all(-1).all(-1).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("view", ["plain", "horizontal", "vertical", "both", "transposed", "transposed-both"])
def test_a_view_gives_its_landmarks_back(view: View, tmp_path):
    tables = face_tables(tmp_path, 1)
    sample = DetectionDataset(tables, (64, 64))[0]
    images = torch.from_numpy(sample.pixels.copy()).permute(2, 0, 1)[None]
    sizes = torch.tensor([[64.0, 64.0]])
    seen, _ = to_view(images, sizes, view)
    # What a perfect detector finds in the view: the colours that lie there, left before right.
    pixels = seen[0].permute(1, 2, 0).numpy()
    there = []
    for color in FACE_COLORS:
        y, x = np.nonzero((pixels == color).all(-1))
        there.append([x.mean() + 0.5, y.mean() + 0.5])
    points = torch.tensor(there)[None].float()
    mirrored = {"plain": 0, "both": 0, "horizontal": 1, "vertical": 1, "transposed": 1, "transposed-both": 1}
    if mirrored[view]:
        points = points[:, list(MIRRORED)]
    found = Detections(torch.tensor([[1.0, 1, 9, 9]]), torch.ones(1), torch.zeros(1).long(), points)
    back = from_view(found, sizes[0], view).landmarks
    assert back is not None
    assert np.allclose(back.numpy(), tables.landmarks()[:1], atol=1.0)


def test_views_vote_on_landmarks():
    box, label = torch.tensor([[0.0, 0, 10, 10]]), torch.zeros(1).long()
    views = [
        [Detections(box, torch.tensor([score]), label, torch.full((1, LANDMARKS, 2), value))]
        for score, value in ((0.75, 4.0), (0.25, 8.0))
    ]
    fused = fuse_views(views, 0.5, 10)[0]
    assert fused.landmarks is not None
    assert torch.allclose(fused.landmarks, torch.tensor(5.0))


def test_a_mirror_of_a_mirror_is_the_face_itself():
    points = np.random.default_rng(0).uniform(0, 64, (3, LANDMARKS, 2))
    mirror = np.array([[-1.0, 0, 64], [0, 1, 0]])
    assert np.allclose(transform_landmarks(transform_landmarks(points, mirror), mirror), points)


def test_an_announced_number_of_faces_is_checked(tmp_path):
    (tmp_path / "gt.txt").write_text("a.jpg\n2\n10 20 30 40 1 0 0 0 2 0\nb.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n")
    faults = [f for f in formats.read(tmp_path / "gt.txt").faults if f.code == "count"]
    assert [f.place for f in faults] == [f"{tmp_path / 'gt.txt'}, line 1"]
    assert "2 faces are announced, 1 follow" in str(faults[0])
