"""What a YAML file may say of a detector, with the defaults."""

from typing import Annotated, Literal

from pydantic import AliasChoices, Field, model_validator

from boxwright.config.part import ModelPart, Part, Positive, Share


class BackboneConfig(Part):
    name: str = "resnet18"  # of timm
    pretrained: bool = True
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    norm: Literal["batch", "group"] = "batch"
    norm_eval: bool = False
    # caffe: a ResNet's bottleneck has its stride in the first convolution; paddle: the first block of all
    # projects its shortcut
    style: Literal["pytorch", "caffe", "paddle"] = "pytorch"
    attention: Literal["none", "se", "cbam"] = "none"  # in a ResNet's blocks
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0


class NeckConfig(Part):
    name: Literal["fpn", "pafpn", "bifpn"] = "fpn"
    channels: Positive = 256
    levels: tuple[int, int] = (3, 7)  # the finest and the coarsest; level n has stride 2**n
    norm: Literal["none", "batch", "group"] = "none"
    # None: as the detector's paper has it; pool: every second place of the level before
    extra_from: Literal["input", "lateral", "output", "pool"] | None = None
    relu_before_extra: bool = True  # False: as MMDetection has it
    repeats: Positive | None = None  # of bifpn; None: 3
    context: Literal["none", "ssh"] = "none"  # what each level is seen through before the head

    @model_validator(mode="after")
    def _options_fit(self) -> "NeckConfig":
        low, high = self.levels
        if not 2 <= low <= 5 or not low < high <= 8:
            raise ValueError(
                f"levels is {list(self.levels)}, expected the finest (2 to 5), the coarsest (to 8)"
            )
        plain = self.norm == "none" and self.extra_from is None and self.relu_before_extra
        if self.name == "bifpn" and not plain:
            raise ValueError(
                "a bifpn has batch norm and pooled extra levels: norm, extra_from and "
                "relu_before_extra are for fpn and pafpn"
            )
        if self.name != "bifpn" and self.repeats is not None:
            raise ValueError(f"repeats is for bifpn, not for {self.name}")
        if self.context == "ssh" and self.channels % 4:
            raise ValueError(f"channels is {self.channels}; context ssh needs a multiple of 4")
        return self


class SelectionConfig(Part):
    score_threshold: Share = 0.01
    iou_threshold: Share = 0.6
    max_detections: Positive = 300
    candidates: Positive = 1000
    per_level: bool = False  # True: as many candidates of each level, as MMDetection has it
    vote: bool = False  # True: what suppression leaves takes the mean box of the candidates on it


class PyramidConfig(ModelPart):
    """Of a detector with a timm backbone, a pyramid and towers of convolutions for classes and boxes."""

    name: str
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    head_depth: Positive = 4
    head_norm: Literal["none", "batch", "group"] = "group"
    selection: SelectionConfig = SelectionConfig()


