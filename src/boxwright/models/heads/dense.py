"""The parts of a dense head: towers, and predictions of all levels side by side."""

import math

from torch import Tensor, nn

from boxwright.models.layers import ConvNorm


def make_tower(
    channels: int, depth: int, norm: str = "group", activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """`depth` 3x3 convolutions of `channels`."""
    layers = (ConvNorm(channels, channels, norm=norm, activation=activation) for _ in range(depth))
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
