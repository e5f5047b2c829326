"""Darknet-53, YOLOv3's residual network."""

from functools import partial

from torch import Tensor, nn

from boxwright.models.layers import ConvNorm

BLOCKS = (1, 2, 8, 8, 4)  # residual blocks of each stage
LeakyReLU = partial(nn.LeakyReLU, 0.1)


class DarknetBlock(nn.Module):
    """Channels halved by a 1x1 convolution, brought back by a 3x3 one, and a shortcut."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = ConvNorm(channels, channels // 2, 1, activation=LeakyReLU)
        self.conv = ConvNorm(channels // 2, channels, activation=LeakyReLU)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.conv(self.reduce(features))


class Darknet53(nn.Module):
    """Maps of strides 8, 16 and 32.

    Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, table 1.

    Args:
        channels: of the first convolution, 32 in the paper; each stage doubles them.
    """

    def __init__(self, channels: int = 32):
        super().__init__()
        self.stem = ConvNorm(3, channels, activation=LeakyReLU)
        self.stages = nn.ModuleList()
        for count in BLOCKS:
            down = ConvNorm(channels, 2 * channels, 3, 2, activation=LeakyReLU)
            blocks = (DarknetBlock(2 * channels) for _ in range(count))
            self.stages.append(nn.Sequential(down, nn.Sequential(*blocks)))
            channels *= 2
        self.channels = [channels // 4, channels // 2, channels]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, 0.1)

    def forward(self, images: Tensor) -> list[Tensor]:
        features, maps = self.stem(images), []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps[2:]
