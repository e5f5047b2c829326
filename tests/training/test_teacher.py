"""A teacher finds boxes in images without labels while the student learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import boxwright
from boxwright.config import check_config
from boxwright.config.teaching import TeacherConfig
from boxwright.data.dataset import DetectionDataset, collate
from boxwright.models.detections import Detections, Selection
from boxwright.training.preparation import Preparation
from boxwright.training.teacher import Teacher, stronger
from tests.scenes import oriented_tables, square_experiment, square_tables


class Finds:
    """A detector that finds the same in every image."""

    selection, finds_headings = Selection(), False

    def __init__(self, *rows):
        self.rows = torch.tensor(rows)

    def __call__(self, images):
        return {"count": torch.tensor(len(images))}

    def decode(self, outputs, sizes):
        boxes, scores, labels = self.rows[:, :-2], self.rows[:, -2], self.rows[:, -1].long()
        return [Detections(boxes, scores, labels) for _ in range(int(outputs["count"]))]


def label(tables, config, unlabelled, rows):
    dataset = DetectionDataset(tables, (64, 64))
    batch = collate([dataset[n] for n in range(len(unlabelled))])
    teacher = Teacher(config, torch.tensor(unlabelled))
    taught = teacher.label(Finds(*rows), batch, torch.no_grad, np.random.default_rng(0))
    return batch, taught


def test_certain_boxes_are_objects_and_doubtful_ones_are_ignored(tmp_path):
    tables = square_tables(tmp_path, images=3)
    tables = replace(tables, boxes=tables.boxes.filter(tables.boxes["image_id"] != 1))
    rows = [
        [2, 2, 20, 20, 0.9, 1],
        [30, 30, 50, 50, 0.3, 0],
        [5, 40, 15, 60, 0.1, 0],
        [50, 50, 80, 60, 0.5, 1],
    ]
    batch, taught = label(tables, TeacherConfig(), [False, True, False], rows)
    before, after = batch.targets, taught.targets
    own = before.mask.shape[1]
    assert torch.equal(after.mask[1, own:], torch.tensor([True, False, False, True]))
    assert torch.equal(after.ignore[1, own:], torch.tensor([False, True, False, False]))
    assert after.labels[1, own:].tolist() == [1, 0, 0, 1]
    assert after.boxes[1, own + 3].tolist() == [50, 50, 64, 60]  # cut where the image ends
    assert after.rotated[1, own].tolist() == [11, 11, 18, 18, 0]
    for n in (0, 2):  # labelled ones stay as they are, pixels too
        assert not (after.mask | after.ignore)[n, own:].any()
        assert torch.equal(after.boxes[n, :own], before.boxes[n])
        assert torch.equal(taught.images[n], batch.images[n])
    assert not torch.equal(taught.images[1], batch.images[1])
    assert after.any_ignored


def test_what_is_labelled_is_not_added_again(tmp_path):
    tables = square_tables(tmp_path, images=2)
    box = DetectionDataset(tables, (64, 64))[0].boxes[0]
    rows = [[*(box + 1), 0.9, 0], [60, 60, 64, 64, 0.9, 1]]
    batch, taught = label(tables, TeacherConfig(labelled=True), [False, False], rows)
    own = batch.targets.mask.shape[1]
    assert not taught.targets.mask[0, own]
    assert taught.targets.mask[0, own + 1]


def test_oriented_boxes_keep_their_angle(tmp_path):
    tables = oriented_tables(tmp_path, images=2)
    rows = [[30, 32, 20, 8, math.pi / 6, 0.9, 1]]
    batch, taught = label(tables, TeacherConfig(), [True, False], rows)
    own = batch.targets.mask.shape[1]
    assert taught.targets.rotated[0, own].tolist() == pytest.approx(rows[0][:5])
    assert taught.targets.oriented[0, own]
    turned = boxwright.geometry.conventions.corners(np.array([rows[0][:5]]))[0]
    expected = [*turned.min(0), *turned.max(0)]
    assert taught.targets.boxes[0, own].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_student_sees_other_colours():
    images = torch.from_numpy(np.random.default_rng(0).integers(60, 190, (4, 3, 40, 50), dtype=np.uint8))
    before = images.clone()
    changed = stronger(images, np.random.default_rng(1))
    assert torch.equal(images, before)
    assert changed.dtype == torch.uint8
    assert torch.equal(changed, stronger(images, np.random.default_rng(1)))
    factors = changed.float().mean((1, 2, 3)) / images.float().mean((1, 2, 3))
    assert factors.std() > 0.05
    assert ((factors > 0.4) & (factors < 1.8)).all()


def experiment(folder, **teacher):
    content = square_experiment(folder, epochs=4, evaluate_every=4).model_dump(mode="json")
    square_tables(folder / "more", images=6, seed=5)
    content["data"]["train"] = [
        content["data"]["train"],
        {"root": str(folder / "more"), "role": "unlabelled"},
    ]
    content["train"]["teacher"] = teacher
    return content


def test_images_without_labels_teach_from_the_start_on(tmp_path, monkeypatch):
    content = experiment(tmp_path, start=0.5, score=0.0, doubt=0.0)
    seen, honest = [], Preparation.taught

    def look(self, batch, *place):
        taught, weights = honest(self, batch, *place)
        rows = self.teacher.unlabelled[batch.indices]
        more = taught.targets.mask.sum(1) > batch.targets.mask.sum(1)
        seen.append((rows.tolist(), None if weights is None else weights.tolist(), more.tolist()))
        return taught, weights

    monkeypatch.setattr(Preparation, "taught", look)
    boxwright.train(check_config(content, "test"), name="run", runs=tmp_path / "runs")
    half = len(seen) // 2
    for rows, weights, more in seen[:half]:
        assert weights == [float(not row) for row in rows]
        assert not any(more)
    assert all(weights is None for _, weights, _ in seen[half:])
    assert [more for _, _, more in seen[half:]] == [rows for rows, _, _ in seen[half:]]
    assert any(any(rows) for rows, _, _ in seen[half:])


def test_what_a_teacher_needs_is_told(tmp_path):
    content = experiment(tmp_path)
    content["train"]["teacher"] = None
    with pytest.raises(boxwright.errors.ConfigError, match=r"is unlabelled: train.teacher finds its boxes"):
        check_config(content, "test")
    content = experiment(tmp_path, score=0.1, doubt=0.2)
    with pytest.raises(boxwright.errors.ConfigError, match=r"doubt 0.2 is above score 0.1"):
        check_config(content, "test")
    content = experiment(tmp_path)
    del content["data"]["train"][1]
    with pytest.raises(boxwright.errors.ConfigError, match=r"train.teacher has no images"):
        check_config(content, "test")
    content = experiment(tmp_path)
    content["augment"]["mosaic"] = 0.5
    with pytest.raises(
        boxwright.errors.ConfigError, match=r"learnt as background; expected 0, found mosaic 0.5"
    ):
        check_config(content, "test")
    content = experiment(tmp_path)
    content["data"]["sampling"] = {"background": 0.2}
    with pytest.raises(boxwright.errors.ConfigError, match=r"background and hard would take it for empty"):
        check_config(content, "test")
    content = experiment(tmp_path, labelled=True)
    content["data"]["train"][1]["role"] = "background"
    with pytest.raises(boxwright.errors.ConfigError, match=r"labelled would find objects"):
        check_config(content, "test")
    content = experiment(tmp_path)
    content["train"]["ema"] = None
    with pytest.raises(boxwright.errors.ConfigError, match=r"ema is null"):
        check_config(content, "test")
