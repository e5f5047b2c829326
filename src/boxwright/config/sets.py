"""What a YAML file may say of detectors that predict a set, with the defaults."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from boxwright.config.models import BackboneConfig, Oriented
from boxwright.config.part import ModelPart, Part, Positive, Share


class SetSelectionConfig(Part):
    """Of a detector that predicts a set: nothing is suppressed."""

    score_threshold: Share = 0.01
    iou_threshold: Share = 0.6  # by which boxes of several views and tiles are fused
    max_detections: Positive = 300


class DETRLossWeights(Part):
    """Of the losses, and of the costs by which predictions are matched."""

    cls: Annotated[float, Field(gt=0)] = 1.0
    l1: Annotated[float, Field(gt=0)] = 5.0
    giou: Annotated[float, Field(gt=0)] = 2.0
    background: Annotated[float, Field(gt=0)] = 0.1  # of predictions without an object in the class loss


class DETRConfig(ModelPart):
    name: Literal["detr"]
    backbone: BackboneConfig = BackboneConfig(name="resnet50")
    queries: Positive = 100  # the most objects that an image can have
    channels: Annotated[int, Field(gt=0, multiple_of=4)] = 256
    heads: Positive = 8
    hidden: Positive = 2048  # of the perceptrons
    encoder_layers: Annotated[int, Field(ge=0)] = 6
    decoder_layers: Positive = 6
    positions: Literal["sine", "learned"] = "sine"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    loss_weights: DETRLossWeights = DETRLossWeights()
    selection: SetSelectionConfig = SetSelectionConfig()

    @model_validator(mode="after")
    def _heads_divide_channels(self) -> "DETRConfig":
        if self.channels % self.heads:
            raise ValueError(f"channels is {self.channels}, expected a multiple of the {self.heads} heads")
        return self


class SetLossWeights(Part):
    cls: Annotated[float, Field(ge=0)] = 1.0
    l1: Annotated[float, Field(ge=0)] = 5.0
    giou: Annotated[float, Field(ge=0)] = 2.0


class DFINELossWeights(SetLossWeights):
    fgl: Annotated[float, Field(ge=0)] = 0.15  # of the distributions of sides
    ddf: Annotated[float, Field(ge=0)] = 1.5  # of their distance from the last layer's


class QuerySetConfig(ModelPart):
    """Of a set predictor whose queries are chosen among the image's places."""

    pretrained: bool = True  # of the backbone
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    norm_eval: bool = False
    queries: Positive = 300  # the most objects that an image can have
    denoising: Positive = 100  # queries made of the truth in training, about
    label_noise: Share = 0.5  # of their labels
    box_noise: Annotated[float, Field(ge=0)] = 1.0  # shift of their sides, at most, in halves of the box
    sampling: Literal["bilinear", "discrete"] = "bilinear"  # discrete: the nearest cell, easier to export
    cls_loss: Literal["varifocal", "mal"] = "varifocal"  # mal: DEIM's matching-aware loss
    selection: SetSelectionConfig = SetSelectionConfig()


class RTDETRConfig(QuerySetConfig):
    name: Literal["rtdetr"]
    size: Literal[18, 34, 50, 101] = 18  # of the ResNet
    loss_weights: SetLossWeights = SetLossWeights()


class DFINEConfig(QuerySetConfig):
    name: Literal["dfine"]
    size: Literal["n", "s", "m", "l", "x"] = "n"
    union_matching: bool = True  # boxes of all layers learn the match that most layers have
    loss_weights: DFINELossWeights = DFINELossWeights()


class OrientedSetLossWeights(DFINELossWeights):
    giou: Annotated[float, Field(ge=0)] = 2.0  # of 1 - IoU and the divergence of Gaussians


class DFINEOBBConfig(Oriented, DFINEConfig):
    name: Literal["dfine_obb"]
    loss_weights: OrientedSetLossWeights = OrientedSetLossWeights()
    heading_weight: Annotated[float, Field(ge=0)] = 1.0  # of the loss of `heading`
