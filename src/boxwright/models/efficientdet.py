"""EfficientDet: RetinaNet's anchors and loss on a BiFPN, with separable convolutions, in eight sizes.

Tan et al., EfficientDet: Scalable and Efficient Object Detection, CVPR 2020.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.config.models import EfficientDetConfig
from boxwright.data.targets import Targets
from boxwright.losses.box import smooth_l1_loss
from boxwright.losses.classification import focal_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.backbones.timm import TimmBackbone
from boxwright.models.box_coder import encode_deltas
from boxwright.models.detections import Selection
from boxwright.models.heads.dense import flatten_level
from boxwright.models.layers import SeparableConv
from boxwright.models.necks.bifpn import BiFPN, make_bifpn_norm
from boxwright.models.points import one_hot, targets_of_points
from boxwright.models.retinanet import RetinaNet
from boxwright.models.ssd import assign_by_half

# Backbone, channels, repeats of the BiFPN and of the head (table 1); whether the BiFPN learns weights, and
# the smallest anchor in strides (the original's code: the largest sizes trained more stably without).
SIZES = (
    ("b0", 64, 3, 3, True, 4.0),
    ("b1", 88, 4, 3, True, 4.0),
    ("b2", 112, 5, 3, True, 4.0),
    ("b3", 160, 6, 4, True, 4.0),
    ("b4", 224, 7, 4, True, 4.0),
    ("b5", 288, 7, 4, True, 4.0),
    ("b6", 384, 8, 5, False, 4.0),
    ("b6", 384, 8, 5, False, 5.0),
)
STRIDES = (8, 16, 32, 64, 128)
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
SHAPES = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))  # width and height
FOCUS = 1.5  # gamma of the focal loss
HUBER = 0.1  # where the box loss turns linear
BOX_WEIGHT = 50.0


class EfficientHead(nn.Module):
    """Convolutions that all levels share, between norms of each level's own.

    Args:
        channels: of the pyramid.
        width: numbers a prior.
        priors: anchors a location.
        depth: of the tower.
        levels: of the pyramid.
        conv_bias: convolutions before a norm have a bias too.
    """

    def __init__(self, channels: int, width: int, priors: int, depth: int, levels: int, conv_bias: bool):
        super().__init__()
        self.width = width
        self.convs = nn.ModuleList(SeparableConv(channels, channels, conv_bias) for _ in range(depth))
        self.norms = nn.ModuleList(
            nn.ModuleList(make_bifpn_norm(channels) for _ in range(levels)) for _ in range(depth)
        )
        self.predict = SeparableConv(channels, priors * width, bias=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=(1 / module.weight[0].numel()) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """(B, A, width), levels side by side."""
        predictions = []
        for level, features in enumerate(pyramid):
            for conv, norms in zip(self.convs, self.norms):
                assert isinstance(norms, nn.ModuleList)
                features = F.silu(norms[level](conv(features)))
            predictions.append(flatten_level(self.predict(features), self.width))
        return torch.cat(predictions, dim=1)


class EfficientHeads(nn.Module):
    """One head for classes, one for boxes."""

    def __init__(self, cls: EfficientHead, box: EfficientHead):
        super().__init__()
        self.cls, self.box = cls, box

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor, None]:
        """Logits (B, A, C) and deltas (B, A, 4)."""
        return self.cls(pyramid), self.box(pyramid), None


class EfficientDet(RetinaNet):
    """See the module's docstring; made by `from_config`, run and decoded as RetinaNet."""

    @classmethod
    def from_config(cls, config: EfficientDetConfig, num_classes: int) -> "EfficientDet":
        """Build the size that a checked config names."""
        name, channels, repeats, depth, weighted, side = SIZES[config.size]
        tensorflow = config.style == "tensorflow"
        backbone = TimmBackbone(
            f"{'tf_' if tensorflow else ''}efficientnet_{name}",
            config.pretrained,
            frozen_stages=config.frozen_stages,
            norm_eval=config.norm_eval,
            drop_path=config.drop_path,
        )
        neck = BiFPN(
            backbone.channels,
            channels,
            repeats,
            len(STRIDES) - 3,
            weighted=weighted,
            same=tensorflow,
            conv_bias=tensorflow,
        )
        priors = len(SCALES) * len(SHAPES)
        cls_head, box_head = (
            EfficientHead(channels, width, priors, depth, len(STRIDES), tensorflow)
            for width in (num_classes, 4)
        )
        bias = cls_head.predict[1].bias
        assert isinstance(bias, Tensor)
        nn.init.constant_(bias, -math.log((1 - 0.01) / 0.01))  # RetinaNet, section 4.1
        return cls(
            backbone,
            neck,
            EfficientHeads(cls_head, box_head),
            STRIDES,
            [_base_anchors(side * stride) for stride in STRIDES],
            Selection(**config.selection.model_dump()),
            anchor_offset=0.5,
        )

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Anchors that overlap a box by half, and the best of each."""
        return assign_by_half(outputs, targets)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls` and `box`, each a scalar."""
        logits, anchors = outputs["cls_logits"].float(), outputs["anchors"]
        assigned = self.assign(outputs, targets)
        positive, gt_boxes, gt_labels = targets_of_points(assigned.matched_gt, targets)
        weight = positive.float()
        wanted = one_hot(gt_labels, logits.shape[-1]) * weight[..., None]
        cls_loss = focal_loss(logits, wanted, gamma=FOCUS) * (~assigned.ignored)[..., None]
        box_targets = encode_deltas(anchors, gt_boxes)
        # Huber's loss is smooth L1 times the point where it turns.
        box_loss = HUBER * smooth_l1_loss(outputs["box_deltas"].float(), box_targets, HUBER)
        # One more than there are, so that an image without objects doesn't count for much.
        positives = mean_over_processes(weight.sum() + 1)
        return {
            "cls": cls_loss.sum() / positives,
            "box": BOX_WEIGHT * torch.where(positive, box_loss, 0.0).sum() / (4 * positives),
        }


def _base_anchors(side: float) -> Tensor:
    """(9, 4) anchors around the origin, scale by scale."""
    sizes = [(side * s * w, side * s * h) for s in SCALES for w, h in SHAPES]
    half = torch.tensor(sizes) / 2
    return torch.cat([-half, half], dim=-1)
