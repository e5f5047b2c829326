"""A detector as one ONNX graph, from pixels to detections, and a file of it that knows what it is."""

import json
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.config import check_config
from boxwright.data.targets import Targets
from boxwright.data.transforms import PAD_VALUE
from boxwright.errors import CheckpointError, ConfigError
from boxwright.evaluation.operating import Operating
from boxwright.models.checkpoint import LoadedDetector
from boxwright.models.detections import Detections, Scored, Selection
from boxwright.models.detector import Detector, full_precision
from boxwright.models.digest import state_digest
from boxwright.models.onnx import need_onnx, open_session, trace
from boxwright.models.padded import select_padded

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT = "boxwright-onnx-1"
INPUT = (
    "images: uint8 RGB (batch, 3, height, width), fitted into image_size at the top left, padded with 114 to"
    " multiples of stride; boxes: pixels of this input, xyxy or cx, cy, w, h, angle; scores: 0 where there is"
    " no detection"
)


class WholeDetector(nn.Module):
    """From images (B, 3, H, W) to boxes (B, K, 4 or 5), scores (B, K), labels (B, K), and landmarks (B, K,
    LANDMARKS, 2) where they are found.
    """

    def __init__(self, model: Detector, selection: Selection):
        super().__init__()
        self.model, self.selection = model, selection

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        shape = torch._shape_as_tensor(images)
        sizes = shape[[3, 2]].float().expand(images.shape[0], 2)
        outputs = full_precision(self.model(images.float()))
        found = select_padded(self.model.scored(outputs, sizes), self.selection)
        landmarks = () if found.landmarks is None else (found.landmarks,)
        return found.boxes, found.scores, found.labels, *landmarks


@torch.no_grad()
def to_graph(loaded: LoadedDetector, size: tuple[int, int], selection: Selection) -> bytes:
    """The graph of a detector in eval mode, on the processor; what a program should know is in its metadata.

    Args:
        loaded: the detector and what it was trained on.
        size: (width, height) that images are fitted into; others can be given to it too, where the detector
            has a `graph_of_any_size` and takes its candidates from all levels together.
        selection: thresholds and limits.

    Raises:
        ConfigError: onnx isn't installed.
    """
    need_onnx()
    import onnx

    model = loaded.model
    width, height = model.padded(size)
    any_size = model.graph_of_any_size and not selection.per_level
    names = ["boxes", "scores", "labels"] + ["landmarks"] * model.finds_landmarks
    sides = {2: "height", 3: "width"} if any_size else {}
    axes = {"images": {0: "batch"} | sides} | {name: {0: "batch"} for name in names}
    images = torch.randint(0, 255, (3, 3, height, width), dtype=torch.uint8)
    graph = onnx.load_from_string(trace(WholeDetector(model, selection), images, names, axes))
    told = {
        "format": FORMAT,
        "config": loaded.config.model_dump_json(),
        "categories": json.dumps(loaded.categories, ensure_ascii=False),
        "statistics": json.dumps(loaded.statistics),
        "operating": json.dumps(loaded.operating.to_dict(), ensure_ascii=False),
        "input": INPUT,
        "image_size": json.dumps(size),
        "size": json.dumps(None if any_size else [width, height]),
        "stride": json.dumps(model.stride),
        "least_side": json.dumps(model.least_side),
        "oriented": json.dumps(model.oriented),
        "landmarks": json.dumps(model.finds_landmarks),
        "max_detections": json.dumps(selection.max_detections),
        "digest": state_digest(dict(model.state_dict())),
    }
    onnx.helper.set_model_props(graph, told)
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


class ExportedDetector(Detector):
    """A graph of `to_graph`, run by onnxruntime on the processor; it finds, and learns nothing.

    Args:
        graph: the file's content.
        told: its metadata.
    """

    def __init__(self, graph: bytes, told: dict[str, Any]):
        super().__init__()
        self.graph, self.size = graph, told["size"]
        self.stride, self.least_side = told["stride"], told["least_side"]
        self.oriented, self.finds_landmarks = told["oriented"], told["landmarks"]
        self.selection = Selection(score_threshold=0.0, max_detections=told["max_detections"])
        self.sessions: dict[int, InferenceSession] = {}
        self.lock = Lock()

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to what the graph gives, by name.

        Raises:
            ConfigError: they are larger than the graph takes.
        """
        threads = torch.get_num_threads()
        with self.lock:
            if threads not in self.sessions:
                self.sessions[threads] = open_session(self.graph, threads)
            session = self.sessions[threads]
        if self.size is not None:
            (width, height), (h, w) = self.size, images.shape[-2:]
            if w > width or h > height:
                raise ConfigError(f"images of {w} x {h}, but this graph takes {width} x {height} at most.")
            images = F.pad(images, (0, width - w, 0, height - h), value=PAD_VALUE)
        found = session.run(None, {"images": images.round().to(torch.uint8).contiguous().numpy()})
        return {o.name: torch.from_numpy(value) for o, value in zip(session.get_outputs(), found)}

    def decode(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> list[Detections]:
        """What lies in the images' content, (B, 2) width and height."""
        limit = image_sizes[:, None]
        boxes, there = outputs["boxes"], outputs["scores"] > self.selection.score_threshold
        if self.oriented:
            there &= ((boxes[..., :2] >= 0) & (boxes[..., :2] <= limit)).all(-1)
        else:
            boxes = torch.minimum(boxes.clamp(min=0), limit.repeat(1, 1, 2))
            there &= (boxes[..., 2:] > boxes[..., :2]).all(-1)
        landmarks = outputs.get("landmarks")
        return [
            Detections(
                boxes[n][rows],
                outputs["scores"][n][rows],
                outputs["labels"][n][rows],
                None if landmarks is None else landmarks[n][rows],
            )[: self.selection.max_detections]
            for n, rows in enumerate(there)
        ]

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """None: they were chosen already."""
        raise ConfigError("an exported graph gives detections, not the scores of all places.")

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """None."""
        raise ConfigError("an exported graph can't be trained.")

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """None."""
        raise ConfigError("an exported graph can't be trained.")


def load_exported(path: Path) -> LoadedDetector:
    """Open a file of `boxwright export`.

    Raises:
        ConfigError: onnx isn't installed.
        CheckpointError: it can't be read, or wasn't made by boxwright.
    """
    need_onnx()
    import onnx
    from google.protobuf.message import DecodeError

    try:
        content = path.read_bytes()
        told = {prop.key: prop.value for prop in onnx.load_from_string(content).metadata_props}
    except (OSError, DecodeError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read as ONNX: {error}.") from error
    if told.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not an ONNX file of boxwright export ({FORMAT}).")
    try:
        config = check_config(json.loads(told["config"]), str(path))
        held = {n: json.loads(told[n]) for n in told if n not in ("format", "config", "input", "digest")}
        model = ExportedDetector(content, held)
        operating = Operating.from_dict(held["operating"])
        categories = [str(name) for name in held["categories"]]
        statistics = {name: float(value) for name, value in held["statistics"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its metadata is damaged: {error}.") from error
    return LoadedDetector(model.eval(), config, categories, statistics, operating)
