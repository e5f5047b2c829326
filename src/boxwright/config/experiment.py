"""What a YAML file says as a whole, and which of its parts go together."""

from typing import Literal

from pydantic import model_validator

from boxwright.config.augment import AugmentConfig
from boxwright.config.data import DataConfig
from boxwright.config.detectors import ModelConfig
from boxwright.config.models import CompactConfig, Oriented
from boxwright.config.part import Part, Size
from boxwright.config.training import TrainConfig

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
