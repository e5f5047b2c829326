"""Every detector that a YAML file may name."""

from typing import Annotated

from pydantic import Field

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
from boxwright.config.regions import CascadeRCNNConfig, FasterRCNNConfig, FasterRCNNOBBConfig
from boxwright.config.sets import DETRConfig, DFINEConfig, RTDETRConfig

ModelConfig = Annotated[
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
    | EfficientDetConfig,
    Field(discriminator="name"),
]
