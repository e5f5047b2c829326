"""A detector as one graph, from pixels to detections, in a file that knows what it is."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.errors import ExportError
from boxwright.models.checkpoint import LoadedDetector
from boxwright.models.detections import Selection
from boxwright.models.detector import Detector, full_precision
from boxwright.models.digest import state_digest
from boxwright.models.onnx import need_onnx, trace
from boxwright.models.padded import select_padded
from boxwright.models.shapes import exporting, padded_up, size_of

FORMAT = "boxwright-export-1"
TOLD = "boxwright.json"  # of a .pt2, what other files have as metadata
INPUT = (
    "images: uint8 RGB (batch, 3, height, width), fitted into image_size, smaller ones of a batch at the top"
    " left and padded with 114; boxes: pixels of this input, xyxy or cx, cy, w, h, angle; scores: 0 where"
    " there is no detection"
)


class WholeDetector(nn.Module):
    """From images (B, 3, H, W) to boxes (B, K, 4 or 5), scores (B, K), labels (B, K), and landmarks (B, K,
    LANDMARKS, 2) where they are found.

    Args:
        model: in eval mode.
        selection: thresholds and limits.
    """

    def __init__(self, model: Detector, selection: Selection):
        super().__init__()
        self.model, self.selection = model, selection

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        sizes = size_of(images).expand(images.shape[0], 2)
        # Padded here, boxes are cut where the images end, before any of them are compared.
        whole = padded_up(images.float(), self.model.stride, self.model.least_side)
        outputs = full_precision(self.model(whole))
        found = select_padded(self.model.scored(outputs, sizes), self.selection)
        landmarks = () if found.landmarks is None else (found.landmarks,)
        return found.boxes, found.scores, found.labels, *landmarks


@torch.no_grad()
def to_graph(loaded: LoadedDetector, size: tuple[int, int], selection: Selection, raw: bool = False) -> bytes:
    """The ONNX graph of a detector in eval mode, on the processor; what a program should know is in its
    metadata.

    Args:
        loaded: the detector and what it was trained on.
        size: (width, height) that images are fitted into; others can be given to it too, where it takes its
            candidates from all levels together.
        selection: thresholds and limits.
        raw: it gives the candidates, and who uses it suppresses.

    Raises:
        MissingExtraError: onnx isn't installed.
    """
    need_onnx()
    import onnx

    model, images = loaded.model, _like(loaded.model, size)
    inside, left = _shared_out(model, images, selection, raw)
    names = ["boxes", "scores", "labels"] + ["landmarks"] * model.finds_landmarks
    any_size = not inside.per_level
    sides = {2: "height", 3: "width"} if any_size else {}
    axes = {"images": {0: "batch"} | sides} | {name: {0: "batch"} for name in names}
    graph = onnx.load_from_string(trace(WholeDetector(model, inside), images, names, axes))
    onnx.helper.set_model_props(graph, told_of(loaded, size, any_size, left))
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


@torch.no_grad()
def write_program(
    loaded: LoadedDetector, size: tuple[int, int], selection: Selection, path: Path, raw: bool = False
) -> None:
    """The program of a detector in eval mode that `torch.export.load` opens; arguments as `to_graph`'s.

    Raises:
        ExportError: its number of images would be fixed.
    """
    model, images = loaded.model, _like(loaded.model, size)
    inside, left = _shared_out(model, images, selection, raw)
    free = [0] if inside.per_level else [0, 2, 3]
    shapes = {"images": dict.fromkeys(free, torch.export.Dim.AUTO)}
    with exporting():
        program = torch.export.export(
            WholeDetector(model, inside).eval(), (images,), dynamic_shapes=shapes, strict=False
        )
    # What is meant to be free and was found to be fixed is told by no error.
    if not _takes(program, images[:2]):
        raise ExportError(f"{path}: torch.export fixes the number of images.")
    any_size = bool(free[1:]) and _takes(program, F.pad(images, (0, model.stride, 0, 2 * model.stride)))
    told = told_of(loaded, size, any_size, left)
    torch.export.save(program, path, extra_files={TOLD: json.dumps(told, ensure_ascii=False)})


def _like(model: Detector, size: tuple[int, int]) -> Tensor:
    """Images as a graph is made with: three, so that no other number passes for theirs."""
    width, height = model.padded(size)
    return torch.randint(0, 255, (3, 3, height, width), dtype=torch.uint8)


def _takes(program: torch.export.ExportedProgram, images: Tensor) -> bool:
    try:
        program.module()(images)
    except (AssertionError, RuntimeError):  # of a guard
        return False
    return True


def _shared_out(
    model: Detector, images: Tensor, selection: Selection, raw: bool
) -> tuple[Selection, Selection]:
    """What is chosen in the graph, and what is left to choose of what it gives."""
    outputs = full_precision(model(images.float()))
    applied = model.scored(outputs, size_of(images).expand(len(images), 2)).applied(selection)
    nothing = {"iou_threshold": 1.0, "vote": False}
    if raw:
        return replace(applied, **nothing, max_detections=applied.candidates), applied
    return applied, replace(applied, **nothing)


def told_of(loaded: LoadedDetector, size: tuple[int, int], any_size: bool, left: Selection) -> dict[str, str]:
    """The metadata of a file: texts, most of them JSON."""
    model = loaded.model
    return {
        "format": FORMAT,
        "config": loaded.config.model_dump_json(),
        "categories": json.dumps(loaded.categories, ensure_ascii=False),
        "statistics": json.dumps(loaded.statistics),
        "operating": json.dumps(loaded.operating.to_dict(), ensure_ascii=False),
        "input": INPUT,
        "image_size": json.dumps(size),
        "size": json.dumps(None if any_size else model.padded(size)),
        "pads": json.dumps(any_size),
        "stride": json.dumps(model.stride),
        "least_side": json.dumps(model.least_side),
        "oriented": json.dumps(model.oriented),
        "landmarks": json.dumps(model.finds_landmarks),
        "headings": json.dumps(model.finds_headings),
        "selection": json.dumps(asdict(left)),
        "digest": state_digest(dict(model.state_dict())),
    }
