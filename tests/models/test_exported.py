"""Detectors as one graph from pixels to detections, in onnxruntime beside the original."""

import json
from dataclasses import replace

import onnx
import pytest
import torch
import torch.nn.functional as F

from boxwright.config import check_config
from boxwright.data.transforms import PAD_VALUE
from boxwright.errors import CheckpointError, ConfigError
from boxwright.models.checkpoint import LoadedDetector
from boxwright.models.detector import full_precision
from boxwright.models.exported import load_exported, load_program
from boxwright.models.exporting import to_graph, write_program
from boxwright.models.faster_rcnn import FasterRCNN
from boxwright.models.onnx import on_threads
from boxwright.models.openvino import write_openvino
from boxwright.models.quantizing import to_half
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


def beside(ours, theirs, near_by=1e-4, regions=False):
    """Each of the best detections of one has one of its class, score and place in the other.

    Of `regions`, proposals that overlap by just what suppression allows may stay in one of the two alone, so
    that a few detections differ.
    """
    assert abs(len(ours.scores) - len(theirs.scores)) <= 4 * regions
    assert regions or torch.allclose(ours.scores, theirs.scores, atol=near_by)
    found, count = 0, min(20, len(ours.scores) // 2)
    for n in range(count):
        near = (theirs.scores - ours.scores[n]).abs() < near_by
        near &= theirs.labels == ours.labels[n]
        found += bool(near.any()) and (theirs.boxes[near] - ours.boxes[n]).abs().amax(1).min().item() < 0.05
    assert found >= (0.7 if regions else 1) * count


def agree(model, graph, shapes, near_by=1e-4):
    """A graph finds what its detector finds in images of these shapes, which the graph pads itself."""
    for shape in shapes:
        pixels = image(*shape)
        width, height = model.padded((shape[3], shape[2]))
        padded = F.pad(pixels, (0, width - shape[3], 0, height - shape[2]), value=PAD_VALUE)
        sizes = torch.tensor([[float(shape[3]), float(shape[2])]] * shape[0])
        wanted = model.decode(full_precision(model(padded)), sizes)
        for ours, theirs in zip(graph.decode(graph(pixels), sizes), wanted):
            beside(ours, theirs, near_by, regions=isinstance(model, FasterRCNN))


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in [*NAMES, *LARGE]]
)
@torch.no_grad()
def test_a_graph_finds_what_the_detector_finds(name, tmp_path):
    model = restless(name)
    side = 320 if name in LARGE else 96
    (tmp_path / "a.onnx").write_bytes(to_graph(loaded(model), (side, side), model.selection))
    shapes = [(2, 3, side, side), (1, 3, side, side)]
    shapes += [] if name in LARGE else [(3, 3, 96, 160), (2, 3, 192, 128), (1, 3, 128, 320), (2, 3, 90, 101)]
    agree(model, load_exported(tmp_path / "a.onnx").model, shapes)


@pytest.mark.parametrize("name", [n for n in QUICK if n != "retinaface"])  # its scores lie too close
@torch.no_grad()
def test_openvino_finds_the_same(name, tmp_path):
    model = restless(name)
    write_openvino(to_graph(loaded(model), (96, 96), model.selection), tmp_path / "a.xml")
    graph = load_exported(tmp_path / "a.xml")
    assert graph.categories == ["bright", "dark"]
    agree(model, graph.model, [(2, 3, 96, 96), (1, 3, 128, 192), (2, 3, 90, 101)], 5e-4)


@pytest.mark.parametrize(
    "name", [n if n == "compact" else pytest.param(n, marks=pytest.mark.slow) for n in QUICK]
)
@torch.no_grad()
def test_a_program_finds_the_same(name, tmp_path):
    model = restless(name)
    write_program(loaded(model), (96, 96), model.selection, tmp_path / "a.pt2")
    graph = load_program(tmp_path / "a.pt2").model
    assert graph.size is None
    agree(model, graph, [(2, 3, 96, 96), (4, 3, 128, 192), (3, 3, 90, 101)])


