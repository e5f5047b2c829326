"""What a YAML file may say of data: sources, which images are drawn, classes."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from boxwright.config.part import Factor, Part, Positive, Share


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
