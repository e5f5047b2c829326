"""What all of an experiment's parts have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Size = tuple[Positive, Positive]  # width, height


class Part(BaseModel):
    """A part of an experiment: unknown keys are errors, and nothing changes once it is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPart(Part):
    """What every detector may say."""

    # what it starts from: a name of `boxwright zoo`, hf://owner/repo, an address, a file or a run folder
    weights: str | None = None
    weights_from: str | None = None  # toolbox of a file that isn't boxwright's, as for import-checkpoint
    class_map: dict[str, str] = {}  # classes of the weights to those learnt from them, where names differ
    freeze: tuple[str, ...] = ()  # parts that aren't trained: backbone, neck, backbone.body.layer1

    @model_validator(mode="after")
    def _weights_are_given(self) -> "ModelPart":
        for key in ("weights_from", "class_map"):
            if getattr(self, key) and self.weights is None:
                raise ValueError(f"{key} is for weights, and model.weights gives none")
        return self
