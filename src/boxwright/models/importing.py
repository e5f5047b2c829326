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

from boxwright.config import ExperimentConfig, load_config
from boxwright.errors import CheckpointError, ConfigError, nearest
from boxwright.models import build_detector
from boxwright.models.checkpoint import save_detector
from boxwright.models.layers import Normalize

Rules = tuple[tuple[str, str], ...]  # patterns of their whole names, and ours

# MMDetection 2 and 3. The pyramid's fourth and fifth convolutions are its extra levels.
_MMDET_BODY: Rules = (
    (r"backbone\.(.+)", r"backbone.body.\1"),
    (r"neck\.lateral_convs\.(\d)\.conv\.(.+)", r"neck.laterals.\1.0.\2"),
    (r"neck\.fpn_convs\.([012])\.conv\.(.+)", r"neck.outputs.\1.0.\2"),
    (r"neck\.fpn_convs\.3\.conv\.(.+)", r"neck.extras.0.0.\1"),
    (r"neck\.fpn_convs\.4\.conv\.(.+)", r"neck.extras.1.0.\1"),
    (r"bbox_head\.cls_convs\.(\d+)\.conv\.(.+)", r"head.cls_tower.\1.0.\2"),
    (r"bbox_head\.cls_convs\.(\d+)\.gn\.(.+)", r"head.cls_tower.\1.1.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.conv\.(.+)", r"head.box_tower.\1.0.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.gn\.(.+)", r"head.box_tower.\1.1.\2"),
    (r"bbox_head\.scales\.(\d)\.scale", r"head.scales.\1.scale"),
)


def _outputs(cls: str, box: str, quality: str = "") -> Rules:
    named = (("cls", cls), ("box", box), ("quality", quality))
    return tuple((rf"bbox_head\.{theirs}\.(.+)", rf"head.{ours}.\1") for ours, theirs in named if theirs)


def _numbered(theirs: str, ours: str, count: int) -> Rules:
    """Rules of parts that are counted from 1 there and from 0 here; "#" is the number."""
    return tuple(
        rule
        for n in range(count)
        for rule in _conv_norm(theirs.replace("#", str(n + 1)), ours.replace("#", str(n)))
    )


def _conv_norm(theirs: str, ours: str) -> Rules:
    """Rules of a convolution and its norm, which are layers 0 and 1 here."""
    # The place of the rest among the groups.
    rest = theirs.count("(") + 1
    return ((rf"{theirs}\.conv\.(.+)", rf"{ours}.0.\{rest}"), (rf"{theirs}\.bn\.(.+)", rf"{ours}.1.\{rest}"))


def _csp(theirs: str, ours: str) -> Rules:
    """Rules of a CSP layer."""
    block = theirs.count("(") + 1
    return (
        *_conv_norm(rf"{theirs}\.main_conv", f"{ours}.main"),
        *_conv_norm(rf"{theirs}\.short_conv", f"{ours}.past"),
        *_conv_norm(rf"{theirs}\.final_conv", f"{ours}.join"),
        *_conv_norm(rf"{theirs}\.blocks\.(\d)\.conv1", rf"{ours}.blocks.\{block}.reduce"),
        *_conv_norm(rf"{theirs}\.blocks\.(\d)\.conv2", rf"{ours}.blocks.\{block}.conv"),
    )


# The last stage has its pooling between convolution and CSP layer.
_YOLOX_STAGES = (
    *_numbered(r"backbone\.stage#\.0", "backbone.stages.#.0", 4),
    *(rule for n in range(3) for rule in _csp(rf"backbone\.stage{n + 1}\.1", f"backbone.stages.{n}.1")),
    *_conv_norm(r"backbone\.stage4\.1\.conv1", "backbone.stages.3.1.reduce"),
    *_conv_norm(r"backbone\.stage4\.1\.conv2", "backbone.stages.3.1.join"),
    *_csp(r"backbone\.stage4\.2", "backbone.stages.3.2"),
)


