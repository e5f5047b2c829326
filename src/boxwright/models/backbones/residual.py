"""A small residual network for small budgets."""

from torch import Tensor, nn

from boxwright.models.layers import ConvNorm

CHANNELS = (16, 32, 64, 112, 160)  # stem and strides 4, 8, 16, 32, at width 1
DEPTHS = (0, 1, 2, 2)  # residual blocks after each of the four stride-2 convolutions


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; starts as the identity.

    He et al., Deep Residual Learning, CVPR 2016; zero last norm: Goyal et al., arXiv:1706.02677, 5.1.
    """

    def __init__(self, channels: int, activation: type[nn.Module]):
        super().__init__()
        self.first = ConvNorm(channels, channels, activation=activation)
        self.second = ConvNorm(channels, channels, activation=None)
        self.activation = activation(inplace=True)
        last_norm = self.second[1]
        assert isinstance(last_norm, nn.BatchNorm2d)
        nn.init.zeros_(last_norm.weight)

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(features + self.second(self.first(features)))


class ResidualNet(nn.Module):
    """Maps of strides 8, 16 and 32, of 4 too where that is the finest.

    Args:
        width: factor on the channels, which are rounded to 8.
        finest: stride of the first map, 4 or 8.
        activation: after each norm.
    """

    def __init__(self, width: float = 1.0, activation: type[nn.Module] = nn.SiLU, finest: int = 8):
        super().__init__()
        channels = [scale_channels(c, width) for c in CHANNELS]
        self.stem = ConvNorm(3, channels[0], 3, 2, activation=activation)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvNorm(channels[n], channels[n + 1], 3, 2, activation=activation),
                *(Block(channels[n + 1], activation) for _ in range(depth)),
            )
            for n, depth in enumerate(DEPTHS)
        )
        self.strides = tuple(s for s in (4, 8, 16, 32) if s >= finest)
        self.channels = channels[-len(self.strides) :]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.stem(images)
        maps = []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps[-len(self.strides) :]


def scale_channels(channels: int, width: float) -> int:
    """`channels` times `width`, to the nearest multiple of 8."""
    return max(8, round(channels * width / 8) * 8)
