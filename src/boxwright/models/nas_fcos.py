"""NAS-FCOS: FCOS with a pyramid and a head that were searched for.

Wang et al., NAS-FCOS: Fast Neural Architecture Search for Object Detection, CVPR 2020.
"""

from torch import nn

from boxwright.config.models import NASFCOSConfig
from boxwright.models.backbones.timm import TimmBackbone
from boxwright.models.deformable import ModulatedConv
from boxwright.models.detections import Selection
from boxwright.models.fcos import FCOS
from boxwright.models.heads.dense import DenseHead
from boxwright.models.layers import ConvNorm, make_norm
from boxwright.models.necks.nas import GROUPS, NASFPN

STRIDES = (8, 16, 32, 64, 128)


class NASFCOS(FCOS):
    """FCOS of searched parts: see the module's docstring."""

    @classmethod
    def from_config(cls, config: NASFCOSConfig, num_classes: int) -> "NASFCOS":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Build the parts that a checked config describes."""
        backbone = TimmBackbone(**config.backbone.model_dump(), strides=STRIDES[:3])
        neck = NASFPN(backbone.channels, config.channels, len(STRIDES) - len(backbone.channels))
        head = DenseHead(
            config.channels, num_classes, depth=0, norm="group", quality="cls", levels=len(STRIDES)
        )
        head.cls_tower, head.box_tower = searched_tower(config.channels), searched_tower(config.channels)
        return cls(
            backbone,
            neck,
            head,
            STRIDES,
            config.assigner.radius,
            relu=False,
            in_strides=config.distances_in_strides,
            point_offset=0.5,
            log_iou=config.box_loss == "log_iou",
            plain=False,
            product=config.rank == "product",
            selection=Selection(**config.selection.model_dump()),
        )


def searched_tower(channels: int) -> nn.Sequential:
    """Deformable, plain, deformable and 1x1 convolution, each with group norm (section 4.1, figure 4)."""

    def deformable() -> nn.Sequential:
        return nn.Sequential(
            ModulatedConv(channels, GROUPS), make_norm("group", channels), nn.ReLU(inplace=True)
        )

    return nn.Sequential(
        deformable(),
        ConvNorm(channels, channels, norm="group"),
        deformable(),
        ConvNorm(channels, channels, 1, norm="group"),
    )
