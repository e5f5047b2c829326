"""The typed experiment: what a YAML file may say, with the defaults.

Everything is checked before anything heavy starts; a wrong key names the nearest right one.
"""

import os
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from boxwright.errors import ConfigError, nearest

MAX_YAML_BYTES = 4 << 20
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Size = tuple[Positive, Positive]  # width, height
View = Literal[  # which flips; transposed: the axes are swapped after them
    "plain",
    "horizontal",
    "vertical",
    "both",
    "transposed",
    "transposed-horizontal",
    "transposed-vertical",
    "transposed-both",
]


class Part(BaseModel):
    """A part of an experiment: unknown keys are errors, and nothing changes once it is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(Part):
    """Where annotations are. Options but `root` as in `boxwright data check`."""

    root: str  # file or folder
    format: str | None = None  # None: told from the path
    list: str | None = None  # VOC's list, YOLO's split
    images: str | None = None
    boxes: str | None = None
    layout: str | None = None


class DataConfig(Part):
    train: SourceConfig | list[SourceConfig]
    val: SourceConfig | list[SourceConfig]
    classes: list[str] | None = None  # names to learn, in this order; None: all of train


class BackboneConfig(Part):
    name: str = "resnet18"
    pretrained: bool = True
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    norm: Literal["batch", "group"] = "batch"
    norm_eval: bool = False
    style: Literal["pytorch", "caffe"] = "pytorch"  # where a ResNet's bottleneck has its stride


class NeckConfig(Part):
    name: Literal["fpn"] = "fpn"
    channels: Positive = 256
    norm: Literal["none", "batch", "group"] = "none"
    extra_from: Literal["input", "output"] | None = None  # None: as the detector's paper has it
    relu_before_extra: bool = True  # False: as MMDetection has it


class SelectionConfig(Part):
    score_threshold: Share = 0.01
    iou_threshold: Share = 0.6
    max_detections: Positive = 300
    candidates: Positive = 1000
    per_level: bool = False  # True: as many candidates of each level, as MMDetection has it


class TaskAlignedConfig(Part):
    name: Literal["task_aligned"] = "task_aligned"
    topk: Positive = 10
    alpha: Annotated[float, Field(ge=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 6.0


class CompactLossWeights(Part):
    cls: float = 1.0
    box: float = 5.0
    dfl: float = 1.0


class CompactConfig(Part):
    name: Literal["compact"] = "compact"
    width: Annotated[float, Field(gt=0)] = 1.0
    channels: Positive = 64  # of neck and head at width 1
    head_depth: Positive = 1
    reg_max: Annotated[int, Field(ge=2)] = 15
    assigner: TaskAlignedConfig = TaskAlignedConfig()
    loss_weights: CompactLossWeights = CompactLossWeights()
    selection: SelectionConfig = SelectionConfig()


class FCOSAssignerConfig(Part):
    name: Literal["fcos"] = "fcos"
    radius: Annotated[float, Field(ge=0)] = 1.5  # strides; 0: the whole box


class FCOSConfig(Part):
    name: Literal["fcos"]
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    head_depth: Positive = 4
    head_norm: Literal["none", "batch", "group"] = "group"
    distances_in_strides: bool = True  # False: pixels, as in the paper
    centerness_on_cls: bool = False  # True: as in the paper
    box_loss: Literal["giou", "log_iou"] = "giou"  # log_iou: as in the paper
    rank: Literal["root", "product"] = "root"  # of class score times centerness; product: as in the paper
    assigner: FCOSAssignerConfig = FCOSAssignerConfig()
    selection: SelectionConfig = SelectionConfig()


class MaxIoUConfig(Part):
    name: Literal["max_iou"] = "max_iou"
    positive_iou: Share = 0.5
    negative_iou: Share = 0.4
    low_quality: bool = True
    ignore_coverage: Share = 0.5


class AnchorConfig(Part):
    base_scale: Annotated[float, Field(gt=0)] = 4.0  # strides
    scales: list[float] = [1.0, 2 ** (1 / 3), 2 ** (2 / 3)]
    ratios: list[float] = [0.5, 1.0, 2.0]  # height over width


class RetinaNetConfig(Part):
    name: Literal["retinanet"]
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    head_depth: Positive = 4
    head_norm: Literal["none", "batch", "group"] = "none"
    anchors: AnchorConfig = AnchorConfig()
    assigner: MaxIoUConfig = MaxIoUConfig()
    smooth_l1_beta: Annotated[float, Field(ge=0)] = 0.0
    selection: SelectionConfig = SelectionConfig()


class FreeAnchorConfig(RetinaNetConfig):
    name: Literal["freeanchor"]  # pyright: ignore[reportIncompatibleVariableOverride]
    smooth_l1_beta: Annotated[float, Field(ge=0)] = 0.11
    bag: Positive = 50  # anchors a box may choose from
    box_iou: Share = 0.6
    alpha: Share = 0.5
    gamma: Annotated[float, Field(ge=0)] = 2.0
    box_weight: Annotated[float, Field(gt=0)] = 0.75


class SSDConfig(Part):
    name: Literal["ssd"]
    input_size: Literal[300, 512] = 300  # which maps and anchors; images of another size are taken too
    negatives: Annotated[float, Field(gt=0)] = 3.0  # for each positive
    selection: SelectionConfig = SelectionConfig(iou_threshold=0.45)


class ATSSAssignerConfig(Part):
    name: Literal["atss"] = "atss"
    topk: Positive = 9


class ATSSConfig(Part):
    name: Literal["atss"]
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    head_depth: Positive = 4
    head_norm: Literal["none", "batch", "group"] = "group"
    anchor_scale: Annotated[float, Field(gt=0)] = 8.0  # strides
    assigner: ATSSAssignerConfig = ATSSAssignerConfig()
    box_weight: Annotated[float, Field(gt=0)] = 2.0
    selection: SelectionConfig = SelectionConfig()


class VFNetConfig(Part):
    name: Literal["vfnet"]
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    head_depth: Positive = 3
    head_norm: Literal["none", "batch", "group"] = "group"
    anchor_scale: Annotated[float, Field(gt=0)] = 8.0  # strides, of the anchors that are assigned
    star_gradient: Share = 0.1  # of the star's gradient, what reaches the first boxes
    assigner: ATSSAssignerConfig = ATSSAssignerConfig()
    box_weight: Annotated[float, Field(gt=0)] = 1.5
    refined_weight: Annotated[float, Field(gt=0)] = 2.0
    selection: SelectionConfig = SelectionConfig()


class GFLConfig(Part):
    name: Literal["gfl"]
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    head_depth: Positive = 4
    head_norm: Literal["none", "batch", "group"] = "group"
    anchor_scale: Annotated[float, Field(gt=0)] = 8.0  # strides, of the anchors that are assigned
    reg_max: Annotated[int, Field(ge=2)] = 16
    assigner: ATSSAssignerConfig = ATSSAssignerConfig()
    box_weight: Annotated[float, Field(gt=0)] = 2.0
    dfl_weight: Annotated[float, Field(gt=0)] = 0.25
    selection: SelectionConfig = SelectionConfig()


ModelConfig = Annotated[
    CompactConfig
    | FCOSConfig
    | RetinaNetConfig
    | FreeAnchorConfig
    | ATSSConfig
    | GFLConfig
    | VFNetConfig
    | SSDConfig,
    Field(discriminator="name"),
]


class AugmentConfig(Part):
    """Random changes of a training image: one affine warp, then colour."""

    flip_horizontal: Share = 0.5  # probability
    flip_vertical: Share = 0.0
    quarter_turn: Share = 0.0  # probability of a turn by 90 degrees
    scale: tuple[float, float] = (0.75, 1.25)
    aspect: Annotated[float, Field(ge=0)] = 0.0  # greatest log of the change of width over height
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, either way
    min_visible: Share = 0.2  # boxes with less of their area inside are no longer objects
    brightness: Share = 0.2
    contrast: Share = 0.2
    color: Share = 0.1  # each channel by itself

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> "AugmentConfig":
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}, expected two positive numbers in order")
        return self


class OptimizerConfig(Part):
    name: Literal["adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 2.0e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.03
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of sgd


class ScheduleConfig(Part):
    name: Literal["cosine", "multistep", "one_cycle", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 100  # at most a fifth of all steps
    final: Annotated[float, Field(ge=0, le=1)] = 0.01  # cosine: last rate as a share of the first
    milestones: list[Share] = [0.67, 0.92]  # multistep: shares of all steps
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1  # multistep


class EMAConfig(Part):
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.998


class TrainConfig(Part):
    epochs: Positive = 60
    batch_size: Positive = 8  # a process
    seed: int = 0
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    ema: EMAConfig | None = EMAConfig()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    accumulate: Positive = 1  # batches a step, each averaged over its own positives
    clip_norm: Annotated[float, Field(gt=0)] | None = 10.0
    workers: Annotated[int, Field(ge=0)] | None = None  # None: 0 on a CPU, else up to 8
    cache_gib: Annotated[float, Field(ge=0)] = 4.0  # memory for decoded pixels at training size
    evaluate_every: Positive = 10  # epochs
    checkpoint_every: Positive | None = None  # steps; None: an epoch
    log_every: Positive = 20  # steps


class ExperimentConfig(Part):
    data: DataConfig
    model: ModelConfig = CompactConfig()
    image_size: Size = (640, 640)  # width, height that images are fitted into
    views: list[View] = [
        "plain"
    ]  # an image is judged and predicted in each of these, and the boxes are fused
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _views_differ(self) -> "ExperimentConfig":
        if not self.views or len(set(self.views)) < len(self.views):
            raise ValueError(f"views is {self.views}, expected one or several that differ")
        return self


def load_config(path: str | os.PathLike, changes: list[str] | None = None) -> ExperimentConfig:
    """Read an experiment and change it.

    Args:
        path: a YAML file.
        changes: `a.b.c=value`; the value is YAML, and `{...}` replaces a whole part.

    Raises:
        ConfigError: the file can't be read, or a key or value is wrong; every fault is named.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_YAML_BYTES:,} bytes.")
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: can't be read: {error.strerror}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{file}: not usable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected keys, {nearest('', ExperimentConfig.model_fields)}")
    return check_config(apply_changes(content, changes or []), str(file))


