"""Weights of other toolboxes under our names: every tensor accounted for, nothing guessed."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from boxwright.config import ExperimentConfig, ModelConfig, load_config
from boxwright.errors import CheckpointError, ConfigError, nearest
from boxwright.models import build_detector
from boxwright.models.checkpoint import save_detector
from boxwright.models.import_rules import IGNORED, PREPARED, RESHAPED, RULES, Rules
from boxwright.models.layers import Normalize


@dataclass(frozen=True)
class ImportReport:
    """What became of every tensor.

    Attributes:
        loaded: names of ours that were filled.
        missing: names of ours that nothing was found for.
        unused: names of theirs that no name of ours takes.
        mismatched: names of ours with our shape and theirs.
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Every tensor found its place."""
        return not (self.missing or self.unused or self.mismatched)

    def describe(self) -> str:
        """How many of each, with the first names."""
        shapes = [f"{n} ({list(a)} here, {list(b)} there)" for n, a, b in self.mismatched]
        parts = [f"{len(self.loaded):,} tensors found their place"]
        for what, names in (("missing", self.missing), ("unused", self.unused), ("of another shape", shapes)):
            if names:
                more = ", ..." if len(names) > 3 else ""
                parts.append(f"{len(names):,} {what}: {', '.join(names[:3])}{more}")
        return "; ".join(parts) + "."


def import_checkpoint(
    checkpoint: str | os.PathLike,
    config: ExperimentConfig | str | os.PathLike,
    output: str | os.PathLike,
    origin: str = "mmdet",
    partial: bool = False,
) -> ImportReport:
    """Another toolbox's weights to a checkpoint of ours, which `predict` and `report` take.

    First convolutions that were trained on BGR (YOLOX's, and caffe-style ones, on BGR less its mean) are
    rewritten to take our RGB: the same outputs on the same image.

    Args:
        checkpoint: a .pth, .pt or .safetensors file.
        config: the experiment whose model it is; its `data.classes` name the classes.
        output: the .safetensors file to write.
        origin: the toolbox, a key of `RULES`.
        partial: write it even where tensors are missing, unused or of another shape, as they are where the
            classes differ; what is missing keeps its random start.

    Returns:
        What became of every tensor.

    Raises:
        CheckpointError: the file can't be read, or not every tensor finds its place and `partial` isn't set.
        ConfigError: the experiment is wrong, or names no classes.

    Example:
        >>> boxwright.import_checkpoint("atss_r50.pth", "configs/atss_coco.yaml", "atss.safetensors")
    """
    experiment = config if isinstance(config, ExperimentConfig) else load_config(config)
    classes = experiment.data.classes
    if not classes:
        raise ConfigError(f"{config}: data.classes names no classes; the checkpoint has them by number only.")
    model = build_detector(experiment.model, len(classes))
    report = import_state(model, read_state(Path(checkpoint)), experiment.model.name, origin)
    if not report.complete and not partial:
        raise CheckpointError(f"{checkpoint}: {report.describe()} Nothing was written; see --partial.")
    take_our_input(model, experiment.model)
    save_detector(model, experiment, list(classes), Path(output))
    return report


def import_state(model: nn.Module, state: dict[str, Tensor], detector: str, origin: str) -> ImportReport:
    """Fill a model with another toolbox's tensors where names and shapes fit.

    Args:
        model: is changed in place.
        state: their tensors by their names.
        detector: name of ours, "retinanet" for one.
        origin: the toolbox, a key of `RULES`.

    Raises:
        CheckpointError: no rules are known for these.
    """
    if origin not in RULES:
        raise CheckpointError(f"no rules for weights from '{origin}'. {nearest(origin, RULES)}")
    if detector not in RULES[origin]:
        known = nearest(detector, RULES[origin])
        raise CheckpointError(f"no rules for a {detector} from {origin}. {known}")
    own, report = model.state_dict(), ImportReport()
    wanted = {name for name in own if not name.endswith("num_batches_tracked")}
    filled: dict[str, Tensor] = {}
    reshape = RESHAPED.get((origin, detector))
    for name, tensor in PREPARED.get(origin, dict)(state).items():
        if any(re.fullmatch(pattern, name) for pattern in IGNORED[origin]):
            continue
        ours = rename(name, RULES[origin][detector])
        if ours is None or ours not in wanted:
            report.unused.append(name)
            continue
        tensor = reshape(ours, tensor, model) if reshape else tensor
        if own[ours].shape != tensor.shape:
            report.mismatched.append((ours, tuple(own[ours].shape), tuple(tensor.shape)))
        else:
            filled[ours] = tensor
    report.loaded.extend(sorted(filled))
    refused = {name for name, _, _ in report.mismatched}
    report.missing.extend(sorted(wanted - filled.keys() - refused))
    model.load_state_dict(filled, strict=False)
    return report


def take_our_input(model: nn.Module, config: ModelConfig) -> None:
    """Rewrite a first convolution that took BGR: that of YOLOX, and of caffe style (BGR less its mean)."""
    backbone = getattr(config, "backbone", None)
    if backbone is not None and backbone.style == "caffe":
        _take_ours_for_caffe(model)
    if config.name == "yolox":
        _take_rgb(model)


def _take_ours_for_caffe(model: nn.Module) -> None:
    """The stem on (RGB - mean) / deviation gives what it gave on BGR - mean."""
    stem = model.get_submodule("backbone.body.conv1")
    normalize = model.get_submodule("normalize")
    assert isinstance(stem, nn.Conv2d)
    assert isinstance(normalize, Normalize)
    with torch.no_grad():
        stem.weight.copy_(stem.weight.flip(1) * normalize.variance.sqrt().view(3, 1, 1))


def _take_rgb(model: nn.Module) -> None:
    """YOLOX's stem on the quarters of an RGB image gives what it gave on those of a BGR one."""
    stem = model.get_submodule("backbone.stem.0")
    assert isinstance(stem, nn.Conv2d)
    with torch.no_grad():
        stem.weight.copy_(stem.weight.unflatten(1, (4, 3)).flip(2).flatten(1, 2))


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a .safetensors file, or of a PyTorch checkpoint, unpickled as weights only.

    Raises:
        CheckpointError: missing, damaged, or holding anything but plain containers and tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file.") from error
    except UnpicklingError as error:
        raise CheckpointError(f"{path}: holds more than weights, and isn't unpickled: {error}") from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read as weights: {error}") from error
    state = _state_of(content)
    if not state:
        raise CheckpointError(f"{path}: no tensors by name in it.")
    return state


def _state_of(content: Any) -> dict[str, Tensor]:
    """The tensors, which toolboxes put under one of a few keys."""
    for key in ("state_dict", "model", "ema_state_dict", "ema", "module"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        return {}
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}


def rename(name: str, rules: Rules) -> str | None:
    """Our name of a tensor, or None."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return None
