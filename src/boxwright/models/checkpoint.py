"""Weights as safetensors, with the experiment and the categories inside."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from boxwright.config import ExperimentConfig, ModelConfig, check_config
from boxwright.config.detectors import ClassifierConfig
from boxwright.config.places import find_checkpoint
from boxwright.data.formats.files import write_atomic
from boxwright.errors import CheckpointError, ConfigError
from boxwright.evaluation.operating import Operating
from boxwright.models import build_detector
from boxwright.models.detector import Detector
from boxwright.models.digest import state_digest
from boxwright.models.oriented import BOX_WIDTH

FORMAT = "boxwright-2"
FIRST_FORMAT = "boxwright-1"  # no digest; headings out of the box's convolution


@dataclass(frozen=True)
class LoadedDetector:
    """A detector in eval mode, and what it was trained on."""

    model: Detector
    config: ExperimentConfig
    categories: list[str]
    statistics: dict[str, float]  # of what it was trained on, see `input_statistics`; empty: unknown
    operating: Operating = field(default_factory=lambda: Operating({}))


def save_detector(
    model: nn.Module,
    config: ExperimentConfig,
    categories: list[str],
    path: Path,
    statistics: dict[str, float] | None = None,
    operating: Operating | None = None,
) -> None:
    """Write weights, config, categories, statistics of the training data and operating thresholds into one
    file, atomically.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "config": config.model_dump_json(),
        "categories": json.dumps(categories, ensure_ascii=False),
        "statistics": json.dumps(statistics or {}),
        "operating": json.dumps((operating or Operating({})).to_dict(), ensure_ascii=False),
    }
    write_atomic(path, save(tensors, metadata | {"digest": state_digest([metadata, tensors])}))


def load_detector(place: str | os.PathLike) -> LoadedDetector:
    """Build the detector of a checkpoint.

    Args:
        place: a run folder or a .safetensors file.

    Raises:
        CheckpointError: missing, damaged, or not of boxwright's making.
    """
    path = find_checkpoint(place)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: can't be read as safetensors: {error}.") from error
    digest, written = metadata.pop("digest", None), metadata.get("format")
    if written not in (FORMAT, FIRST_FORMAT):
        raise CheckpointError(f"{path}: not a checkpoint of boxwright's ({FORMAT}).")
    if written == FORMAT and digest != state_digest([metadata, tensors]):
        raise CheckpointError(
            f"{path}: damaged: its contents don't match their digest. Copy it again, or train again."
        )
    try:
        content = json.loads(metadata["config"])
        if written == FIRST_FORMAT and content["model"]["name"].endswith("_obb"):
            content["model"]["long_edge"] = False
            tensors = _split_headings(tensors) if content["model"]["heading"] else tensors
        if content["model"]["name"] in ("compact", "compact_obb"):
            # Those from before there was one had none.
            content["model"].setdefault("selection", {}).setdefault("vote", False)
        config = without_pretrained(check_config(content, str(path)))
        categories = [str(name) for name in json.loads(metadata["categories"])]
        statistics = {n: float(v) for n, v in json.loads(metadata.get("statistics", "{}")).items()}
        operating = Operating({})
        if "operating" in metadata:
            operating = Operating.from_dict(json.loads(metadata["operating"]))
        model = build_detector(config.model, len(categories))
        model.load_state_dict(tensors)
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its config and weights don't fit: {error}") from error
    return LoadedDetector(model.eval(), config, categories, statistics, operating)


def _split_headings(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an oriented detector of the first format, its headings in a branch of their own."""
    tower = {
        n.replace("head.box_tower.", "heading.tower."): t
        for n, t in tensors.items()
        if "head.box_tower." in n
    }
    tensors = tensors | tower
    for part in ("weight", "bias"):
        rows = tensors[f"head.box.{part}"].unflatten(0, (-1, BOX_WIDTH + 2))
        tensors[f"head.box.{part}"] = rows[:, :BOX_WIDTH].flatten(0, 1).contiguous()
        tensors[f"heading.direction.{part}"] = rows[:, BOX_WIDTH:].flatten(0, 1).contiguous()
    return tensors


def without_pretrained(config: ExperimentConfig) -> ExperimentConfig:
    """The same experiment, whose model starts from no one's weights."""
    train = config.train.model_copy(update={"new_first": 0, "norms": "learn"})
    return config.model_copy(update={"model": without_pretrained_parts(config.model), "train": train})


def without_pretrained_parts(model: ModelConfig) -> ModelConfig:
    """The same detector, whose backbone's weights don't come from the hub."""
    backbone = getattr(model, "backbone", None)
    changes: dict[str, Any] = {"weights": None, "weights_from": None, "class_map": {}}
    if isinstance(model, ClassifierConfig):
        changes["detector"] = without_pretrained_parts(model.detector)
    elif backbone is not None:
        changes["backbone"] = backbone.model_copy(update={"pretrained": False})
    elif hasattr(model, "pretrained"):
        changes["pretrained"] = False
    return model.model_copy(update=changes)
