"""Detectors as one graph from pixels to detections, in onnxruntime beside the original."""

import json
from dataclasses import replace

import onnx
import pytest
import torch

from boxwright.config import check_config
from boxwright.errors import CheckpointError, ConfigError
from boxwright.models.checkpoint import LoadedDetector
from boxwright.models.detector import full_precision
from boxwright.models.exported import load_exported, to_graph
from tests.models.test_detectors import CONFIGS, LARGE, make

QUICK = ("compact", "compact_obb-heading", "faster_rcnn", "dfine", "retinaface", "yolov3")
# Trained otherwise; and one whose random classes are alike to the last bit.
NAMES = [n for n in CONFIGS if n not in ("yolox-ota", "retinanet-prime", "retinanet-ohem", "yolox-nano")]


def restless(name):
    """A detector of random weights, whose scores differ from place to place: of equals any may come first."""
    torch.manual_seed(0)
    model = make(name).eval()
    own = model.scored

    def scored(outputs, sizes):
        found = own(outputs, sizes)
        places = torch.arange(found.scores.shape[1] * found.scores.shape[2])
        share = (places * 7919 % 10007).float().view(found.scores.shape[1:]) / 10007
        return replace(found, scores=found.scores * (1 - share / 2))

    model.scored = scored
    # Boxes of one size lie whole cells apart: no such pair overlaps by just this much.
    small = {"score_threshold": 0.0, "max_detections": 40, "candidates": 200, "iou_threshold": 0.5371}
    model.selection = replace(model.selection, **small)
    return model


def loaded(model):
    data = {"root": "nowhere.json"}
    config = check_config({"data": {"train": data, "val": data}, "model": {"name": "compact"}}, "test")
    return LoadedDetector(model, config, ["bright", "dark"], {"scale": 0.5})


def image(*shape, seed=0):
    make_random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 255, (*shape[:2], 8, 8), generator=make_random).float()
    return torch.nn.functional.interpolate(coarse, shape[2:], mode="bicubic").clamp(0, 255).round()


def beside(ours, theirs):
    """Each of the best detections of one has one of its class, score and place in the other."""
    assert len(ours.scores) == len(theirs.scores)
    assert torch.allclose(ours.scores, theirs.scores, atol=1e-4)
    for n in range(min(20, len(ours.scores) // 2)):
        near = (theirs.scores - ours.scores[n]).abs() < 1e-4
        near &= theirs.labels == ours.labels[n]
        assert near.any()
        assert (theirs.boxes[near] - ours.boxes[n]).abs().amax(1).min() < 0.05


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in [*NAMES, *LARGE]]
)
@torch.no_grad()
def test_a_graph_finds_what_the_detector_finds(name, tmp_path):
    model = restless(name)
    side = 320 if name in LARGE else 96
    (tmp_path / "a.onnx").write_bytes(to_graph(loaded(model), (side, side), model.selection))
    graph = load_exported(tmp_path / "a.onnx").model
    shapes = [(2, 3, side, side), (1, 3, side, side)]
    shapes += [(3, 3, side // 3, side * 2 // 3)] if side == 96 else []
    shapes += [] if graph.size is not None or name in LARGE else [(2, 3, 128, 192)]
    for shape in shapes:
        pixels = image(*shape)
        sizes = torch.tensor([[float(shape[3]), float(shape[2])]] * shape[0])
        if graph.size is not None:  # the original sees the padding too
            whole = torch.full((shape[0], 3, side, side), 114.0)
            whole[..., : shape[2], : shape[3]] = pixels
            if shape[2] < side:
                continue  # what lies in the padding is found there, and cut only afterwards
            pixels = whole
        wanted = model.decode(full_precision(model(pixels)), sizes)
        found = graph.decode(graph(pixels), sizes)
        for ours, theirs in zip(found, wanted):
            beside(ours, theirs)


@torch.no_grad()
def test_a_file_knows_what_it_is_and_cuts_what_lies_in_the_padding(tmp_path):
    model = restless("compact")
    content = to_graph(loaded(model), (90, 60), model.selection)
    (tmp_path / "a.onnx").write_bytes(content)
    again = load_exported(tmp_path / "a.onnx")
    assert again.categories == ["bright", "dark"]
    assert again.statistics == {"scale": 0.5}
    assert again.model.selection.max_detections == 40
    told = {p.key: p.value for p in onnx.load_from_string(content).metadata_props}
    assert json.loads(told["image_size"]) == [90, 60]
    assert "padded with 114" in told["input"]
    found = again.model.decode(again.model(image(2, 3, 64, 96)), torch.tensor([[90.0, 60.0], [30.0, 20.0]]))
    assert found[0].boxes[:, 2].max() <= 90
    assert found[1].boxes[:, 3].max() <= 20
    assert (found[1].boxes[:, 2:] > found[1].boxes[:, :2]).all()


@torch.no_grad()
def test_sizes_that_a_fixed_graph_takes(tmp_path):
    model = restless("dfine")
    (tmp_path / "a.onnx").write_bytes(to_graph(loaded(model), (96, 96), model.selection))
    graph = load_exported(tmp_path / "a.onnx").model
    assert graph(image(1, 3, 64, 32))["boxes"].shape[0] == 1
    with pytest.raises(ConfigError, match="96 x 96 at most"):
        graph(image(1, 3, 64, 128))


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(CheckpointError, match="can't be read"):
        load_exported(path)
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(CheckpointError, match=r"can't be read|not an ONNX file"):
        load_exported(path)
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    side = onnx.helper.make_tensor_value_info("a", 1, [1])
    out = onnx.helper.make_tensor_value_info("b", 1, [1])
    foreign = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [side], [out]))
    path.write_bytes(foreign.SerializeToString())
    with pytest.raises(CheckpointError, match="not an ONNX file of boxwright export"):
        load_exported(path)
    onnx.helper.set_model_props(foreign, {"format": "boxwright-onnx-1", "config": "{}"})
    path.write_bytes(foreign.SerializeToString())
    with pytest.raises((CheckpointError, ConfigError)):
        load_exported(path)
