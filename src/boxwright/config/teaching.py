"""What a YAML file may say of detectors that teach another one, with the defaults."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from boxwright.config.part import Part, Share


class TeacherConfig(Part):
    """The moving average of the weights finds boxes in images while they are learnt (mean teacher)."""

    start: Share = 0.3  # of the steps, before which images without labels teach nothing
    score: Share = 0.4  # of its boxes, from which they are objects
    doubt: Share = 0.15  # from which they are neither objects nor background
    labelled: bool = False  # it also adds what labelled images lack (MixTraining)

    @model_validator(mode="after")
    def _doubt_is_below(self) -> "TeacherConfig":
        if self.doubt > self.score:
            raise ValueError(f"doubt {self.doubt:g} is above score {self.score:g}")
        return self


class DistillConfig(Part):
    """What a trained detector finds at every place is learnt beside the labels."""

    checkpoint: str  # a run or a .safetensors of a detector with the same places and classes
    weight: Annotated[float, Field(gt=0)] = 1.0  # of its two losses beside those of the labels
    # mirror images in which it looks too: the mean of its scores is learnt, and the boxes of each
    views: tuple[Literal["plain", "horizontal", "vertical", "both"], ...] = ("plain",)

    @model_validator(mode="after")
    def _views_differ(self) -> "DistillConfig":
        if not self.views or len(set(self.views)) < len(self.views):
            raise ValueError(f"views is {list(self.views)}, expected one or several that differ")
        return self
