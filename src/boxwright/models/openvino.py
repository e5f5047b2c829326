"""Graphs as OpenVINO's files: an .xml of what is computed, and a .bin of weights beside it."""

import io
import json
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING

import numpy as np

from boxwright.errors import CheckpointError, import_extra
from boxwright.models.onnx import Run, Start

if TYPE_CHECKING:
    from openvino import Model

TOLD = ["boxwright", "told"]  # where metadata lie


def write_openvino(graph: bytes, path: Path, half: bool = False) -> None:
    """An ONNX graph with metadata as an .xml and a .bin.

    Args:
        graph: see `to_graph`.
        path: of the .xml.
        half: weights in float16, which takes half of the place.

    Raises:
        MissingExtraError: openvino isn't installed.
    """
    openvino = import_extra("openvino", "openvino")
    import onnx

    told = {prop.key: prop.value for prop in onnx.load_from_string(graph).metadata_props}
    model = openvino.Core().read_model(io.BytesIO(graph))
    model.set_rt_info(json.dumps(told), TOLD)
    openvino.save_model(model, path, compress_to_fp16=half)


def read_openvino(path: Path) -> tuple[dict[str, str], Start]:
    """The metadata of an .xml, none of a foreign one, and what runs it.

    Raises:
        MissingExtraError: openvino isn't installed.
        CheckpointError: the file, or the .bin beside it, can't be read.
    """
    openvino = import_extra("openvino", "openvino")
    try:
        model = openvino.Core().read_model(path)
        told = json.loads(model.get_rt_info(TOLD).astype(str)) if model.has_rt_info(TOLD) else {}
    except (RuntimeError, ValueError) as error:
        why = str(error).strip().splitlines()[-1:]
        raise CheckpointError(f"{path}: can't be read as OpenVINO's: {' '.join(why)}") from error
    return told, lambda threads: _start(model, threads)


def _start(model: "Model", threads: int) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    )
    names = [output.get_any_name() for output in compiled.outputs]
    own = local()  # a request runs one batch at a time

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        # Not `infer`, which gives something where a node fails, and tells nothing.
        own.request.start_async({"images": images}, share_inputs=True)
        own.request.wait()
        return {name: own.request.get_tensor(name).data.copy() for name in names}

    return run
