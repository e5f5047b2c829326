"""Convolutions of an ONNX graph in eight bits, with ranges from images."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np


def quantize(graph: bytes, batches: Iterator[np.ndarray]) -> bytes:
    """The graph with weights of convolutions in int8, channel by channel, and what flows into them in uint8.

    Static quantisation of onnxruntime: a scale of every such tensor is the range that it has on the batches.
    All else, decoding above all, stays in float32.

    Args:
        graph: with an input `images`.
        batches: (B, 3, H, W) uint8 of images like those it will see.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def get_next(self):
            batch = next(batches, None)
            return None if batch is None else {"images": batch}

    told = {prop.key: prop.value for prop in onnx.load_from_string(graph).metadata_props}
    with TemporaryDirectory() as folder:
        whole, ready, small = (Path(folder) / f"{name}.onnx" for name in ("whole", "ready", "small"))
        whole.write_bytes(graph)
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            small,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["Conv"],
        )
        model = onnx.load(small)
    onnx.helper.set_model_props(model, told)
    return model.SerializeToString()
