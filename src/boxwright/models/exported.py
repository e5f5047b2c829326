"""A detector from a file that `boxwright export` has written."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.assign import Assignment
from boxwright.config import check_config
from boxwright.data.targets import Targets
from boxwright.data.transforms import PAD_VALUE
from boxwright.errors import CheckpointError, ConfigError
from boxwright.evaluation.operating import Operating
from boxwright.models.checkpoint import LoadedDetector
from boxwright.models.detections import Detections, Scored, Selection, choose
from boxwright.models.detector import Detector
from boxwright.models.exporting import FORMAT, TOLD
from boxwright.models.onnx import Run, read_graph
from boxwright.models.openvino import read_openvino

READERS = {".onnx": read_graph, ".xml": read_openvino}
TEXTS = ("format", "config", "input", "digest")  # of the metadata; all else is JSON


class ExportedDetector(Detector):
    """A graph from pixels to detections, run on the processor; it finds, and learns nothing.

    Args:
        start: makes of a number of threads what runs the graph.
        told: its metadata.
    """

    def __init__(self, start: Callable[[int], Run], told: dict[str, Any]):
        super().__init__()
        self.start, self.size = start, told["size"]
        self.stride, self.least_side = told["stride"], told["least_side"]
        self.pads = told.get("pads", False)  # files of version 0.1 and of others don't
        self.oriented, self.finds_landmarks = told["oriented"], told["landmarks"]
        self.finds_headings = told["headings"]
        self.selection = Selection(**told["selection"])
        self.runs: dict[int, Run] = {}
        self.lock = Lock()

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to what the graph gives, by name.

        Raises:
            ConfigError: they are larger than the graph takes.
        """
        threads = torch.get_num_threads()
        with self.lock:
            if threads not in self.runs:
                self.runs[threads] = self.start(threads)
            run = self.runs[threads]
        if self.size is not None:
            (width, height), (h, w) = self.size, images.shape[-2:]
            if w > width or h > height:
                raise ConfigError(f"images of {w} x {h}, but this graph takes {width} x {height} at most.")
            images = F.pad(images, (0, width - w, 0, height - h), value=PAD_VALUE)
        found = run(images.round().to(torch.uint8).contiguous().numpy())
        return {name: torch.from_numpy(value) for name, value in found.items()}

    def decode(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> list[Detections]:
        """What lies in the images' content, (B, 2) width and height."""
        limit = image_sizes[:, None]
        boxes, there = outputs["boxes"], outputs["scores"] > 0
        if self.oriented:
            there &= ((boxes[..., :2] >= 0) & (boxes[..., :2] <= limit)).all(-1)
        else:
            boxes = torch.minimum(boxes.clamp(min=0), limit.repeat(1, 1, 2))
            there &= (boxes[..., 2:] > boxes[..., :2]).all(-1)
        landmarks = outputs.get("landmarks")
        return [
            choose(
                Detections(
                    boxes[n][rows],
                    outputs["scores"][n][rows],
                    outputs["labels"][n][rows],
                    None if landmarks is None else landmarks[n][rows],
                ),
                self.selection,
            )
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
    """Open an .onnx or .xml file of `boxwright export`.

    Raises:
        MissingExtraError: the file's runtime isn't installed.
        CheckpointError: it can't be read, wasn't made by boxwright, or is a .pt2.
    """
    if path.suffix == ".pt2":
        raise CheckpointError(
            f"{path}: opening a .pt2 can run code of who made it; expected a .safetensors, .onnx or .xml."
        )
    told, start = READERS[path.suffix](path)
    return _loaded(path, told, start)


def load_program(path: Path) -> LoadedDetector:
    """Open a .pt2 file that was just written; of others' see `load_exported`."""
    extra = {TOLD: ""}
    program = torch.export.load(path, extra_files=extra).module()
    told = json.loads(extra[TOLD])
    names = ["boxes", "scores", "labels", "landmarks"]

    @torch.no_grad()
    def run(images):
        return {n: t.numpy() for n, t in zip(names, program(torch.from_numpy(images)))}

    return _loaded(path, told, lambda threads: run)


def _loaded(path: Path, told: dict[str, str], start: Callable[[int], Run]) -> LoadedDetector:
    if told.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a file of boxwright export ({FORMAT}).")
    try:
        config = check_config(json.loads(told["config"]), str(path))
        held = {name: json.loads(told[name]) for name in told if name not in TEXTS}
        model = ExportedDetector(start, held)
        operating = Operating.from_dict(held["operating"])
        categories = [str(name) for name in held["categories"]]
        statistics = {name: float(value) for name, value in held["statistics"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its metadata is damaged: {error}.") from error
    return LoadedDetector(model.eval(), config, categories, statistics, operating)
