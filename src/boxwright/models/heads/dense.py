"""The parts of a dense head: towers, and predictions of all levels side by side."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from boxwright.models.layers import ConvNorm, Scale


class DenseHead(nn.Module):
    """A tower for classes, one for boxes, and what they predict at every location.

    Args:
        channels: of the pyramid and the towers.
        num_classes: categories.
        depth: convolutions a tower.
        norm: of the towers, "group" or "none".
        priors: anchors a location.
        box_width: numbers a box.
        quality: whether one more number (centerness) is predicted, and beside what.
        levels: of the pyramid, each with a learned factor on its boxes; 0: no factors.
        tower_bias: the towers' convolutions have a bias before a norm too.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        depth: int,
        norm: str,
        priors: int = 1,
        box_width: int = 4,
        quality: Literal["none", "cls", "box"] = "none",
        levels: int = 0,
        tower_bias: bool = False,
    ):
        super().__init__()
        self.num_classes, self.box_width, self.beside = num_classes, box_width, quality
        self.cls_tower = make_tower(channels, depth, norm, bias=tower_bias)
        self.box_tower = make_tower(channels, depth, norm, bias=tower_bias)
        self.cls = nn.Conv2d(channels, priors * num_classes, 3, padding=1)
        self.box = nn.Conv2d(channels, priors * box_width, 3, padding=1)
        init_head(self.cls_tower, self.box_tower, self.box)
        init_prior(self.cls)
        if quality != "none":
            self.quality = nn.Conv2d(channels, priors, 3, padding=1)
            init_head(self.quality)
        if levels:
            self.scales = nn.ModuleList(Scale() for _ in range(levels))

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits (B, P, C), boxes (B, P, box_width), quality logits (B, P) or None; levels side by side."""
        logits, boxes, quality = [], [], []
        for n, features in enumerate(pyramid):
            cls_features, box_features = self.cls_tower(features), self.box_tower(features)
            logits.append(flatten_level(self.cls(cls_features), self.num_classes))
            box = self.box(box_features)
            boxes.append(
                flatten_level(self.scales[n](box) if hasattr(self, "scales") else box, self.box_width)
            )
            if self.beside != "none":
                beside = cls_features if self.beside == "cls" else box_features
                quality.append(flatten_level(self.quality(beside), 1)[..., 0])
        return torch.cat(logits, 1), torch.cat(boxes, 1), torch.cat(quality, 1) if quality else None


def make_tower(
    channels: int,
    depth: int,
    norm: str = "group",
    activation: type[nn.Module] = nn.ReLU,
    bias: bool = False,
) -> nn.Sequential:
    """`depth` 3x3 convolutions of `channels`."""
    layers = (ConvNorm(channels, channels, norm=norm, activation=activation, bias=bias) for _ in range(depth))
    return nn.Sequential(*layers)


def init_head(*modules: nn.Module) -> None:
    """Normal weights of deviation 0.01 and zero biases (RetinaNet, section 4.1)."""
    for root in modules:
        for module in root.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def init_prior(layer: nn.Conv2d, probability: float = 0.01) -> None:
    """Let every class start at `probability` (RetinaNet, section 4.1)."""
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, -math.log((1 - probability) / probability))


def flatten_level(features: Tensor, width: int) -> Tensor:
    """(B, K * width, H, W) to (B, H * W * K, width): locations row by row, a location's priors together."""
    batch = features.shape[0]
    return features.permute(0, 2, 3, 1).reshape(batch, -1, width)
