"""The rotation sweep: turned boxes from a detector that knows upright ones alone."""

import numpy as np
import pytest
import torch

import boxwright
from boxwright.data.dataset import DetectionDataset, collate
from boxwright.errors import ConfigError
from boxwright.geometry.iou import aligned_iou, pairwise_iou
from boxwright.prediction.detect import detect, to_tables
from boxwright.prediction.sweep import fuse_sweep, sweep_angles, sweep_images, turn_images
from boxwright.prediction.tiles import Tiling, detect_tiles
from tests.cli.test_cli import run
from tests.prediction.test_tiles import Bright, bars, checkpoint
from tests.scenes import turned_tables


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2])
def test_content_is_turned_about_its_middle(angle):
    image = torch.zeros(1, 3, 64, 96)
    image[0, :, 20:24, 60:64] = 255  # its middle at 62, 22 of content of 90 x 50
    turned, side = turn_images(image, torch.tensor([[90.0, 50.0]]), angle)
    assert side == 128
    y, x = np.unravel_index(turned[0, 0].numpy().argmax(), (side, side))
    offset = np.array([62 - 45, 22 - 25])
    cos, sin = np.cos(angle), np.sin(angle)
    expected = np.array([cos * offset[0] - sin * offset[1], sin * offset[0] + cos * offset[1]]) + side / 2
    assert np.abs(np.array([x + 0.5, y + 0.5]) - expected).max() < 3
    assert turned[0, 0, 0, 0] == 114


def test_the_tightest_of_the_confident_boxes_is_kept():
    rows = np.array(
        [
            [50.0, 50, 40, 40, 0.0, 0.9, 0, 0],
            [50.5, 50, 38, 18, -0.4, 0.8, 0, 1],
            [50.0, 50.5, 30, 12, -0.8, 0.2, 0, 2],  # tighter, but nobody is sure of it
            [90.0, 50, 38, 18, -0.4, 0.6, 0, 1],
            [50.0, 50, 38, 18, -0.4, 0.5, 1, 1],  # of another class
        ]
    )
    found = fuse_sweep(rows, 3, 10)
    assert found.boxes[:, 4].tolist() == pytest.approx([-0.4] * 3)
    assert found.scores.tolist() == pytest.approx([(0.9 + 0.8 + 0.2) / 3, 0.6 / 3, 0.5 / 3])
    assert found.labels.tolist() == [0, 0, 1]
    assert len(fuse_sweep(rows, 3, 1).boxes) == 1
    assert fuse_sweep(np.zeros((0, 8)), 3, 10).boxes.shape == (0, 5)


def test_upright_outlines_become_the_turned_bars(tmp_path):
    tables = turned_tables(tmp_path, 6, 192)
    tables = tables.with_boxes(tables.boxes.filter(tables.boxes["category_id"] == 0))
    batches = [collate([DetectionDataset(tables, (192, 192))[n] for n in range(6)])]
    rows = detect(Bright(False), batches, torch.device("cpu"), angles=sweep_angles(18))
    found = to_tables(rows, tables.images, ["bright", "dark"], "sweep")
    assert len(found.boxes) == 6
    assert aligned_iou(found.rotated(), tables.rotated()).min() > 0.75


def test_a_sweep_by_tiles_finds_every_bar_once(tmp_path):
    images, truth = bars(tmp_path, (500, 330))

    def look(model, pixels, sizes):
        return sweep_images(model, pixels, sizes, sweep_angles(12))

    (rows,), _, _ = detect_tiles(Bright(False), images, Tiling((256, 256), 100), torch.device("cpu"), look)
    assert len(rows) == len(truth)
    iou = pairwise_iou(truth, rows[:, 3:])
    assert iou.max(axis=1).min() > 0.6


def test_a_sweep_from_the_command_line(tmp_path):
    file, _, _ = checkpoint(tmp_path, "compact")
    words = ["predict", tmp_path / "train", "--checkpoint", file, "-o", tmp_path / "p.parquet"]
    run(*words, "--sweep", "3", "--max-detections", "5")
    found = boxwright.read(tmp_path / "p.parquet")
    assert found.boxes["angle"].null_count() == 0
    assert 0 < len(found.boxes) <= 15
    (tmp_path / "turned").mkdir()
    turned, _, _ = checkpoint(tmp_path / "turned")
    with pytest.raises(ConfigError, match="for detectors of upright boxes"):
        boxwright.predict(tmp_path / "train", turned, sweep=3)
