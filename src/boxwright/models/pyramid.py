"""From images to a pyramid: the backbone and neck that most dense detectors have in common."""

from typing import Literal

from torch import nn

from boxwright.config.faces import RetinaFaceConfig
from boxwright.config.models import PyramidConfig
from boxwright.config.regions import FasterRCNNConfig
from boxwright.models.backbones.timm import TimmBackbone
from boxwright.models.necks.bifpn import BiFPN
from boxwright.models.necks.fpn import FPN
from boxwright.models.necks.ssh import SSHContext

COARSEST_MAP = 5  # backbones end at stride 2**5


def make_pyramid(
    config: PyramidConfig | FasterRCNNConfig | RetinaFaceConfig,
    extra_from: Literal["input", "output", "pool"],
) -> tuple[TimmBackbone, nn.Module, tuple[int, ...]]:
    """Backbone, neck and the strides of the neck's levels.

    Args:
        config: of the detector.
        extra_from: what levels beyond the backbone's are made from where the config leaves it open.
    """
    neck = config.neck
    low, high = neck.levels
    strides = tuple(2**level for level in range(low, high + 1))
    own = strides[: COARSEST_MAP - low + 1]
    backbone = TimmBackbone(**config.backbone.model_dump(), strides=own)
    if neck.name == "bifpn":
        pyramid = BiFPN(backbone.channels, neck.channels, neck.repeats or 3, len(strides) - len(own))
    else:
        pyramid = FPN(
            backbone.channels,
            neck.channels,
            len(strides) - len(own),
            neck.extra_from or extra_from,
            neck.norm,
            relu_before_extra=neck.relu_before_extra,
            bottom_up=neck.name == "pafpn",
        )
    if neck.context == "ssh":
        pyramid = nn.Sequential(pyramid, SSHContext(neck.channels, len(strides)))
    return backbone, pyramid, strides
