"""What a YAML file may say of data, augmentation and training, with the defaults."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from boxwright.config.detectors import ModelConfig
from boxwright.config.models import CompactConfig, Oriented
from boxwright.config.part import Part, Positive, Share, Size
from boxwright.config.teaching import DistillConfig, TeacherConfig

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


Factor = Annotated[float, Field(gt=0)]


class SourceConfig(Part):
    """Where annotations are. Options but `root` as in `boxwright data check`."""

    root: str  # file or folder
    format: str | None = None  # None: told from the path
    list: str | None = None  # VOC's list, YOLO's split
    images: str | None = None
    boxes: str | None = None
    layout: str | None = None
    angles: str | None = None  # convention of oriented boxes
    # Factors on width and height of each box about its centre, for labels that are looser than the others.
    tightness: tuple[Factor, Factor] = (1.0, 1.0)
    class_map: dict[str, str] | None = None  # names of its classes to those learnt, where they differ
    # background: its images hold nothing to be found; pseudo: boxes that a detector found, with scores;
    # unlabelled: images whose boxes train.teacher finds
    role: Literal["labels", "pseudo", "background", "unlabelled"] = "labels"
    # of pseudo boxes, from which they are objects, for all or by class; null: those that came with them
    scores: Share | dict[str, Share] | None = None
    doubt: Share = 0.1  # from which pseudo boxes of lower scores are neither objects nor background
    weight: Factor = 1.0  # on what a training source's images teach: their gradients
    samples: Positive | None = None  # images of a training source that an epoch draws; null: see repeat
    repeat: Factor = 1.0  # how often an epoch draws each image of a training source: 0.5, 3


class SamplingConfig(Part):
    """Which training images are drawn more often than others of their source, and when."""

    # share of training images: those with a box of a group that fewer have are drawn more often, by the root
    # of how many times fewer
    balance: Annotated[float, Field(gt=0, le=1)] | None = None
    # what makes groups of boxes: class, or a slice of reports (size, aspect, density, source, image:KEY);
    # factors of several are multiplied
    by: tuple[str, ...] = ("class",)
    background: Annotated[float, Field(gt=0, lt=1)] | None = None  # share of draws without any object
    hard: str | None = None  # predictions for the training images, whose errors tell hard from easy
    # table of `boxwright label report`: more of what people had to correct, and more crops (augment.focus)
    # around it
    corrected: str | None = None
    # draws of an image that `hard` got all wrong, or whose boxes were all `corrected`, beside its first; and
    # crops around what was `corrected` in an image, beside each around any of its objects
    gain: Annotated[float, Field(ge=0)] = 1.0
    curriculum: Share = 0.0  # of the epochs, in which images come in from easy to hard, by `hard`
    # what the images of a step have in common: shape (wide, square, high), which spares padding, or source
    alike: Literal["shape", "source"] | None = None

    @model_validator(mode="after")
    def _what_is_told_is_used(self) -> "SamplingConfig":
        if self.hard is None and self.curriculum:
            raise ValueError("curriculum needs hard: the predictions that tell hard images from easy ones")
        if self.hard is None and self.corrected is None and self.gain != 1:
            raise ValueError(f"gain {self.gain:g} needs hard or corrected: the errors that it weighs")
        if self.balance is None and self.by != ("class",):
            raise ValueError(f"by: {', '.join(self.by)} needs balance: the share below which images are few")
        return self


class DataConfig(Part):
    gsd: Annotated[float, Field(gt=0)] | None = (
        None  # metres of ground a pixel of the images, where they have one
    )
    train: SourceConfig | list[SourceConfig]
    # a source, or a share of the training images, which their names choose: it stays when sources are added
    val: SourceConfig | list[SourceConfig] | Annotated[float, Field(gt=0, lt=1)]
    classes: list[str] | None = None  # names to learn, in this order; None: all of train but `ignore`
    sampling: SamplingConfig = SamplingConfig()
    ignore: tuple[str, ...] = ()  # names whose boxes are neither objects nor background, for any class

    @property
    def sources(self) -> list[SourceConfig]:
        """Of training."""
        return self.train if isinstance(self.train, list) else [self.train]

    @model_validator(mode="after")
    def _background_has_no_boxes(self) -> "DataConfig":
        judged = self.val if isinstance(self.val, list) else [self.val]
        for source in [*self.sources, *(s for s in judged if isinstance(s, SourceConfig))]:
            without_boxes = source.role in ("background", "unlabelled")
            if without_boxes and (source.class_map or source.tightness != (1.0, 1.0)):
                raise ValueError(f"{source.root} is {source.role}: class_map and tightness are for boxes")
            if source.scores is not None and source.role != "pseudo":
                raise ValueError(f"{source.root}: scores are for role: pseudo, found role: {source.role}")
        return self

    @model_validator(mode="after")
    def _sources_differ(self) -> "DataConfig":
        if self.sampling.alike == "source" and len(self.sources) == 1:
            raise ValueError("sampling.alike: source, and there is one source of training alone")
        return self

    @model_validator(mode="after")
    def _draws_fit(self) -> "DataConfig":
        for source in self.sources:
            if source.samples is not None and source.repeat != 1:
                raise ValueError(
                    f"train: samples {source.samples} and repeat {source.repeat:g}, expected one of both"
                )
        for source in self.val if isinstance(self.val, list) else [self.val]:
            if not isinstance(source, SourceConfig):
                continue
            if source.samples is not None or source.repeat != 1 or source.weight != 1:
                raise ValueError(
                    "val: samples, repeat and weight are for what is learnt; all of val is judged"
                )
            if source.role in ("pseudo", "unlabelled"):
                raise ValueError(f"val: {source.root} is {source.role}; a detector is judged by truth")
        return self


# What a named pipeline has in place of the defaults.
PIPELINES: dict[str, dict] = {
    "none": {"flip_horizontal": 0.0, "scale": (1.0, 1.0), "brightness": 0.0, "contrast": 0.0, "color": 0.0},
    "weak": {"scale": (0.9, 1.1), "brightness": 0.1, "contrast": 0.1, "color": 0.05},
    "standard": {},
    "strong": {
        "scale": (0.6, 1.4), "brightness": 0.4, "contrast": 0.4, "color": 0.2,
        "blur": 0.2, "jpeg": 0.2, "cutout": 0.3,
    },
}  # fmt: skip


# What `strength` multiplies, beside scales.
STRENGTHENED = (
    "aspect", "rotate", "brightness", "contrast", "color", "object_colors",
    "mosaic", "mixup", "paste", "blur", "jpeg", "cutout",
)  # fmt: skip


class AugmentConfig(Part):
    """Random changes of a training image: one affine warp, then colour; several may be put together."""

    # defaults of all that isn't said here: none, weak, standard or strong
    pipeline: Literal["none", "weak", "standard", "strong"] = "standard"
    # factor on ranges and chances, but for flips, turns and crops, which are as they are or not; 0: no change
    strength: Annotated[float, Field(ge=0)] = 1.0
    flip_horizontal: Share = 0.5  # probability
    flip_vertical: Share = 0.0
    quarter_turn: Share = 0.0  # probability of a turn by 90 degrees
    scale: tuple[float, float] = (0.75, 1.25)
    aspect: Annotated[float, Field(ge=0)] = 0.0  # greatest log of the change of width over height
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, either way
    crop: Size | None = None  # width, height of what a network trains on; None: image_size
    focus: Share = 0.0  # probability that a crop lies around some object, wherever else it would
    min_visible: Share = 0.2  # boxes with less of their area inside are no longer objects
    cut: Literal["mark", "drop"] = "mark"  # such boxes are ignored, or become background
    brightness: Share = 0.2
    contrast: Share = 0.2
    color: Share = 0.1  # each channel by itself
    # chance that an object's own colours change by brightness, contrast and color: of small, medium and large
    # ones as the network sees them, below 32 px, below 96 px and beyond
    object_colors: tuple[Share, Share, Share] = (0.0, 0.0, 0.0)
    mosaic: Share = 0.0  # probability that several images share a canvas
    # of a mosaic: columns and rows
    mosaic_tiles: tuple[Annotated[int, Field(ge=1, le=4)], Annotated[int, Field(ge=1, le=4)]] = (2, 2)
    mixup: Share = 0.0  # probability that two images are seen through each other
    paste: Share = 0.0  # probability that an object of another image is pasted
    blur: Share = 0.0  # probability of a Gaussian blur
    jpeg: Share = 0.0  # probability that the image is compressed, at quality 25 to 80
    cutout: Share = 0.0  # probability that one to three rectangles are cut out
    plain_end: Share = 0.15  # last part of the epochs, without mosaic, mixup and paste
    # range of a random factor on the size of each whole batch, padding included
    batch_scale: tuple[float, float] = (1.0, 1.0)
    # size of the first batches as a share of the whole one, into which they grow; 1: all are whole
    grow_from: Annotated[float, Field(gt=0, le=1)] = 1.0
    grow_until: Annotated[float, Field(gt=0, le=1)] = 0.8  # part of the steps in which they grow

    @model_validator(mode="before")
    @classmethod
    def _pipeline_gives_defaults(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not isinstance(content.get("pipeline"), str):
            return content
        return PIPELINES.get(content["pipeline"], {}) | content

    @model_validator(mode="after")
    def _scales_are_ranges(self) -> "AugmentConfig":
        for name, (low, high) in (("scale", self.scale), ("batch_scale", self.batch_scale)):
            if not 0 < low <= high:
                raise ValueError(f"{name} is {[low, high]}, expected two positive numbers in order")
        return self

    @model_validator(mode="after")
    def _a_mosaic_has_tiles(self) -> "AugmentConfig":
        if self.mosaic and self.mosaic_tiles == (1, 1):
            raise ValueError("mosaic_tiles is [1, 1], expected at least two tiles")
        return self

    def growth(self, share: float) -> float:
        """Size of batches as a share of the whole one, after a share of the run's steps."""
        return self.grow_from + (1 - self.grow_from) * min(1, share / self.grow_until)

    def applied(self) -> "AugmentConfig":
        """The changes at their `strength`, which then is 1."""
        changed: dict[str, Any] = {"strength": 1.0}
        for name in STRENGTHENED:
            value = getattr(self, name)
            most = 180.0 if name == "rotate" else math.inf if name == "aspect" else 1.0
            many = value if isinstance(value, tuple) else (value,)
            own = tuple(min(self.strength * v, most) for v in many)
            changed[name] = own if isinstance(value, tuple) else own[0]
        for name in ("scale", "batch_scale"):
            low, high = getattr(self, name)
            changed[name] = (low**self.strength, high**self.strength)
        return self.model_copy(update=changed)


