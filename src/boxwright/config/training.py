"""What a YAML file may say of training: optimizer, schedule, moving average, length and precision."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from boxwright.config.part import Factor, Part, Positive, Share
from boxwright.config.teaching import DistillConfig, TeacherConfig


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
