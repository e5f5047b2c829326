"""Other people's detectors as ONNX graphs: what Ultralytics' files hold, and those that are made like them.

A graph takes images (B, 3, H, W) in 0..1 and gives either the scores of all places, (B, 4 + C, N) of cx, cy,
w, h and C classes, or what was chosen, (B, N, 6) of x1, y1, x2, y2, score and class. Oriented ones have an
angle behind that, and chosen ones cx, cy, w, h. The metadata `names` tells the classes, `task` what is found.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boxwright.config import check_config
from boxwright.errors import CheckpointError
from boxwright.geometry.torch_boxes import clip_boxes
from boxwright.models.checkpoint import LoadedDetector
from boxwright.models.detections import Detections, Scored, Selection, select_detections
from boxwright.models.exported import ExportedDetector
from boxwright.models.onnx import Run, open_session, read_graph
from boxwright.models.oriented import within

TASKS = {"detect": False, "obb": True}  # whether boxes are oriented
SELECTION = Selection(score_threshold=0.01, iou_threshold=0.7, candidates=1000)  # as most judge such files


class ForeignDetector(ExportedDetector):
    """See the module's docstring.

    Args:
        start: makes of a number of threads what gives `rows`, (B, N, K).
        told: of an exported detector.
        classes: how many.
        chosen: rows are detections, not places.
    """

    def __init__(self, start: Callable[[int], Run], told: dict[str, Any], classes: int, chosen: bool):
        super().__init__(start, told)
        self.classes, self.chosen = classes, chosen

    def decode(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> list[Detections]:
        """Chosen here, as any detector's."""
        return select_detections(self.scored(outputs, image_sizes), self.selection)

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of all places, or of what was chosen, which isn't thinned out again."""
        rows = outputs["rows"]
        boxes, scores = rows[..., :4], rows[..., 4 : 4 + self.classes]
        if self.chosen:
            label = rows[..., 5:6].long().clamp(0, self.classes - 1)
            scores = rows.new_zeros(*rows.shape[:2], self.classes).scatter(2, label, rows[..., 4:5])
        if self.oriented:
            boxes = torch.cat([boxes, rows[..., -1:]], dim=-1)
            return Scored(boxes, scores * within(boxes, image_sizes), one_each=self.chosen)
        if not self.chosen:
            half = boxes[..., 2:] / 2
            boxes = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)
        return Scored(clip_boxes(boxes, image_sizes), scores, one_each=self.chosen)


def is_foreign(path: Path) -> bool:
    """Whether a file is an .onnx that tells its classes as others do."""
    return path.suffix == ".onnx" and "names" in read_graph(path)[0]


def load_foreign(path: Path) -> LoadedDetector:
    """Open an .onnx with the metadata of Ultralytics' files.

    Raises:
        MissingExtraError: onnxruntime isn't installed.
        CheckpointError: it finds something else than boxes, or gives what isn't known here.
    """
    told, _ = read_graph(path)
    try:
        names = ast.literal_eval(told["names"])
        names = [str(names[n]) for n in range(len(names))]
        height, width = (int(side) for side in ast.literal_eval(told.get("imgsz", "[640, 640]")))
        if min(height, width) < 1:
            raise ValueError(f"imgsz of {width} x {height}")
        stride, oriented = int(float(told.get("stride", "32"))), TASKS[told.get("task", "detect")]
    except (KeyError, ValueError, TypeError, SyntaxError) as error:
        raise CheckpointError(
            f"{path}: {error} is in the metadata of an ONNX file that isn't of boxwright export; expected"
            f" names of classes, task {' or '.join(TASKS)}, imgsz and stride."
        ) from error
    graph = path.read_bytes()
    try:
        given = open_session(graph, 1).get_inputs()[0]
        sides = given.shape[2:]
        start = _starter(graph, given)
        shape = start(1)(np.zeros((1, 3, height, width), np.uint8))["rows"].shape
    except Exception as error:  # of onnxruntime, each fault of a class of its own
        raise CheckpointError(f"{path}: can't be run on an image of {width} x {height}: {error}.") from error
    places, chosen = 4 + len(names) + oriented, 6 + oriented
    if shape[1] == places != shape[2]:
        start = _as_rows(start)
    elif shape[2] != chosen:
        raise CheckpointError(
            f"{path}: gives {shape[1]} x {shape[2]} numbers an image, expected {places} of each place or"
            f" {chosen} of each detection, of {len(names)} classes."
        )
    fixed = all(isinstance(side, int) for side in sides)
    held = {"size": [width, height] if fixed else None, "stride": stride, "least_side": 0}
    held |= {"oriented": oriented, "landmarks": False, "headings": False, "selection": vars(SELECTION)}
    model = ForeignDetector(start, held, len(names), shape[1] != places)
    kind = {"name": "compact_obb" if oriented else "compact"}
    content = {"train": {"root": str(path)}, "val": {"root": str(path)}}
    config = check_config({"data": content, "model": kind, "image_size": [width, height]}, str(path))
    return LoadedDetector(model.eval(), config, names, {})


def _starter(graph: bytes, given: Any) -> Callable[[int], Run]:
    """What runs a graph on bytes, one image at a time where it takes no more."""
    kind = np.float16 if given.type == "tensor(float16)" else np.float32
    alone = isinstance(given.shape[0], int)

    def start(threads: int) -> Run:
        session = open_session(graph, threads)

        def one(images: np.ndarray) -> np.ndarray:
            return np.asarray(session.run(None, {given.name: images.astype(kind) / kind(255)})[0], np.float32)

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            if not alone:
                return {"rows": one(images)}
            return {"rows": np.concatenate([one(images[n : n + 1]) for n in range(len(images))])}

        return run

    return start


def _as_rows(start: Callable[[int], Run]) -> Callable[[int], Run]:
    """The same with a row for each place."""

    def starting(threads: int) -> Run:
        run = start(threads)
        return lambda images: {"rows": np.ascontiguousarray(run(images)["rows"].transpose(0, 2, 1))}

    return starting
