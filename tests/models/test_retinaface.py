"""RetinaFace: landmarks are learnt, predicted in the image's pixels, and judged."""

import numpy as np
import polars as pl
import pytest
import torch

import boxwright
from boxwright.config import check_config
from boxwright.data import formats
from boxwright.data.dataset import DetectionDataset, collate
from boxwright.data.tables import LANDMARKS, Tables
from boxwright.errors import ConfigError, DataError
from boxwright.evaluation.evaluate import evaluate
from boxwright.evaluation.landmarks import landmarks
from tests.models.test_detectors import learn, make, targets
from tests.scenes import face_tables


def outputs_of(anchors: torch.Tensor, points: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a network says that has found a face of landmarks `points` (5, 2) at the last anchor."""
    count = len(anchors)
    logits = torch.tensor([[-9.0, 9.0]]).repeat(count, 1)
    logits[-1] = torch.tensor([9.0, -9.0])
    x1, y1, x2, y2 = anchors[-1].tolist()
    # RetinaFace: the shift from the anchor's centre in its sides, divided by the deviation of 0.1.
    shifts = torch.zeros(count, 2 * LANDMARKS)
    for n, (x, y) in enumerate(points.tolist()):
        shifts[-1, 2 * n] = (x - (x1 + x2) / 2) / (x2 - x1) / 0.1
        shifts[-1, 2 * n + 1] = (y - (y1 + y2) / 2) / (y2 - y1) / 0.1
    return {
        "cls_logits": logits[None], "box_deltas": torch.zeros(1, count, 4), "landmark_shifts": shifts[None],
        "anchors": anchors, "level_sizes": torch.tensor([count]),
    }  # fmt: skip


def test_landmarks_are_shifts_from_the_anchor_in_its_sides():
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 30, 60, 50]])
    points = torch.tensor([[25.0, 35], [50, 34], [40, 41], [28, 47], [55, 49]])
    found = make("retinaface", classes=1).decode(outputs_of(anchors, points), torch.tensor([[64.0, 64]]))[0]
    assert found.landmarks is not None
    assert torch.allclose(found.landmarks[0], points, atol=1e-4)
    assert torch.allclose(found.boxes[0], anchors[1])


def test_the_loss_is_zero_where_the_landmarks_are_right_and_knows_those_without(tmp_path):
    tables = face_tables(tmp_path, 1)
    batch = collate([DetectionDataset(tables, (64, 64))[0]])
    model = make("retinaface", classes=1)
    right = outputs_of(batch.targets.boxes[0], batch.targets.landmarks[0, 0])
    assert model.loss(right, batch.targets)["landmarks"] == pytest.approx(0, abs=1e-6)
    wrong = right | {"landmark_shifts": right["landmark_shifts"] + 2}
    # Smooth L1 of 2 is 1.5, of ten numbers, times the weight.
    assert model.loss(wrong, batch.targets)["landmarks"] == pytest.approx(0.1 * 15, abs=1e-4)
    none = tables.with_boxes(tables.boxes.with_columns(landmarks=pl.lit(None, pl.List(pl.Float64))))
    without = collate([DetectionDataset(none, (64, 64))[0]]).targets
    assert model.loss(wrong, without)["landmarks"] == 0


def test_an_image_without_a_face_teaches_background():
    model = make("retinaface", classes=1)
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 30, 60, 50]])
    outputs = outputs_of(anchors, torch.zeros(LANDMARKS, 2))
    assert model.loss(outputs, targets([[]]))["cls"] > 1


def test_faces_and_landmarks_are_learnt(tmp_path):
    tables = face_tables(tmp_path)
    model = make("retinaface", classes=1).train()
    model.landmark_weight = 1.0  # in few steps
    found = learn(model, tables, 150, 64)
    assert evaluate(tables, found).coco["AP50"] >= 0.8
    # Whoever knows the box alone can guess no better than the mean face.
    boxes = tables.boxes.select("x", "y", "w", "h").to_numpy()[:, None]
    mean = ((tables.landmarks() - boxes[..., :2]) / boxes[..., 2:]).mean(axis=0)
    guess = with_landmarks(tables, mean * boxes[..., 2:] + boxes[..., :2])
    learnt, guessed = (landmarks(tables, found).overall["NME"] for found in (found, guess))
    assert learnt <= 0.75 * guessed
    formats.write(found, tmp_path / "found.json")
    assert len(formats.read(tmp_path / "found.json").boxes) == len(found.boxes)


def with_landmarks(tables: Tables, points: np.ndarray) -> Tables:
    """Detections at the boxes of the truth, with landmarks (N, LANDMARKS, 2)."""
    column = pl.Series(points.reshape(len(points), -1).tolist(), dtype=pl.List(pl.Float64))
    return tables.with_boxes(tables.boxes.with_columns(score=pl.lit(0.9), landmarks=column))


def test_nme_is_the_mean_distance_in_sizes_of_the_face(tmp_path):
    tables = face_tables(tmp_path, 2)
    moved = tables.landmarks()
    moved[0, 0] += [3.0, 4.0]  # one point, five pixels off
    moved[1] += [0.0, 2.0]
    found = with_landmarks(tables, moved)
    reading = landmarks(tables, found)
    sides = tables.boxes["w"].to_numpy()
    assert reading.overall["NME"] == pytest.approx(np.mean([5 / LANDMARKS / sides[0], 2 / sides[1]]))
    assert reading.rows[0]["mean"] == pytest.approx(np.mean([5 / sides[0], 2 / sides[1]]))
    assert reading.notes == ["2 of the 2 faces with landmarks were found and judged."]
    none = tables.boxes.with_columns(landmarks=pl.lit(None, pl.List(pl.Float64)))
    with pytest.raises(DataError, match="truth has no landmarks"):
        landmarks(tables.with_boxes(none), found)


def test_landmarks_go_through_a_run_tiles_and_report(tmp_path):
    tables = face_tables(tmp_path / "images", 8)
    formats.write(tables, tmp_path / "truth.parquet")
    source = {"root": str(tmp_path / "truth.parquet")}
    model = {"name": "retinaface", "backbone": {"name": "resnet18", "pretrained": False}}
    model |= {"neck": {"channels": 32}, "selection": {"score_threshold": 0.0, "max_detections": 5}}
    content = {
        "data": {"train": source, "val": source}, "model": model, "image_size": [64, 64],
        "views": ["plain", "horizontal"],
        "train": {"epochs": 10, "batch_size": 4, "evaluate_every": 10, "precision": "fp32"},
    }  # fmt: skip
    run = boxwright.train(check_config(content, "faces"), name="faces", runs=tmp_path)
    found = formats.read(run.folder / "predictions.parquet")
    assert found.boxes["landmarks"].null_count() == 0
    assert "NME of landmarks" in (run.folder / "report" / "index.html").read_text()
    whole = boxwright.predict(tmp_path / "images", run.folder, views=["plain"])
    assert np.isfinite(whole.landmarks()).all()
    tiled = boxwright.predict(
        tmp_path / "images",
        run.folder,
        views=["plain"],
        tiling=boxwright.TilingOptions(size=(64, 64), scale=1.0),
    )
    # One tile holds each image whole: the best detection is the same.
    first = [t.landmarks()[t.boxes["image_id"].to_numpy() == 0][0] for t in (whole, tiled)]
    assert np.allclose(*first, atol=1e-3)
    with pytest.raises(ConfigError, match="no landmarks"):
        boxwright.predict(tmp_path / "images", run.folder, sweep=3)