class OptimizerConfig(Part):
    # schedule_free: AdamW that averages its own weights, with schedule.name: constant and ema: null; muon:
    # orthogonal steps of matrices, AdamW's of the rest
    name: Literal["adamw", "sgd", "schedule_free", "muon"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 2.0e-3
    # images a step, of all processes, that lr is meant for: with others it changes in proportion; null: lr as
    # it is
    lr_batch: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.03
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of sgd
    power: Annotated[float, Field(ge=0)] = 3.0  # schedule_free: its mean takes step k with weight k ** power
    # factor on the rate of the backbone's last stage, once more for each stage before it; 1: all learn alike
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0

    def rate(self, images: int) -> float:
        """Of steps of so many images (linear scaling; Goyal et al., Large Minibatches, 2017, section 2.1)."""
        return self.lr if self.lr_batch is None else self.lr * images / self.lr_batch

    def describe(self, images: int) -> str:
        """Name and rate of steps of so many images."""
        meant = "" if self.lr_batch is None else f" ({self.lr:g} for {self.lr_batch} images)"
        return f"{self.name} from {self.rate(images):g}{meant}"


class ScheduleConfig(Part):
    name: Literal[
        "cosine", "restarts", "polynomial", "cyclic", "multistep", "plateau", "one_cycle", "constant"
    ] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 100  # at most a fifth of all steps
    final: Annotated[float, Field(ge=0, le=1)] = 0.01  # least rate as a share of the greatest
    cycles: Positive = 3  # restarts: falls along a cosine; cyclic: rises and falls
    power: Annotated[float, Field(gt=0)] = 1.0  # polynomial: 1 falls in a line
    milestones: tuple[Share, ...] = (0.67, 0.92)  # multistep: shares of all steps
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1  # multistep, plateau: on the rate when it falls
    patience: Positive = 2  # plateau: evaluations without a better AP before the rate falls


class EMAConfig(Part):
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    start: Annotated[int, Field(ge=0)] = 0  # steps; before them it is the weights themselves


class TrainConfig(Part):
    epochs: Positive = 60
    # of the whole run, about, in place of epochs: as many as fit, by steps timed at the start, and anew where
    # the machine becomes much faster or slower; the run's own config has them. null: epochs decide
    minutes: Factor | None = None
    # images an epoch, drawn from all sources by their shares; null: as many as they give together
    epoch_images: Positive | None = None
    batch_size: Positive = 8  # a process
    seed: int = 0
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    ema: EMAConfig | None = EMAConfig()
    teacher: TeacherConfig | None = None
    distill: DistillConfig | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    # steps in which only what starts anew is trained, where model.weights gives the rest
    new_first: Annotated[int, Field(ge=0)] = 0
    # statistics of the batch norms that model.weights gives; keep: they stay, and scales are learnt alone
    norms: Literal["learn", "keep"] = "learn"
    accumulate: Positive = 1  # batches a step, each averaged over its own positives
    clip_norm: Annotated[float, Field(gt=0)] | None = 10.0
    workers: Annotated[int, Field(ge=0)] | None = None  # None: 0 on a CPU, else up to 8
    cache_gib: Annotated[float, Field(ge=0)] = 4.0  # memory for decoded pixels at training size
    evaluate_every: Positive | None = None  # epochs; None: about ten times a run, where that costs under 5 %
    # evaluations without a better AP, after which training ends; None: it goes on to the last epoch
    patience: Positive | None = None
    # of each class's operating threshold; None: the threshold of greatest F1
    wanted_precision: Annotated[float, Field(gt=0, le=1)] | None = None
    checkpoint_every: Positive | None = None  # steps; None: an epoch
    log_every: Positive = 20  # steps
    # where numbers go beside the run folder and TensorBoard, each by its own package and settings
    trackers: tuple[
        Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio", "wandb"], ...
    ] = ()
    keep: Annotated[int, Field(ge=0)] = 0  # last epochs whose weights are kept, for `boxwright average`

    def images_a_step(self, processes: int) -> int:
        """Of all processes together."""
        return self.batch_size * self.accumulate * processes

    @model_validator(mode="after")
    def _epochs_or_minutes(self) -> "TrainConfig":
        default = TrainConfig.model_fields["epochs"].default
        if self.minutes is not None and self.epochs != default:
            raise ValueError(f"epochs {self.epochs} and minutes {self.minutes:g}, expected one of both")
        return self

    @model_validator(mode="after")
    def _one_average_is_enough(self) -> "TrainConfig":
        free = self.optimizer.name == "schedule_free"
        if free and (self.schedule.name != "constant" or self.ema is not None):
            raise ValueError(
                "optimizer schedule_free has no schedule and an average of its own; expected schedule.name: "
                f"constant and ema: null, found {self.schedule.name} and {'an' if self.ema else 'no'} average"
            )
        return self

    @model_validator(mode="after")
    def _a_teacher_is_the_average(self) -> "TrainConfig":
        if self.teacher is not None and self.ema is None:
            raise ValueError("teacher is the moving average of the weights, and ema is null")
        if self.teacher is not None and self.minutes is not None:
            raise ValueError("minutes with a teacher, whose steps take longer than those timed: give epochs")
        return self


class ExperimentConfig(Part):
    data: DataConfig
    model: ModelConfig = CompactConfig()
    image_size: Size = (640, 640)  # width, height that images are fitted into
    # an image is judged and predicted in each of these, and the boxes are fused
    views: tuple[View, ...] = ("plain",)
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _rectangles_stay_rectangles(self) -> "ExperimentConfig":
        if isinstance(self.model, Oriented) and self.augment.aspect:
            raise ValueError(
                f"augment.aspect is {self.augment.aspect:g}, which makes parallelograms of oriented boxes;"
                f" expected 0 with {self.model.name}"
            )
        return self

    @model_validator(mode="after")
    def _shapes_differ(self) -> "ExperimentConfig":
        if self.data.sampling.alike == "shape" and self.augment.crop is not None:
            raise ValueError(
                "data.sampling.alike: shape spares no padding where augment.crop gives one shape"
            )
        return self

    @model_validator(mode="after")
    def _a_teacher_has_images(self) -> "ExperimentConfig":
        unlabelled = [source.root for source in self.data.sources if source.role == "unlabelled"]
        teacher = self.train.teacher
        if unlabelled and teacher is None:
            raise ValueError(f"{unlabelled[0]} is unlabelled: train.teacher finds its boxes, expected {{}}")
        if unlabelled and (self.augment.mosaic or self.augment.mixup):
            raise ValueError(
                f"{unlabelled[0]} is unlabelled: in a labelled image's mosaic or mixup its objects would be "
                "learnt as background; expected 0, "
                f"found mosaic {self.augment.mosaic:g} and mixup {self.augment.mixup:g}"
            )
        sampling = self.data.sampling
        if unlabelled and (sampling.background is not None or sampling.hard is not None):
            raise ValueError(
                f"{unlabelled[0]} is unlabelled: data.sampling.background and hard would take it for empty"
            )
        empty = [source.root for source in self.data.sources if source.role == "background"]
        if teacher is not None and teacher.labelled and empty:
            raise ValueError(
                f"{empty[0]} is background, where train.teacher.labelled would find objects: expected one "
                "of both"
            )
        if teacher is not None and not (unlabelled or teacher.labelled):
            raise ValueError(
                "train.teacher has no images: expected a source of role: unlabelled, or labelled: true"
            )
        return self

    @model_validator(mode="after")
    def _something_is_known(self) -> "ExperimentConfig":
        if self.train.new_first and self.model.weights is None:
            raise ValueError("train.new_first: everything starts anew, as model.weights gives nothing")
        if self.train.norms == "keep" and self.model.weights is None:
            raise ValueError("train.norms: there are no statistics to keep, as model.weights gives nothing")
        return self

    @model_validator(mode="after")
    def _views_differ(self) -> "ExperimentConfig":
        if not self.views or len(set(self.views)) < len(self.views):
            raise ValueError(f"views is {list(self.views)}, expected one or several that differ")
        return self