@pytest.mark.parametrize("name", ["compact", "compact_obb-heading", "dfine"])
@torch.no_grad()
def test_candidates_that_are_suppressed_afterwards(name, tmp_path):
    model = restless(name)
    model.selection = replace(model.selection, vote=True, score_threshold=0.001)
    (tmp_path / "a.onnx").write_bytes(to_graph(loaded(model), (96, 96), model.selection, raw=True))
    graph = load_exported(tmp_path / "a.onnx").model
    given = graph(image(2, 3, 96, 96))["scores"]
    assert given.shape[1] == (model.selection.max_detections if name == "dfine" else 200)
    agree(model, graph, [(2, 3, 96, 96)])


@pytest.mark.parametrize("name", ["compact", "faster_rcnn", "dfine"])
@torch.no_grad()
def test_half_precision_takes_half_the_place(name, tmp_path):
    model = restless(name)
    whole = to_graph(loaded(model), (96, 96), model.selection)
    half = to_half(whole)
    assert len(half) < 0.65 * len(whole)
    (tmp_path / "a.onnx").write_bytes(half)
    graph, pixels = load_exported(tmp_path / "a.onnx").model, image(2, 3, 96, 96)
    wanted = model.decode(full_precision(model(pixels)), torch.tensor([[96.0, 96.0]] * 2))
    for ours, theirs in zip(wanted, graph.decode(graph(pixels), torch.tensor([[96.0, 96.0]] * 2))):
        best = min(10, len(ours.scores), len(theirs.scores))
        assert 0 < (ours.scores[:best] - theirs.scores[:best]).abs().max() < 0.02


@torch.no_grad()
def test_threads_have_images_of_their_own_where_they_can_be_shared_out(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(to_graph(loaded(restless("compact")), (64, 64), restless("compact").selection))
    model, images = load_exported(path).model, image(4, 3, 64, 64)
    with on_threads(1):
        expected = model(images)
    with on_threads(2):
        found = model(images)
    assert list(model.runs[2].sessions) == [1]
    for name, values in expected.items():
        assert torch.allclose(found[name].double(), values.double(), atol=1e-4), name


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
    model = restless("retinanet")
    model.selection = replace(model.selection, per_level=True)
    (tmp_path / "a.onnx").write_bytes(to_graph(loaded(model), (96, 96), model.selection))
    graph = load_exported(tmp_path / "a.onnx").model
    agree(model, graph, [(2, 3, 96, 96)])
    assert graph(image(1, 3, 64, 32))["boxes"].shape[0] == 1
    with pytest.raises(ConfigError, match="96 x 96 at most"):
        graph(image(1, 3, 64, 128))


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(CheckpointError, match="can't be read"):
        load_exported(path)
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(CheckpointError, match=r"can't be read|not a file"):
        load_exported(path)
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    side = onnx.helper.make_tensor_value_info("a", 1, [1])
    out = onnx.helper.make_tensor_value_info("b", 1, [1])
    foreign = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [side], [out]))
    path.write_bytes(foreign.SerializeToString())
    with pytest.raises(CheckpointError, match="not a file of boxwright export"):
        load_exported(path)
    onnx.helper.set_model_props(foreign, {"format": "boxwright-export-1", "config": "{}"})
    path.write_bytes(foreign.SerializeToString())
    with pytest.raises((CheckpointError, ConfigError)):
        load_exported(path)


@torch.no_grad()
def test_damaged_files_of_openvino_and_programs_of_others_are_refused(tmp_path):
    path, model = tmp_path / "a.xml", restless("compact")
    path.write_text("<net></net>")
    with pytest.raises(CheckpointError, match="can't be read as OpenVINO's"):
        load_exported(path)
    write_openvino(to_graph(loaded(model), (96, 96), model.selection), path)
    content = path.read_text()
    path.write_text(content.replace("boxwright-export-1", "another"))
    with pytest.raises(CheckpointError, match="not a file of boxwright export"):
        load_exported(path)
    path.write_text(content)
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.bin").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="can't be read as OpenVINO's"):
        load_exported(path)
    with pytest.raises(CheckpointError, match="can run code"):
        load_exported(tmp_path / "a.pt2")
