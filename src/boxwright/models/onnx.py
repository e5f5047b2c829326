"""A detector whose network onnxruntime computes, on the processor: the same outputs in less time."""

import io
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.data.targets import Targets
from boxwright.errors import CheckpointError, import_extra
from boxwright.models.detections import Detections, Scored
from boxwright.models.detector import Detector
from boxwright.models.shapes import exporting
from boxwright.models.winograd import with_winograd

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Run = Callable[[np.ndarray], dict[str, np.ndarray]]  # images to what a graph gives, by name
Start = Callable[[int], Run]  # on so many threads

OPSET = 19
TRACING = Lock()  # the exporter's state is the process's
MOST_THREADS = 1024  # of a graph, started as they are needed: several batches may be under way
KEPT = 8  # graphs, one for each height, width and number of threads that was met lately


class OnnxDetector(Detector):
    """What another detector is, but for `forward`, which has no gradients.

    Points and anchors are part of a graph, so that each height and width of images has its own; making one
    takes a second, or several.

    Args:
        model: in eval mode, on the CPU; it is exported as it stands, and belongs to this one from now on.

    Raises:
        MissingExtraError: onnx and onnxruntime aren't installed.
    """

    def __init__(self, model: Detector):
        super().__init__()
        need_onnx()
        self.model = model
        self.selection = model.selection
        self.stride, self.least_side, self.oriented = model.stride, model.least_side, model.oriented
        self.finds_landmarks, self.finds_headings = model.finds_landmarks, model.finds_headings
        self.follows_predictions = model.follows_predictions
        self.graphs: OrderedDict[tuple[int, ...], Graph] = OrderedDict()
        self.lock = Lock()

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """As the detector's own."""
        threads = torch.get_num_threads()
        key = (*images.shape[2:], threads)
        with self.lock:
            if key not in self.graphs:
                # Three at once, so that no output's number of priors passes for a batch.
                example = images.new_zeros(1).expand(3, *images.shape[1:])
                self.graphs[key] = Graph(partial(to_onnx, self.model, example), threads)
            self.graphs.move_to_end(key)
            if len(self.graphs) > KEPT:
                self.graphs.popitem(last=False)
            graph = self.graphs[key]
        with on_threads(1):
            pixels = images.contiguous().numpy()
        return {name: torch.from_numpy(value) for name, value in graph(pixels).items()}

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """As the detector's own."""
        return self.model.assign(outputs, targets)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """As the detector's own."""
        return self.model.loss(outputs, targets)

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """As the detector's own."""
        return self.model.scored(outputs, image_sizes)

    def decode(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> list[Detections]:
        """As the detector's own."""
        with on_threads(1):
            return super().decode(outputs, image_sizes)


class _Named(nn.Module):
    """A detector whose outputs are a tuple, which a graph wants."""

    def __init__(self, model: Detector):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(images).values())


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Let torch work on so many threads of the processor meanwhile.

    On one beside onnxruntime: torch's others wait in a loop for what comes next, for milliseconds, on the
    very cores that it then wants.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def to_onnx(model: Detector, images: Tensor) -> bytes:
    """The graph of a detector in eval mode, for images (B, 3, H, W) of any number, and of this type, height
    and width; its outputs have the names that `forward` gives them. Wide convolutions are `winograd`'s.
    """
    outputs = model(images)
    batched = {n: {0: "batch"} for n, t in outputs.items() if len(t) == len(images)}
    return trace(_Named(with_winograd(model)), images, list(outputs), {"images": {0: "batch"}} | batched)


def need_onnx() -> None:
    """See that onnx, which the exporter needs, and onnxruntime are there.

    Raises:
        MissingExtraError: they aren't.
    """
    for module in ("onnx", "onnxruntime"):
        import_extra(module, "onnx")


def trace(module: nn.Module, images: Tensor, names: list[str], axes: dict[str, dict[int, str]]) -> bytes:
    """The graph of a module of `images`, with outputs of these names, and axes of any size by name."""
    target = io.BytesIO()
    with TRACING, exporting(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that shapes become constants, as they are meant to
        torch.onnx.export(
            module.eval(), (images,), cast(Any, target), dynamo=False, opset_version=OPSET,
            input_names=["images"], output_names=names, dynamic_axes=axes,
        )  # fmt: skip
    return target.getvalue()


def read_graph(path: Path) -> tuple[dict[str, str], Start]:
    """The metadata of an .onnx file, none of a foreign one, and what runs it.

    Raises:
        MissingExtraError: onnx isn't installed.
        CheckpointError: it can't be read.
    """
    need_onnx()
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = path.read_bytes()
        told = {prop.key: prop.value for prop in onnx.load_from_string(graph).metadata_props}
    except (OSError, DecodeError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read as ONNX: {error}.") from error
    return told, lambda threads: Graph(lambda: graph, threads)


class Graph:
    """What onnxruntime gives of images (B, 3, H, W), by name.

    Where every thread can have equally many images it computes them alone: threads that share each layer wait
    for each other after it. Otherwise they share.

    Args:
        make: gives the graph of `images`, in which outputs with a row for each have an axis of the same name.
            It is called again where batches of both kinds come: to keep a graph takes as much as its weights.
        threads: of the processor.
    """

    def __init__(self, make: Callable[[], bytes], threads: int):
        self.make, self.threads = make, threads
        self.sessions: dict[int, InferenceSession] = {}
        self.pool, self.lock = ThreadPoolExecutor(MOST_THREADS), Lock()

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        parts = 1 if len(images) % self.threads else self.threads
        session = self._open(self.threads // parts)

        def run(part: np.ndarray) -> list[np.ndarray]:
            return cast(list, session.run(None, {"images": part}))

        outputs, batch = session.get_outputs(), session.get_inputs()[0].shape[:1]
        if parts == 1:
            return {output.name: value for output, value in zip(outputs, run(images))}
        found = zip(*self.pool.map(run, np.split(images, parts)))
        return {
            output.name: np.concatenate(values) if output.shape[:1] == batch else values[0]
            for output, values in zip(outputs, found)
        }

    def _open(self, threads: int) -> "InferenceSession":
        with self.lock:
            if threads not in self.sessions:
                self.sessions[threads] = open_session(self.make(), threads)
            return self.sessions[threads]


def open_session(graph: bytes, threads: int) -> "InferenceSession":
    """onnxruntime on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would go on to wait for work in a loop, on the very cores that decoding is done on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.use_env_allocators", "1")
    _share_memory()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@cache
def _share_memory() -> None:
    """Let all sessions compute in the same memory: each would keep as much as it ever took."""
    import onnxruntime as ort

    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT), None)
