"""Every detector as an ONNX file, run by onnxruntime."""

import pytest
import torch

from boxwright.models.onnx import KEPT, OnnxDetector
from tests.models.test_detectors import CONFIGS, LARGE, make

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
        assert len(graph.sessions) == 1
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
    assert list(graph.sessions) == [(32, 32 * (n + 1), threads) for n in range(2, KEPT + 2)]
