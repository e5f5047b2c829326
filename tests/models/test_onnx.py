"""Every detector as an ONNX file, run by onnxruntime."""

from concurrent.futures import ThreadPoolExecutor
from mmap import PAGESIZE
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import timm
import torch

from boxwright.models.folding import fold_norms
from boxwright.models.onnx import KEPT, Graph, OnnxDetector, on_threads, open_session, trace
from tests.models.test_detectors import CONFIGS, LARGE, make

STATM = Path("/proc/self/statm")
NAMES = [
    n for n in CONFIGS if n not in ("yolox-ota", "retinanet-prime", "retinanet-ohem")
]  # trained otherwise


@pytest.mark.parametrize("name", [*NAMES, *LARGE])
def test_onnxruntime_agrees_on_raw_outputs(name):
    model = make(name).eval()
    graph = OnnxDetector(model)
    side = 320 if name in LARGE else 64
    for count in (5, 1):  # more and fewer than the graph was made with
        shape = (count, 3, side, side)
        images = torch.randint(0, 255, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        with torch.no_grad():
            expected, found = model(images), graph(images)
        assert list(found) == list(expected)
        assert len(graph.graphs) == 1
        for key, wanted in expected.items():
            assert found[key].shape == wanted.shape
            assert found[key].dtype == wanted.dtype
            gap = (found[key].double() - wanted.double()).abs().max()
            assert gap <= 1e-3 * max(1.0, wanted.double().abs().max()), key
    assert not model.training


@torch.no_grad()
def test_graphs_are_kept_for_the_shapes_met_lately():
    graph = OnnxDetector(make("compact").eval())
    for n in range(KEPT + 2):
        assert graph(torch.zeros(1, 3, 32, 32 * (n + 1)))["points"].max() < 32 * (n + 1)
    threads = torch.get_num_threads()
    assert list(graph.graphs) == [(32, 32 * (n + 1), threads) for n in range(2, KEPT + 2)]


@torch.no_grad()
@pytest.mark.parametrize("name", ["compact", "faster_rcnn", "dfine"])
def test_threads_have_images_of_their_own_where_they_can_be_shared_out(name):
    model = make(name).eval()
    graph = OnnxDetector(model)
    images = torch.randint(0, 255, (5, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    for threads, count, own in ((2, 4, 1), (2, 5, 2), (3, 3, 1), (3, 4, 3)):
        with on_threads(threads):
            expected, found = model(images[:count]), graph(images[:count])
        assert own in graph.graphs[64, 64, threads].sessions
        assert list(found) == list(expected)
        for key, wanted in expected.items():
            assert found[key].shape == wanted.shape
            gap = (found[key].double() - wanted.double()).abs().max()
            assert gap <= 1e-3 * max(1.0, wanted.double().abs().max()), key
    assert set(graph.graphs[64, 64, 2].sessions) == {1, 2}


def test_batches_that_are_under_way_together_do_not_wait_for_threads(monkeypatch):
    together = Barrier(4)

    class Session:
        def get_outputs(self):
            return [SimpleNamespace(name="boxes", shape=["batch", 4])]

        def get_inputs(self):
            return [SimpleNamespace(name="images", shape=["batch", 3])]

        def run(self, names, given):
            together.wait(timeout=60)
            return [given["images"]]

    monkeypatch.setattr("boxwright.models.onnx.open_session", lambda graph, threads: Session())
    graph, images = Graph(lambda: b"", 2), np.arange(8.0).reshape(4, 2)
    with ThreadPoolExecutor(2) as callers:
        for found in callers.map(graph, [images, images]):
            assert np.array_equal(found["boxes"], images)


@torch.no_grad()
def test_boxes_are_chosen_on_one_thread_and_torch_has_its_threads_back(monkeypatch):
    graph, seen = OnnxDetector(make("compact").eval()), []
    outputs = graph(torch.zeros(1, 3, 64, 64))

    def noting(outputs, image_sizes):
        seen.append(torch.get_num_threads())
        raise InterruptedError

    monkeypatch.setattr(graph.model, "scored", noting)
    with on_threads(2):
        with pytest.raises(InterruptedError):
            graph.decode(outputs, torch.tensor([[64.0, 64.0]]))
        assert seen == [1]
        assert torch.get_num_threads() == 2


@torch.no_grad()
@pytest.mark.skipif(not STATM.exists(), reason="Linux tells a process's memory there")
def test_sessions_compute_in_the_same_memory():
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 1), torch.nn.Tanh(), torch.nn.Conv2d(64, 1, 1))
    images = torch.rand(1, 3, 512, 512)  # whose maps of 64 channels take 67 MB
    graph, resident, opened = trace(body, images, ["maps"], {}), [], []
    for _ in range(6):
        opened.append(open_session(graph, 1))
        opened[-1].run(None, {"images": images.numpy()})
        resident.append(int(STATM.read_text().split()[1]) * PAGESIZE)
    assert resident[-1] - resident[0] < 6e7


class _Tuple(torch.nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, images):
        return tuple(self.body(images))


@torch.no_grad()
@pytest.mark.parametrize(("shift", "copies"), [(0.3, 0), (-0.3, 1)])
def test_an_hgnets_stem_is_timms_own_where_its_windows_reach_beyond_the_border(shift, copies):
    torch.manual_seed(0)
    body = timm.create_model("hgnetv2_b0", features_only=True, out_indices=(0, 3)).eval()
    body.stem.stem1.lab.bias.fill_(shift)  # below zero, a border of zeros is more than what a window holds
    body.stem.stem1.bn.bias.fill_(-0.5)  # so that many are cut at zero
    images = torch.rand(3, 3, 64, 96)
    graph = trace(_Tuple(fold_norms(fold_norms(body))), images, ["low", "high"], {"images": {0: "batch"}})
    kinds = [node.op_type for node in onnx.load_from_string(graph).graph.node]
    assert kinds.count("Pad") == copies
    found = open_session(graph, 1).run(None, {"images": images.numpy()})
    for ours, theirs in zip(found, body(images), strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_convolutions_of_an_hgnet_take_in_its_affine_blocks():
    torch.manual_seed(0)
    body = timm.create_model("hgnetv2_b0", features_only=True, out_indices=(0, 3)).eval()
    blocks = [m for m in body.modules() if type(m).__name__ == "LearnableAffineBlock"]
    for n, block in enumerate(blocks):
        block.scale.fill_(-1.2 if n % 3 == 1 else 0.8)
        block.bias.normal_(0, 0.2)
    for norm in (m for m in body.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.bias.normal_(0, 0.5)  # so that ReLUs cut some
    images = torch.rand(2, 3, 64, 96)
    folded = fold_norms(body)
    graph = trace(_Tuple(folded), images, ["low", "high"], {"images": {0: "batch"}})
    kinds = [node.op_type for node in onnx.load_from_string(graph).graph.node]
    assert blocks
    assert "Mul" not in kinds
    assert kinds.count("Add") == sum(getattr(m, "residual", False) for m in body.modules())
    found = open_session(graph, 1).run(None, {"images": images.numpy()})
    for ours, exported, theirs in zip(folded(images), found, body(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(torch.from_numpy(exported), theirs, rtol=1e-3, atol=1e-4)
