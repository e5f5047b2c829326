"""Every detector as an ONNX file, run by onnxruntime."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from tests.models.test_detectors import CONFIGS, LARGE, make

NAMES = [
    n for n in CONFIGS if n not in ("yolox-ota", "retinanet-prime", "retinanet-ohem")
]  # trained otherwise


class Raw(torch.nn.Module):
    """A detector whose outputs are a tuple, which ONNX wants."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return tuple(self.model(images).values())


@pytest.mark.parametrize("name", [*NAMES, *LARGE])
def test_onnxruntime_agrees_on_raw_outputs(name, tmp_path):
    model = make(name).eval()
    side = 320 if name in LARGE else 64
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected = model(images)
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Raw(model), (images,), str(path), input_names=["images"], output_names=list(expected),
            dynamo=False, opset_version=19,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    found = session.run(None, {"images": images.numpy()})
    assert "cls_logits" in names
    for key, value in zip(names, found):
        wanted = expected[key].numpy()
        assert value.shape == wanted.shape
        assert np.abs(value - wanted).max() <= 1e-3 * max(1.0, np.abs(wanted).max()), key
