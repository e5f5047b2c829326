"""What all of an experiment's parts have in common."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Factor = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Size = tuple[Positive, Positive]  # width, height


class Part(BaseModel):
    """A part of an experiment: unknown keys are errors, and nothing changes once it is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_parts_stay(cls, content: Any) -> Any:
        """Where a part has defaults of its own here, naming one of its keys leaves the others as they are."""
        if not isinstance(content, dict):
            return content
        filled = dict(content)
        for name, field in cls.model_fields.items():
            default, given = field.default, content.get(name)
            if isinstance(default, Part) and isinstance(given, dict):
                filled[name] = _laid_over(default, given)
        return filled


def _laid_over(default: Part, given: dict) -> dict:
    """What is given, and for keys that it doesn't name what a default of the same kind was made with."""
    kind = getattr(default, "name", None)
    if given.get("name", kind) != kind:
        return given
    own = {name: getattr(default, name) for name in default.model_fields_set}
    return own | {
        name: _laid_over(own[name], value)
        if isinstance(value, dict) and isinstance(own.get(name), Part)
        else value
        for name, value in given.items()
    }


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
