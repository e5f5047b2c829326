"""3 x 3 convolutions by Winograd's algorithm, beside torch's own."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from boxwright.config import check_config
from boxwright.models import build_detector
from boxwright.models.folding import fold_norms
from boxwright.models.onnx import OnnxDetector, open_session, to_onnx, trace
from boxwright.models.winograd import LEAST_CHANNELS, LEAST_SIDE, MANY_CHANNELS, WinogradConv, with_winograd
from tests.models.test_detectors import BACKBONE


@torch.no_grad()
@pytest.mark.parametrize(
    ("height", "width", "count", "bias"), [(16, 16, 1, True), (17, 34, 2, True), (31, 16, 3, False)]
)
def test_it_is_a_convolution(height, width, count, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(LEAST_CHANNELS, 128, 3, padding=1, bias=bias).double()
    faster = WinogradConv(conv)
    images = torch.randn(count, LEAST_CHANNELS, height, width, dtype=torch.float64)
    torch.testing.assert_close(faster(images), conv(images), rtol=1e-9, atol=1e-9)
    wanted = conv.float()(images.float())
    assert (WinogradConv(conv)(images.float()) - wanted).abs().max() < 3e-5 * wanted.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(("side", "channels"), [(LEAST_SIDE, LEAST_CHANNELS), (82, MANY_CHANNELS - 2)])
def test_maps_on_which_it_would_not_pay_are_convolved_as_usual(side, channels):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    # The same weights for two maps, of which one is too small, or too large for so few channels.
    model = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), conv, nn.MaxPool2d(2), conv)
    images = torch.randn(3, 3, side, side + 3)
    graph = trace(with_winograd(model), images, ["maps"], {"images": {0: "batch"}, "maps": {0: "batch"}})
    kinds = [node.op_type for node in onnx.load_from_string(graph).graph.node]
    assert kinds.count("Conv") == 2
    assert kinds.count("Gather") == 1
    for part in (images, images[:1], torch.cat([images, images])):
        (found,) = open_session(graph, 1).run(None, {"images": part.numpy()})
        np.testing.assert_allclose(found, model(part).numpy(), atol=1e-4)


@torch.no_grad()
def test_a_detector_finds_the_same():
    torch.manual_seed(0)
    source = {"root": "nowhere"}
    neck = {"name": "fpn", "channels": LEAST_CHANNELS}
    model = {"name": "fcos", "backbone": BACKBONE, "neck": neck, "head_depth": 1}
    config = check_config({"data": {"train": source, "val": source}, "model": model}, "test")
    detector = fold_norms(build_detector(config.model, 3))
    images = torch.randint(0, 255, (2, 3, 192, 160), dtype=torch.uint8)
    graph = onnx.load_from_string(to_onnx(detector, images)).graph
    assert [36, 36] in [list(weight.dims) for weight in graph.initializer]
    found = OnnxDetector(detector)(images)
    for name, wanted in detector(images).items():
        assert (found[name] - wanted).abs().max() <= 1e-4 * wanted.abs().max(), name


@pytest.mark.parametrize(
    "other",
    [
        {"kernel_size": 1, "padding": 0},
        {"kernel_size": 5},
        {"padding": 0},
        {"padding": "same"},
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"padding_mode": "reflect"},
        {"in_channels": LEAST_CHANNELS - 2},
        {"out_channels": LEAST_CHANNELS - 2},
    ],
)
def test_other_convolutions_stay(other):
    plain = {"in_channels": LEAST_CHANNELS, "out_channels": LEAST_CHANNELS, "kernel_size": 3, "padding": 1}
    model = nn.ModuleList([nn.Conv2d(**plain), nn.Conv2d(**(plain | other))])
    faster = with_winograd(model)
    assert [type(conv) for conv in faster] == [WinogradConv, nn.Conv2d]
    assert [type(conv) for conv in model] == [nn.Conv2d, nn.Conv2d]
    assert all(a.weight is b.weight and a.bias is b.bias for a, b in zip(model, faster, strict=True))
