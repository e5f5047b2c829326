"""What a YAML file may say of a detector of faces, with the defaults."""

from typing import Annotated, Literal

from pydantic import Field

from boxwright.config.models import AnchorConfig, BackboneConfig, MaxIoUConfig, NeckConfig, SelectionConfig
from boxwright.config.part import ModelPart, Share


class FaceNeckConfig(NeckConfig):
    levels: tuple[int, int] = (2, 6)  # the finest and the coarsest; level n has stride 2**n
    norm: Literal["none", "batch", "group"] = "batch"
    context: Literal["none", "ssh"] = "ssh"  # what each level is seen through before the head


class FaceAnchorConfig(AnchorConfig):
    ratios: tuple[float, ...] = (1.0,)  # height over width


class FaceAssignerConfig(MaxIoUConfig):
    negative_iou: Share = 0.3  # below it an anchor is background


class RetinaFaceConfig(ModelPart):
    name: Literal["retinaface"]
    backbone: BackboneConfig = BackboneConfig()
    neck: FaceNeckConfig = FaceNeckConfig()
    anchors: FaceAnchorConfig = FaceAnchorConfig()
    assigner: FaceAssignerConfig = FaceAssignerConfig()
    negatives: Annotated[float, Field(gt=0)] = 3.0  # for each positive
    box_weight: Annotated[float, Field(ge=0)] = 0.25  # of the loss of boxes
    landmark_weight: Annotated[float, Field(ge=0)] = 0.1  # of the loss of landmarks
    selection: SelectionConfig = SelectionConfig(iou_threshold=0.4)