def apply_changes(content: dict, changes: list[str]) -> dict:
    """A copy of `content` with each `a.b.c=value` put in its place.

    Raises:
        ConfigError: a change isn't of that form, or goes through something that has no parts.
    """
    result = _copy(content)
    for change in changes:
        path, equals, text = change.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {change}: expected a.b.c=value.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {change}: the value is not YAML.") from error
        place = result
        for depth, key in enumerate(keys[:-1]):
            inner = place.setdefault(key, {})
            if inner is None:
                inner = place[key] = {}
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {change}: {'.'.join(keys[: depth + 1])} has no parts.")
            place = inner
        place[keys[-1]] = value
    return result


def check_config(content: dict, place: str) -> ExperimentConfig:
    """Check plain values; `place` is named in errors.

    Raises:
        ConfigError: all faults, a line each.
    """
    try:
        return ExperimentConfig.model_validate(content)
    except ValidationError as error:
        faults = error.errors()
        # A source may be one or a list: that it isn't the other is no news when something else is wrong.
        told = [f for f in faults if str(f["loc"][-1:]) not in _OTHER_FORM] or faults
        lines = [_explain(fault) for fault in told]
        raise ConfigError("\n".join(f"{place}: {line}" for line in lines)) from error


def dump_config(config: ExperimentConfig) -> str:
    """The whole experiment as YAML, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


_OTHER_FORM = ("('SourceConfig',)", "('list[SourceConfig]',)")


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def _explain(fault: Any) -> str:
    """A pydantic error as a sentence with path, value and what was expected."""
    path = list(fault["loc"])
    shown, part = _walk(path)
    name = ".".join(shown)
    if fault["type"] == "extra_forbidden" and part is not None:
        return f"'{name}' is not a key. {nearest(str(path[-1]), part.model_fields)}"
    if fault["type"] == "missing":
        return f"'{name}' is missing."
    if fault["type"].startswith("union_tag"):
        expected = fault.get("ctx", {}).get("expected_tags", "a name")
        return f"'{name}.name' is {fault['input']!r:.60}, expected one of {expected}."
    return f"'{name}' is {fault['input']!r:.60}: {fault['msg'].removeprefix('Value error, ')}."


def _walk(path: list) -> tuple[list[str], type[Part] | None]:
    """The path without pydantic's own steps (union tags, types), and the part that holds its last key."""
    shown: list[str] = []
    part: type[Part] | None = ExperimentConfig
    holder: type[Part] | None = ExperimentConfig
    variants: dict[str, type[Part]] = {}
    for key in path:
        if key in variants:
            part, variants = variants[key], {}
        elif not str(key).startswith("list["):
            shown.append(str(key))
            holder = part
            if part is not None and key in part.model_fields:
                variants = _variants(part.model_fields[key].annotation)
                part = next(iter(variants.values())) if len(variants) == 1 else None
    return shown, holder


def _variants(annotation: Any) -> dict[str, type[Part]]:
    """The parts a field may hold, by the step that pydantic puts into an error's path for them."""
    parts = list(dict.fromkeys(_parts(annotation)))
    if len(parts) == 1:
        return {parts[0].__name__: parts[0]}
    return {tag: p for p in parts for tag in get_args(p.model_fields["name"].annotation)}


def _parts(annotation: Any) -> list[type[Part]]:
    """The parts that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, list, Annotated):
        return [p for a in get_args(annotation) for p in _parts(a)]
    return []
