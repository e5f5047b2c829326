"""ONNX graphs in fewer bits: convolutions in eight, with ranges from images, or the network in float16."""

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

# What is computed in float16 inside of modules; the rest, and all decoding, stays in float32.
HALF = (
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish"}
    | {"Clip", "Add", "Mul", "Concat", "Split", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize"}
)  # fmt: skip
NETWORK = re.compile(r"/model/[^/]+/")  # names of its nodes


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
            op_types_to_quantize=["Conv", "Sigmoid", "Mul"],
            nodes_to_quantize=_quantized(onnx.load(ready)),
        )
        model = onnx.load(small)
    onnx.helper.set_model_props(model, told)
    return model.SerializeToString()


def _quantized(model) -> list[str]:
    """Names of convolutions, and of the two nodes of each SiLU, so that what lies between two convolutions
    stays in eight bits.
    """
    nodes = model.graph.node
    sigmoid = {node.output[0]: node for node in nodes if node.op_type == "Sigmoid"}
    names = [node.name for node in nodes if node.op_type == "Conv"]
    for node in nodes:
        gate = next((sigmoid[name] for name in node.input if name in sigmoid), None)
        if node.op_type == "Mul" and gate is not None and gate.input[0] in node.input:
            names += [gate.name, node.name]
    return names


def to_half(graph: bytes) -> bytes:
    """The graph with its network's weights and most of what flows there in float16, for runtimes that compute
    so; input, decoding and output stay as they are.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load_from_string(graph)
    told = {prop.key: prop.value for prop in model.metadata_props}
    kept = [
        node.name
        for node in model.graph.node
        if node.op_type != "Identity" and (node.op_type not in HALF or not NETWORK.match(node.name))
    ]
    half = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept, op_block_list=[])
    # A tensor that several nodes want in float32 is cast for each, to one name, at the end of the graph.
    casts = {node.output[0]: node for node in half.graph.node if node.op_type == "Cast"}
    whole = [n for n in half.graph.node if n.op_type != "Cast" or casts[n.output[0]] is n]
    del half.graph.node[:]
    half.graph.node.extend(whole)
    OnnxModel.graph_topological_sort(half.graph)
    onnx.checker.check_model(half)
    onnx.helper.set_model_props(half, told)
    return half.SerializeToString()
