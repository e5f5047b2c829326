"""The rotation sweep: oriented boxes from a detector that knows upright ones alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import boxwright
from boxwright.data.dataset import DetectionDataset, collate
from boxwright.errors import ConfigError
from boxwright.geometry.conventions import corners
from boxwright.geometry.iou import aligned_iou, pairwise_iou
from boxwright.prediction.detect import detect, to_tables
from boxwright.prediction.sweep import fit_hulls, fuse_sweep, rotate_images, sweep_angles, sweep_images
from boxwright.prediction.tiles import detect_tiles
from boxwright.prediction.tiling import Tiling
from tests.cli.test_cli import run
from tests.prediction.test_tiles import Bright, bars, checkpoint
from tests.scenes import oriented_tables


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2])
def test_content_is_rotated_about_its_middle(angle):
    image = torch.zeros(1, 3, 64, 96)
    image[0, :, 20:24, 60:64] = 255  # its middle at 62, 22 of content of 90 x 50
    oriented, side = rotate_images(image, torch.tensor([[90.0, 50.0]]), angle)
    assert side == 128
    y, x = np.unravel_index(oriented[0, 0].numpy().argmax(), (side, side))
    offset = np.array([62 - 45, 22 - 25])
    cos, sin = np.cos(angle), np.sin(angle)
    expected = np.array([cos * offset[0] - sin * offset[1], sin * offset[0] + cos * offset[1]]) + side / 2
    assert np.abs(np.array([x + 0.5, y + 0.5]) - expected).max() < 3
    assert oriented[0, 0, 0, 0] == 114


def hulls_at(w: float, h: float, angle: float, angles: np.ndarray) -> np.ndarray:
    """(K, 2) sides of a rectangle's hulls when it is rotated by `angles`."""
    points = corners(np.array([[0.0, 0, w, h, angle + a] for a in angles]))
    return np.ptp(points, axis=1)


@given(st.floats(20, 60), st.floats(8, 19), st.floats(-1.5, 1.5), st.integers(3, 12), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_hulls_at_several_angles_are_one_rectangle(w, h, angle, count, missed):
    angles = np.array(sweep_angles(count))
    weight = np.ones((1, count))
    weight[0, : min(missed, count - 3)] = 0
    found = fit_hulls(hulls_at(w, h, angle, angles)[None], weight, angles)
    box, truth = (np.array([[100.0, 100, *b]]) for b in (found[0], (w, h, angle)))
    assert aligned_iou(box, truth)[0] > 0.93


def test_the_tightest_of_few_confident_boxes_is_kept():
    rows = np.array(
        [
            [50.0, 50, 40, 40, 0.0, 0.9, 0, 0],
            [50.5, 50, 38, 18, -0.4, 0.8, 0, 1],
            [50.0, 50.5, 30, 12, -0.8, 0.2, 0, 2],  # tighter, but nobody is sure of it
            [90.0, 50, 38, 18, -0.4, 0.6, 0, 1],
            [50.0, 50, 38, 18, -0.4, 0.5, 1, 1],  # of another class
        ]
    )
    angles = [0.0, 0.4, 0.8]
    found = fuse_sweep(rows, angles, 10)
    assert found.boxes[:, 4].tolist() == pytest.approx([-0.4] * 3)
    assert found.scores.tolist() == pytest.approx([(0.9 + 0.8 + 0.2) / 3, 0.6 / 3, 0.5 / 3])
    assert found.labels.tolist() == [0, 0, 1]
    assert len(fuse_sweep(rows, angles, 1).boxes) == 1
    assert fuse_sweep(np.zeros((0, 8)), angles, 10).boxes.shape == (0, 5)


def test_upright_outlines_become_the_oriented_bars(tmp_path):
    tables = oriented_tables(tmp_path, 6, 192)
    tables = tables.with_boxes(tables.boxes.filter(tables.boxes["category_id"] == 0))
    batches = [collate([DetectionDataset(tables, (192, 192))[n] for n in range(6)])]
    rows = detect(Bright(False), batches, torch.device("cpu"), angles=sweep_angles(18))
    found = to_tables(rows, tables.images, ["bright", "dark"], "sweep")
    assert len(found.boxes) == 6
    assert aligned_iou(found.rotated(), tables.rotated()).min() > 0.85


def test_a_sweep_by_tiles_finds_every_bar_once(tmp_path):
    images, truth = bars(tmp_path, (500, 330))

    def look(model, pixels, sizes):
        return sweep_images(model, pixels, sizes, sweep_angles(12))

    (rows,), _, _ = detect_tiles(Bright(False), images, Tiling((256, 256), 100), torch.device("cpu"), look)
    rows = rows[rows[:, 2] > 0.3]  # a speck at a tile's edge is seen at one angle alone
    assert len(rows) == len(truth)
    iou = pairwise_iou(truth, rows[:, 3:])
    assert iou.max(axis=1).min() > 0.75


def test_a_sweep_from_the_command_line(tmp_path):
    file, _, _ = checkpoint(tmp_path, "compact")
    words = ["predict", tmp_path / "train", "--checkpoint", file, "-o", tmp_path / "p.parquet"]
    run(*words, "--sweep", "3", "--max-detections", "5")
    found = boxwright.read(tmp_path / "p.parquet")
    assert found.boxes["angle"].null_count() == 0
    assert 0 < len(found.boxes) <= 15
    (tmp_path / "oriented").mkdir()
    oriented, _, _ = checkpoint(tmp_path / "oriented")
    with pytest.raises(ConfigError, match="for detectors of upright boxes"):
        boxwright.predict(tmp_path / "train", oriented, sweep=3)
