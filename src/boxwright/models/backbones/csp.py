"""CSPDarknet: Darknet whose stages send half of their channels past the residual blocks."""

from functools import partial

import torch
from torch import Tensor, nn

from boxwright.models.layers import ConvNorm

DEPTHS = (3, 9, 9, 3)  # residual blocks of each stage at depth 1
WINDOWS = (5, 9, 13)  # of spatial pyramid pooling
make_slow_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)


def make_conv(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, depthwise: bool = False
) -> nn.Sequential:
    """Convolution, batch norm that forgets slowly, SiLU; `depthwise`: these of each channel by itself, then
    these across channels.
    """
    if depthwise:
        own = ConvNorm(in_channels, in_channels, kernel, stride, make_slow_norm, nn.SiLU, groups=in_channels)
        return nn.Sequential(own, make_conv(in_channels, out_channels, 1))
    return ConvNorm(in_channels, out_channels, kernel, stride, make_slow_norm, nn.SiLU)


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, with a shortcut or without."""

    def __init__(self, channels: int, shortcut: bool, depthwise: bool):
        super().__init__()
        self.shortcut = shortcut
        self.reduce = make_conv(channels, channels, 1)
        self.conv = make_conv(channels, channels, depthwise=depthwise)

    def forward(self, features: Tensor) -> Tensor:
        added = self.conv(self.reduce(features))
        return features + added if self.shortcut else added


class CSPLayer(nn.Module):
    """Half of the channels through bottlenecks, half past them. Wang et al., CSPNet, CVPR Workshops 2020."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        depth: int,
        shortcut: bool = True,
        depthwise: bool = False,
    ):
        super().__init__()
        half = out_channels // 2
        self.main, self.past = make_conv(in_channels, half, 1), make_conv(in_channels, half, 1)
        self.blocks = nn.Sequential(*(Bottleneck(half, shortcut, depthwise) for _ in range(depth)))
        self.join = make_conv(2 * half, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.join(torch.cat([self.blocks(self.main(features)), self.past(features)], dim=1))


class SpatialPyramidPooling(nn.Module):
    """Max pooling in windows of three sizes side by side. He et al., TPAMI 2015; as YOLOv3-SPP has it."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = make_conv(channels, channels // 2, 1)
        self.pools = nn.ModuleList(nn.MaxPool2d(w, 1, w // 2) for w in WINDOWS)
        self.join = make_conv(channels // 2 * (len(WINDOWS) + 1), channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        features = self.reduce(features)
        return self.join(torch.cat([features, *(pool(features) for pool in self.pools)], dim=1))


class CSPDarknet(nn.Module):
    """Maps of strides 8, 16 and 32.

    Ge et al., YOLOX: Exceeding YOLO Series in 2021, section 2.1 (the backbone of YOLOv5).

    Args:
        width: factor on the channels, 0.5 for YOLOX-S.
        depth: factor on the residual blocks, 0.33 for YOLOX-S.
        depthwise: 3x3 convolutions but the first are of each channel by itself, as in YOLOX-Nano.
    """

    def __init__(self, width: float = 0.5, depth: float = 0.33, depthwise: bool = False):
        super().__init__()
        channels = [int(c * width) for c in (64, 128, 256, 512, 1024)]
        self.stem = make_conv(12, channels[0])
        self.stages = nn.ModuleList()
        for n, blocks in enumerate(DEPTHS):
            last = n == len(DEPTHS) - 1
            layers: list[nn.Module] = [make_conv(channels[n], channels[n + 1], 3, 2, depthwise)]
            if last:
                layers.append(SpatialPyramidPooling(channels[n + 1]))
            count = max(round(blocks * depth), 1)
            layers.append(CSPLayer(channels[n + 1], channels[n + 1], count, not last, depthwise))
            self.stages.append(nn.Sequential(*layers))
        self.channels = channels[2:]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        # Each 2x2 block's pixels become channels: left column first.
        quarters = [images[..., y::2, x::2] for x in (0, 1) for y in (0, 1)]
        features, maps = self.stem(torch.cat(quarters, dim=1)), []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps[1:]
