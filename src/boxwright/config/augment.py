"""What a YAML file may say of augmentation, with the defaults of named pipelines."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from boxwright.config.part import Part, Share, Size

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
