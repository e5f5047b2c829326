"""Every detector that a YAML file may name, and the classifier that a backbone learns from."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from boxwright.config.faces import RetinaFaceConfig
from boxwright.config.models import (
    ATSSConfig,
    ATSSOBBConfig,
    CompactConfig,
    CompactOBBConfig,
    DSSDConfig,
    EfficientDetConfig,
    FCOSConfig,
    FCOSOBBConfig,
    FreeAnchorConfig,
    GFLConfig,
    NASFCOSConfig,
    RetinaNetConfig,
    RetinaNetOBBConfig,
    SSDConfig,
    VFNetConfig,
    YOLOv3Config,
    YOLOXConfig,
)
from boxwright.config.part import ModelPart, Positive
from boxwright.config.regions import CascadeRCNNConfig, FasterRCNNConfig, FasterRCNNOBBConfig
from boxwright.config.sets import DETRConfig, DFINEConfig, DFINEOBBConfig, RTDETRConfig

Detectors = (
    CompactConfig
    | CompactOBBConfig
    | FCOSConfig
    | NASFCOSConfig
    | FCOSOBBConfig
    | RetinaNetConfig
    | RetinaNetOBBConfig
    | FasterRCNNConfig
    | CascadeRCNNConfig
    | FasterRCNNOBBConfig
    | DETRConfig
    | RTDETRConfig
    | DFINEConfig
    | DFINEOBBConfig
    | RetinaFaceConfig
    | FreeAnchorConfig
    | ATSSConfig
    | ATSSOBBConfig
    | GFLConfig
    | VFNetConfig
    | SSDConfig
    | DSSDConfig
    | YOLOv3Config
    | YOLOXConfig
    | EfficientDetConfig
)


class ClassifierConfig(ModelPart):
    """What `boxwright pretrain` trains: a detector's backbone, and classes over the mean of its last map."""

    name: Literal["classifier"]
    # whose backbone it is; what it starts from and freezes is said of the classifier
    detector: Annotated[Detectors, Field(discriminator="name")]
    canvas: Positive = 224  # least side of a batch, px: what is averaged
    # of cosines, where each image is a class of its own; null: plain logits
    temperature: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _detector_starts_from_nothing(self) -> "ClassifierConfig":
        for key in ("weights", "freeze"):
            if getattr(self.detector, key):
                raise ValueError(
                    f"detector.{key} is for training the detector; {key} itself is the classifier's"
                )
        return self


ModelConfig = Annotated[Detectors | ClassifierConfig, Field(discriminator="name")]
