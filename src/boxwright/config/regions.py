"""What a YAML file may say of detectors with proposals, with the defaults."""

from typing import Annotated, Literal

from pydantic import Field

from boxwright.config.models import (
    AnchorConfig,
    BackboneConfig,
    MaxIoUConfig,
    NeckConfig,
    Oriented,
    SampleConfig,
    SelectionConfig,
)
from boxwright.config.part import ModelPart, Part, Positive, Share


class RegionNeckConfig(NeckConfig):
    levels: tuple[int, int] = (2, 6)  # the finest and the coarsest; level n has stride 2**n


class RegionAnchorConfig(AnchorConfig):
    base_scale: Annotated[float, Field(gt=0)] = 8.0  # strides
    scales: tuple[float, ...] = (1.0,)


class RPNAssignerConfig(MaxIoUConfig):
    positive_iou: Share = 0.7
    negative_iou: Share = 0.3
    least_peak: Share = 0.3  # IoU that a box's best anchor needs to be assigned to it


class RPNConfig(Part):
    """Of the proposals."""

    assigner: RPNAssignerConfig = RPNAssignerConfig()
    sample: Positive = 256  # anchors an image that are learnt from
    positive_share: Share = 0.5  # at most
    smooth_l1_beta: Annotated[float, Field(ge=0)] = 0.0
    candidates: Positive = 1000  # of each level, before suppression
    train_candidates: Positive = 2000  # the same in training
    proposals: Positive = 1000  # of each image
    iou_threshold: Share = 0.7  # of the suppression


class RegionConfig(Part):
    """Of the regions that the second stage classifies and refines."""

    sampler: SampleConfig = SampleConfig(name="random")
    class_agnostic: bool = False  # one box for all classes
    # samples a place and side; 0: one a cell, as MMDetection has it, several times slower on a processor
    sampling_ratio: Annotated[int, Field(ge=0)] = 2
    aligned: bool = True  # False: cells aren't shifted by a half, as torchvision has it
    smooth_l1_beta: Annotated[float, Field(ge=0)] = 0.0


class StageConfig(Part):
    positive_iou: Share = 0.5  # from which a region is of a box
    # that deltas are divided by
    deviations: Annotated[tuple[float, ...], Field(min_length=4, max_length=4)] = (0.1, 0.1, 0.2, 0.2)
    weight: Annotated[float, Field(gt=0)] = 1.0  # of the losses


class FasterRCNNConfig(ModelPart):
    name: Literal["faster_rcnn"]
    backbone: BackboneConfig = BackboneConfig()
    neck: RegionNeckConfig = RegionNeckConfig()
    anchors: RegionAnchorConfig = RegionAnchorConfig()
    rpn: RPNConfig = RPNConfig()
    regions: RegionConfig = RegionConfig()
    hidden: Positive = 1024  # of the fully connected layers
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)] = (StageConfig(),)
    selection: SelectionConfig = SelectionConfig(iou_threshold=0.5)


class CascadeRegionConfig(RegionConfig):
    class_agnostic: bool = True  # one box for all classes


class CascadeRCNNConfig(FasterRCNNConfig):
    name: Literal["cascade_rcnn"]
    regions: CascadeRegionConfig = CascadeRegionConfig()
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)] = (
        StageConfig(),
        StageConfig(positive_iou=0.6, deviations=(0.05, 0.05, 0.1, 0.1), weight=0.5),
        StageConfig(positive_iou=0.7, deviations=(0.033, 0.033, 0.067, 0.067), weight=0.25),
    )


class OrientedRegionConfig(RegionConfig):
    class_agnostic: bool = True  # one box for all classes
    sampling_ratio: Positive = 2  # samples a place and side


class OrientedStageConfig(StageConfig):
    # that deltas are divided by, the last those of the angle
    deviations: Annotated[tuple[float, ...], Field(min_length=5, max_length=5)] = (0.1, 0.1, 0.2, 0.2, 0.1)


class OrientedRPNConfig(RPNConfig):
    iou_threshold: Share = 0.8  # of the suppression, which compares upright hulls


class FasterRCNNOBBConfig(Oriented, FasterRCNNConfig):
    name: Literal["faster_rcnn_obb"]
    rpn: OrientedRPNConfig = OrientedRPNConfig()
    regions: OrientedRegionConfig = OrientedRegionConfig()
    stages: Annotated[tuple[OrientedStageConfig, ...], Field(min_length=1)] = (OrientedStageConfig(),)
    heading_weight: Annotated[float, Field(ge=0)] = 1.0  # of the loss of `heading`
    selection: SelectionConfig = SelectionConfig(iou_threshold=0.4)