RULES: dict[str, dict[str, Rules]] = {
    "mmdet": {
        "retinanet": _MMDET_BODY + _outputs("retina_cls", "retina_reg"),
        "freeanchor": _MMDET_BODY + _outputs("retina_cls", "retina_reg"),
        "fcos": _MMDET_BODY + _outputs("conv_cls", "conv_reg", "conv_centerness"),
        "atss": _MMDET_BODY + _outputs("atss_cls", "atss_reg", "atss_centerness"),
        "gfl": _MMDET_BODY + _outputs("gfl_cls", "gfl_reg"),
        "vfnet": (
            *_MMDET_BODY,
            (r"bbox_head\.vfnet_reg_conv\.conv\.(.+)", r"head.box_conv.0.\1"),
            (r"bbox_head\.vfnet_reg_conv\.gn\.(.+)", r"head.box_conv.1.\1"),
            (r"bbox_head\.vfnet_reg\.(.+)", r"head.box.\1"),
            (r"bbox_head\.vfnet_reg_refine_dconv\.(.+)", r"head.refine_star.\1"),
            (r"bbox_head\.vfnet_reg_refine\.(.+)", r"head.refine.\1"),
            (r"bbox_head\.scales_refine\.(\d)\.scale", r"head.refine_scales.\1.scale"),
            (r"bbox_head\.vfnet_cls_dconv\.(.+)", r"head.cls_star.\1"),
            (r"bbox_head\.vfnet_cls\.(.+)", r"head.cls.\1"),
        ),
        "ssd": (
            (r"backbone\.features\.(.+)", r"backbone.features.\1"),
            (r"neck\.l2_norm\.weight", r"neck.l2_norm.weight"),
            (r"neck\.extra_layers\.(\d)\.([01])\.conv\.(.+)", r"neck.extras.\1.\2.0.\3"),
            (r"bbox_head\.cls_convs\.(\d)\.0\.(.+)", r"head.cls.\1.\2"),
            (r"bbox_head\.reg_convs\.(\d)\.0\.(.+)", r"head.box.\1.\2"),
        ),
        "yolov3": (
            *_conv_norm(r"backbone\.conv1", "backbone.stem"),
            *_numbered(r"backbone\.conv_res_block#\.conv", "backbone.stages.#.0", 5),
            *_numbered(r"backbone\.conv_res_block#\.res(\d)\.conv1", r"backbone.stages.#.1.\1.reduce", 5),
            *_numbered(r"backbone\.conv_res_block#\.res(\d)\.conv2", r"backbone.stages.#.1.\1.conv", 5),
            *_numbered(r"neck\.conv#", "neck.reduce.#", 2),
            *(
                rule
                for n in range(3)
                for rule in _numbered(rf"neck\.detect{n + 1}\.conv#", f"neck.levels.{n}.#", 5)
            ),
            *_conv_norm(r"bbox_head\.convs_bridge\.(\d)", r"head.bridge.\1"),
            (r"bbox_head\.convs_pred\.(\d)\.(.+)", r"head.predict.\1.\2"),
        ),
        "yolox": (
            *_conv_norm(r"backbone\.stem\.conv", "backbone.stem"),
            *_YOLOX_STAGES,
            *_conv_norm(r"neck\.reduce_layers\.(\d)", r"neck.reduce.\1"),
            *_csp(r"neck\.top_down_blocks\.(\d)", r"neck.down.\1"),
            *_conv_norm(r"neck\.downsamples\.(\d)", r"neck.halve.\1"),
            *_csp(r"neck\.bottom_up_blocks\.(\d)", r"neck.up.\1"),
            *_conv_norm(r"neck\.out_convs\.(\d)", r"neck.outputs.\1"),
            *_conv_norm(r"bbox_head\.multi_level_cls_convs\.(\d)\.(\d)", r"head.cls_towers.\1.\2"),
            *_conv_norm(r"bbox_head\.multi_level_reg_convs\.(\d)\.(\d)", r"head.box_towers.\1.\2"),
            (r"bbox_head\.multi_level_conv_cls\.(\d)\.(.+)", r"head.cls.\1.\2"),
            (r"bbox_head\.multi_level_conv_reg\.(\d)\.(.+)", r"head.box.\1.\2"),
            (r"bbox_head\.multi_level_conv_obj\.(\d)\.(.+)", r"head.objectness.\1.\2"),
        ),
    },
}
# Constants that a model makes itself.
IGNORED = {"mmdet": (r"bbox_head\.integral\.project", r".*\.num_batches_tracked")}


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

    A caffe-style backbone's first convolution is rewritten to take our RGB in unit deviations instead of BGR
    less its mean: the same outputs on the same image.

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
    backbone = getattr(experiment.model, "backbone", None)
    if backbone is not None and backbone.style == "caffe":
        _take_our_input(model)
    save_detector(model, experiment, list(classes), Path(output))
    return report


def import_state(model: nn.Module, state: dict[str, Tensor], detector: str, origin: str) -> ImportReport:
    """Fill a model with another toolbox's tensors where names and shapes fit.

    Args:
        model: is changed in place.
        state: their tensors by their names.
        detector: name of ours, "retinanet" for one.
        origin: "mmdet".

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
    for name, tensor in state.items():
        if any(re.fullmatch(pattern, name) for pattern in IGNORED[origin]):
            continue
        ours = _rename(name, RULES[origin][detector])
        if ours is None or ours not in wanted:
            report.unused.append(name)
        elif own[ours].shape != tensor.shape:
            report.mismatched.append((ours, tuple(own[ours].shape), tuple(tensor.shape)))
        else:
            filled[ours] = tensor
    report.loaded.extend(sorted(filled))
    refused = {name for name, _, _ in report.mismatched}
    report.missing.extend(sorted(wanted - filled.keys() - refused))
    model.load_state_dict(filled, strict=False)
    return report


def _take_our_input(model: nn.Module) -> None:
    """The stem on (RGB - mean) / deviation gives what it gave on BGR - mean."""
    stem = model.get_submodule("backbone.body.conv1")
    normalize = model.get_submodule("normalize")
    assert isinstance(stem, nn.Conv2d)
    assert isinstance(normalize, Normalize)
    with torch.no_grad():
        stem.weight.copy_(stem.weight.flip(1) * normalize.std)


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
    for key in ("state_dict", "model", "ema_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        return {}
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}


def _rename(name: str, rules: Rules) -> str | None:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return None
