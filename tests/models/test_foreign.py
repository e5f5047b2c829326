"""Detectors that others have exported to ONNX, in the two ways in which they give boxes."""

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn

import boxwright
from boxwright.errors import CheckpointError
from tests.cli.test_cli import run

SIDE = 64
# Of two objects of classes 1 and 0, and of the first a second time: cx, cy, w, h in an image of 64 x 64.
PLACES = torch.tensor([[20.0, 30.0, 16.0, 12.0], [44.0, 40.0, 10.0, 20.0], [20.5, 30.0, 16.0, 12.0]])
SCORES = torch.tensor([[0.1, 0.8], [0.6, 0.0], [0.0, 0.5]])
ANGLES = torch.tensor([[0.5], [1.0], [0.5]])


class Answer(nn.Module):
    """Gives the same rows for every image, as bright as it is."""

    def __init__(self, rows, transposed):
        super().__init__()
        self.register_buffer("rows", rows)
        self.transposed = transposed

    def forward(self, images):
        shine = images.mean((1, 2, 3))[:, None, None]
        rows = self.rows * torch.ones_like(shine)
        rows = torch.cat([rows[..., :4], rows[..., 4:6] * shine, rows[..., 6:]], -1)
        return rows.transpose(1, 2) if self.transposed else rows


def write(path, rows, transposed, free=True, **told):
    axes = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch"}} if free else None
    sample = (torch.rand(2 if free else 1, 3, SIDE, SIDE),)
    torch.onnx.export(
        Answer(rows, transposed).eval(), sample, str(path), dynamo=False, opset_version=17,
        input_names=["images"], output_names=["output0"], dynamic_axes=axes,
    )  # fmt: skip
    model = onnx.load(path)
    told = {"names": "{0: 'car', 1: 'bus'}", "task": "detect", "imgsz": "[64, 64]", "stride": "32"} | told
    onnx.helper.set_model_props(model, told)
    onnx.save(model, path)
    return path


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for n, shine in enumerate((255, 128)):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((SIDE * 2, SIDE * 2, 3), shine, np.uint8))
    return folder


@pytest.mark.parametrize("free", [True, False])
def test_places_are_suppressed_and_brought_home(tmp_path, images, free):
    path = write(tmp_path / "a.onnx", torch.cat([PLACES, SCORES], 1), True, free)
    found = boxwright.predict(images, path)
    assert found.categories["name"].to_list() == ["car", "bus"]
    bright = found.boxes.filter(found.boxes["image_id"] == 0).sort("score", descending=True)
    assert bright["category_id"].to_list()[:2] == [1, 0]
    np.testing.assert_allclose(bright["score"][:2], [0.8, 0.6], atol=1e-6)
    np.testing.assert_allclose(bright.select(*"xywh").to_numpy()[:2], [[24, 48, 32, 24], [78, 60, 20, 40]])
    assert len(bright) == 3  # the second class of the first place; the double of it is suppressed
    dark = found.boxes.filter(found.boxes["image_id"] == 1)
    assert dark["score"].max() == pytest.approx(0.8 * 128 / 255, abs=1e-5)


def test_detections_are_taken_as_they_are(tmp_path, images):
    corners = torch.cat([PLACES[:, :2] - PLACES[:, 2:] / 2, PLACES[:, :2] + PLACES[:, 2:] / 2], 1)
    rows = torch.cat([corners, SCORES.amax(1, keepdim=True), SCORES.argmax(1, keepdim=True).float()], 1)
    rows = rows[:1]  # a label would shine too
    path = write(tmp_path / "a.onnx", torch.cat([rows[:, :5], torch.zeros(1, 1)], 1), False)
    boxes = boxwright.predict(images, path).boxes
    assert boxes["category_id"].to_list() == [0, 0]
    np.testing.assert_allclose(boxes.select(*"xywh").to_numpy()[0], [24, 48, 32, 24])


@pytest.mark.parametrize("chosen", [True, False])
def test_oriented_boxes(tmp_path, images, chosen):
    scores = torch.tensor([[0.8, 0.0]])
    rows = torch.cat([PLACES[:1], scores, ANGLES[:1]], 1)  # class 0: both ways have the same numbers
    path = write(tmp_path / "a.onnx", rows, not chosen, task="obb", names="{0: 'car', 1: 'bus'}")
    boxes = boxwright.predict(images, path).boxes
    assert boxes["category_id"].to_list() == [0, 0]
    np.testing.assert_allclose(boxes["angle"].to_numpy() % np.pi, 0.5, atol=1e-6)
    np.testing.assert_allclose(boxes.select("w", "h").to_numpy(), [[32, 24]] * 2, rtol=1e-6)


def test_they_stand_in_the_benchmark(tmp_path, images):
    path = write(tmp_path / "a.onnx", torch.cat([PLACES, SCORES], 1), True)
    boxwright.predict(images, path, output=tmp_path / "truth.parquet")
    shown = run("benchmark", path, "--data", tmp_path / "truth.parquet", "--images", 2).stdout
    assert "a.onnx" in shown
    assert "file" in shown
    assert "knows of no images" in run("benchmark", path, check=2).stderr


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"task": "segment"}, "expected names of classes, task detect or obb"),
        ({"names": "__import__('os')"}, "is in the metadata"),
        ({"names": "{0: 'a', 1: 'b', 2: 'c'}"}, "expected 7 of each place or 6 of each detection"),
        ({"imgsz": "[0, 64]"}, "imgsz of 64 x 0 is in the metadata"),
    ],
)
def test_what_is_not_known_is_told(tmp_path, images, told, message):
    path = write(tmp_path / "a.onnx", torch.cat([PLACES, SCORES], 1), True, **told)
    with pytest.raises(CheckpointError, match=message):
        boxwright.predict(images, path)
