"""YOLOX's neck: a path aggregation network whose meetings are CSP layers."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.models.backbones.csp import CSPLayer, make_conv


class CSPPAFPN(nn.Module):
    """Down and up again: Liu et al., PANet, CVPR 2018, section 3.1, as YOLOX (2021) has it.

    Args:
        in_channels: of the backbone's maps, finest first.
        channels: of every output.
        depth: bottlenecks of each CSP layer.
        depthwise: 3x3 convolutions are of each channel by itself.
    """

    def __init__(self, in_channels: list[int], channels: int, depth: int, depthwise: bool = False):
        super().__init__()
        pairs = list(pairwise(in_channels))  # a level and the one above
        self.reduce = nn.ModuleList(make_conv(above, own, 1) for own, above in reversed(pairs))
        self.down = nn.ModuleList(
            CSPLayer(2 * own, own, depth, False, depthwise) for own, _ in reversed(pairs)
        )
        self.halve = nn.ModuleList(make_conv(below, below, 3, 2, depthwise) for below, _ in pairs)
        self.up = nn.ModuleList(CSPLayer(2 * below, own, depth, False, depthwise) for below, own in pairs)
        self.outputs = nn.ModuleList(make_conv(c, channels, 1) for c in in_channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C_l, H_l, W_l), finest first, to (B, channels, H_l, W_l)."""
        reduced, features = [], maps[-1]
        for reduce, down, own in zip(self.reduce, self.down, reversed(maps[:-1])):
            reduced.append(reduce(features))
            above = F.interpolate(reduced[-1], size=own.shape[-2:])
            features = down(torch.cat([above, own], dim=1))
        pyramid = [features]
        for halve, up, own in zip(self.halve, self.up, reversed(reduced)):
            pyramid.append(up(torch.cat([halve(pyramid[-1]), own], dim=1)))
        return [output(level) for output, level in zip(self.outputs, pyramid)]