class TaskAlignedConfig(Part):
    name: Literal["task_aligned"] = "task_aligned"
    topk: Positive = 10
    alpha: Annotated[float, Field(ge=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 6.0


class CompactLossWeights(Part):
    cls: float = 1.0
    box: float = 5.0
    dfl: float = 1.0


class CompactConfig(ModelPart):
    name: Literal["compact"] = "compact"
    width: Annotated[float, Field(gt=0)] = 1.0
    channels: Positive = 64  # of neck and head at width 1
    head_depth: Positive = 1
    finest: Literal[4, 8] = 8  # stride of the finest map; 4 for objects of a dozen pixels
    reg_max: Annotated[int, Field(ge=2)] = 15
    assigner: TaskAlignedConfig = TaskAlignedConfig()
    loss_weights: CompactLossWeights = CompactLossWeights()
    selection: SelectionConfig = SelectionConfig(vote=True)


class OrientedLossWeights(Part):
    cls: float = 1.0
    iou: float = 2.5
    gaussian: float = 2.5
    angle: float = 0.5
    # Few pixels tell a heading, and a small weight never finds them. Called `front` before 0.2.
    heading: Annotated[float, Field(validation_alias=AliasChoices("heading", "front"))] = 4.0


class Oriented(ModelPart):
    """Of a detector of oriented boxes."""

    heading: bool = False  # True: the truth's angles tell front from back


class OrientedBoxes(Oriented):
    """Of one whose locations predict them."""

    gaussian: Literal["kld", "gwd", "prob_iou"] = "kld"  # the loss beside that of the IoU
    # The angle is that of the longer side; false: of either, as checkpoints from before 0.2 have it.
    long_edge: bool = True
    loss_weights: OrientedLossWeights = OrientedLossWeights()


class CompactOBBConfig(OrientedBoxes):
    name: Literal["compact_obb"]
    width: Annotated[float, Field(gt=0)] = 1.0
    channels: Positive = 64  # of neck and head at width 1
    head_depth: Positive = 1
    finest: Literal[4, 8] = 8  # stride of the finest map; 4 for objects of a dozen pixels
    assigner: TaskAlignedConfig = TaskAlignedConfig()
    selection: SelectionConfig = SelectionConfig(iou_threshold=0.4, vote=True)


class FCOSAssignerConfig(Part):
    name: Literal["fcos"] = "fcos"
    radius: Annotated[float, Field(ge=0)] = 1.5  # strides; 0: the whole box


class FCOSConfig(PyramidConfig):
    name: Literal["fcos"]
    distances: Literal["exp", "relu"] = "exp"  # of the head's numbers; relu: as torchvision has it
    distances_in_strides: bool = True  # False: pixels, as in the paper
    point_offset: Share = 0.5  # of a point in its cell; 0: its corner, as torchvision has it
    tower_bias: bool = False  # before a norm too; True: as torchvision has it
    centerness_on_cls: bool = False  # True: as in the paper
    box_loss: Literal["giou", "log_iou"] = "giou"  # log_iou: as in the paper
    box_average: Literal["centerness", "plain"] = "centerness"  # plain: as torchvision has it
    rank: Literal["root", "product"] = "root"  # of class score times centerness; product: as in the paper
    assigner: FCOSAssignerConfig = FCOSAssignerConfig()


class NASFCOSConfig(ModelPart):
    name: Literal["nas_fcos"]
    backbone: BackboneConfig = BackboneConfig(name="resnet50")
    channels: Positive = 256  # of pyramid and towers
    distances_in_strides: bool = True  # False: pixels, as in the original
    box_loss: Literal["giou", "log_iou"] = "giou"  # log_iou: as in the original
    rank: Literal["root", "product"] = "root"  # of class score times centerness; product: as in the original
    assigner: FCOSAssignerConfig = FCOSAssignerConfig()
    selection: SelectionConfig = SelectionConfig()


class FCOSOBBConfig(OrientedBoxes, PyramidConfig):
    name: Literal["fcos_obb"]
    assigner: FCOSAssignerConfig = FCOSAssignerConfig()


class MaxIoUConfig(Part):
    name: Literal["max_iou"] = "max_iou"
    positive_iou: Share = 0.5
    negative_iou: Share = 0.4
    low_quality: bool = True
    # Whose a box's best anchor is: that box's, or the box's that it overlaps best, as in torchvision.
    peak_to: Literal["peak", "best"] = "peak"
    ignore_coverage: Share = 0.5


class AnchorConfig(Part):
    base_scale: Annotated[float, Field(gt=0)] = 4.0  # strides
    scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height over width
    rounded: bool = False  # True: to whole pixels, as torchvision has it


class SampleConfig(Part):
    name: Literal["random", "ohem"]
    count: Positive = 512  # priors an image
    positive_share: Share = 0.25  # at most


class HardNegativeConfig(Part):
    name: Literal["hard_negative"]
    ratio: Annotated[float, Field(gt=0)] = 3.0  # of negatives to positives


class PrimeConfig(Part):
    name: Literal["prime"]  # PISA
    power: Annotated[float, Field(ge=0)] = 2.0
    bias: Share = 0.0


SamplerConfig = Annotated[SampleConfig | HardNegativeConfig | PrimeConfig, Field(discriminator="name")]


class AnchorBasedConfig(PyramidConfig):
    head_norm: Literal["none", "batch", "group"] = "none"
    anchors: AnchorConfig = AnchorConfig()
    smooth_l1_beta: Annotated[float, Field(ge=0)] = 0.0


class RetinaNetConfig(AnchorBasedConfig):
    name: Literal["retinanet"]
    assigner: MaxIoUConfig = MaxIoUConfig()
    cls_loss: Literal["focal", "cross_entropy"] = "focal"
    box_loss: Literal["smooth_l1", "balanced_l1", "giou", "diou", "ciou"] = "smooth_l1"
    # Which priors enter the class loss; null: all, as focal loss wants it.
    sampler: SamplerConfig | None = None

    @model_validator(mode="after")
    def _beta_is_for_smooth_l1(self) -> "RetinaNetConfig":
        if self.smooth_l1_beta and self.box_loss != "smooth_l1":
            raise ValueError(f"smooth_l1_beta is for box_loss smooth_l1, not for {self.box_loss}")
        return self


class RetinaNetOBBConfig(OrientedBoxes, PyramidConfig):
    name: Literal["retinanet_obb"]
    head_norm: Literal["none", "batch", "group"] = "none"
    anchors: AnchorConfig = AnchorConfig()
    assigner: MaxIoUConfig = MaxIoUConfig()  # compares anchors with the upright hulls of boxes


class FreeAnchorConfig(AnchorBasedConfig):
    name: Literal["freeanchor"]
    smooth_l1_beta: Annotated[float, Field(ge=0)] = 0.11
    bag: Positive = 50  # anchors a box may choose from
    box_iou: Share = 0.6
    alpha: Share = 0.5
    gamma: Annotated[float, Field(ge=0)] = 2.0
    box_weight: Annotated[float, Field(gt=0)] = 0.75


class SSDConfig(ModelPart):
    name: Literal["ssd"]
    input_size: Literal[300, 512] = 300  # which maps and anchors; images of another size are taken too
    negatives: Annotated[float, Field(gt=0)] = 3.0  # for each positive
    width: Annotated[float, Field(gt=0)] = 1.0  # of the channels
    clip_anchors: bool = False  # True: no side is longer than input_size, as torchvision has it
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # of RGB; torchvision: 123, 117, 104
    selection: SelectionConfig = SelectionConfig(iou_threshold=0.45)


class ATSSAssignerConfig(Part):
    name: Literal["atss"] = "atss"
    topk: Positive = 9


class ATSSConfig(PyramidConfig):
    name: Literal["atss"]
    anchor_scale: Annotated[float, Field(gt=0)] = 8.0  # strides
    assigner: ATSSAssignerConfig = ATSSAssignerConfig()
    box_weight: Annotated[float, Field(gt=0)] = 2.0


class ATSSOBBConfig(OrientedBoxes, PyramidConfig):
    name: Literal["atss_obb"]
    anchor_scale: Annotated[float, Field(gt=0)] = 8.0  # strides, of the squares that are assigned
    assigner: ATSSAssignerConfig = ATSSAssignerConfig()


class VFNetConfig(PyramidConfig):
    name: Literal["vfnet"]
    head_depth: Positive = 3
    anchor_scale: Annotated[float, Field(gt=0)] = 8.0  # strides, of the anchors that are assigned
    star_gradient: Share = 0.1  # of the star's gradient, what reaches the first boxes
    assigner: ATSSAssignerConfig = ATSSAssignerConfig()
    box_weight: Annotated[float, Field(gt=0)] = 1.5
    refined_weight: Annotated[float, Field(gt=0)] = 2.0


class GFLConfig(PyramidConfig):
    name: Literal["gfl"]
    anchor_scale: Annotated[float, Field(gt=0)] = 8.0  # strides, of the anchors that are assigned
    reg_max: Annotated[int, Field(ge=2)] = 16
    assigner: ATSSAssignerConfig = ATSSAssignerConfig()
    box_weight: Annotated[float, Field(gt=0)] = 2.0
    dfl_weight: Annotated[float, Field(gt=0)] = 0.25


class DSSDConfig(ModelPart):
    name: Literal["dssd"]
    input_size: Literal[320, 512] = 320  # which maps and anchors; images of another size are taken too
    backbone: BackboneConfig = BackboneConfig(name="resnet101")
    channels: Positive = 256  # of the way back up
    negatives: Annotated[float, Field(gt=0)] = 3.0  # for each positive
    selection: SelectionConfig = SelectionConfig(iou_threshold=0.45)


class GridAssignerConfig(Part):
    name: Literal["grid"] = "grid"
    positive_iou: Share = 0.5  # above it more anchors of a box's cell than the best are positive
    negative_iou: Share = 0.5  # above it anchors elsewhere don't count


Anchors = tuple[tuple[float, float], ...]  # widths and heights of a level, px


class YOLOv3Config(ModelPart):
    name: Literal["yolov3"]
    channels: Positive = 32  # of the first convolution
    # Finest level first; `boxwright data anchors` fits them to a data set.
    anchors: tuple[Anchors, Anchors, Anchors] = (
        ((10, 13), (16, 30), (33, 23)),
        ((30, 61), (62, 45), (59, 119)),
        ((116, 90), (156, 198), (373, 326)),
    )
    assigner: GridAssignerConfig = GridAssignerConfig()
    box_weight: Annotated[float, Field(gt=0)] = 2.0
    least_objectness: Share = 0.005
    clip: bool = True  # False: boxes may leave the image, as in MMDetection
    selection: SelectionConfig = SelectionConfig(iou_threshold=0.45)

    @model_validator(mode="after")
    def _anchors_are_sizes(self) -> "YOLOv3Config":
        counts = {len(level) for level in self.anchors}
        if len(counts) != 1 or 0 in counts:
            raise ValueError("anchors: expected equally many pairs in each level")
        if any(side <= 0 for level in self.anchors for size in level for side in size):
            raise ValueError("anchors: expected positive widths and heights")
        return self


class SimOTAConfig(Part):
    name: Literal["simota"] = "simota"
    radius: Annotated[float, Field(gt=0)] = 2.5  # strides
    topk: Positive = 10
    iou_weight: Annotated[float, Field(ge=0)] = 3.0


class OTAConfig(Part):
    name: Literal["ota"]
    radius: Annotated[float, Field(gt=0)] = 2.5  # strides
    topk: Positive = 20
    iou_weight: Annotated[float, Field(ge=0)] = 1.5
    epsilon: Annotated[float, Field(gt=0)] = 0.1
    iterations: Positive = 50


class YOLOXConfig(ModelPart):
    name: Literal["yolox"]
    width: Annotated[float, Field(gt=0)] = 0.5  # YOLOX-S; Nano 0.25, Tiny 0.375, M 0.75, L 1
    depth: Annotated[float, Field(gt=0)] = 0.33  # Nano, Tiny and S; M 0.67, L 1
    depthwise: bool = False  # True: YOLOX-Nano's convolutions of each channel by itself
    assigner: Annotated[SimOTAConfig | OTAConfig, Field(discriminator="name")] = SimOTAConfig()
    box_weight: Annotated[float, Field(gt=0)] = 5.0
    clip: bool = True  # False: boxes may leave the image, as in the original
    selection: SelectionConfig = SelectionConfig(iou_threshold=0.65)


class EfficientDetConfig(ModelPart):
    name: Literal["efficientdet"]
    size: Annotated[int, Field(ge=0, le=7)] = 0  # D0 to D7
    pretrained: bool = True  # of the backbone
    style: Literal["pytorch", "tensorflow"] = "pytorch"  # tensorflow: the original's padding and biases
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    norm_eval: bool = False
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2
    selection: SelectionConfig = SelectionConfig(iou_threshold=0.5)
