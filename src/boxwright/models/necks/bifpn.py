"""BiFPN: a pyramid that is walked down and up again, several times, usually with learned weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.models.layers import SeparableConv, halve

TINY = 1e-4  # keeps the weights' sum from 0


class BiFPN(nn.Module):
    """Tan et al., EfficientDet: Scalable and Efficient Object Detection, CVPR 2020, section 3.

    Args:
        in_channels: of the backbone's maps, finest first.
        channels: of every output.
        repeats: of the walk down and up.
        extra_levels: coarser levels by max pooling.
        weighted: maps that meet have learned weights; False: they are summed.
        same: pooling pads as TensorFlow does.
        conv_bias: convolutions before a norm have a bias all the same, as the TensorFlow original's do.
    """

    def __init__(
        self,
        in_channels: list[int],
        channels: int = 64,
        repeats: int = 3,
        extra_levels: int = 2,
        weighted: bool = True,
        same: bool = False,
        conv_bias: bool = False,
    ):
        super().__init__()
        self.extra_levels, self.same = extra_levels, same
        self.extra = _resample(in_channels[-1], channels, conv_bias) if extra_levels else nn.Identity()
        widths = [*in_channels, *[channels] * extra_levels]
        levels = len(widths)
        self.cells = nn.ModuleList(
            _Cell(widths if n == 0 else [channels] * levels, channels, weighted, same, conv_bias)
            for n in range(repeats)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C_l, H_l, W_l), finest first, to the pyramid's (B, channels, H_l, W_l)."""
        pyramid = list(maps)
        for n in range(self.extra_levels):
            coarsest = self.extra(pyramid[-1]) if n == 0 else pyramid[-1]
            pyramid.append(halve(coarsest, self.same))
        for cell in self.cells:
            pyramid = cell(pyramid)
        return pyramid


class _Cell(nn.Module):
    """Once down and up."""

    def __init__(self, widths: list[int], channels: int, weighted: bool, same: bool, conv_bias: bool):
        super().__init__()
        self.same, last = same, len(widths) - 1
        # Down: each level but the coarsest takes its own features and the level above's.
        self.down_inputs = nn.ModuleList(_resample(w, channels, conv_bias) for w in widths[:-1])
        self.top_input = _resample(widths[-1], channels, conv_bias)
        self.down = nn.ModuleList(_Node(2, channels, weighted, conv_bias) for _ in range(last))
        # Up: each level but the finest takes its own features, what came down, and the level below's.
        self.up_inputs = nn.ModuleList(_resample(w, channels, conv_bias) for w in widths[1:])
        self.up = nn.ModuleList(
            _Node(3 if n < last else 2, channels, weighted, conv_bias) for n in range(1, last + 1)
        )

    def forward(self, pyramid: list[Tensor]) -> list[Tensor]:
        last = len(pyramid) - 1
        down = [self.top_input(pyramid[last])]
        for n in range(last - 1, -1, -1):
            above = F.interpolate(down[0], size=pyramid[n].shape[-2:])
            down.insert(0, self.down[n]([self.down_inputs[n](pyramid[n]), above]))
        up = [down[0]]
        for n in range(1, last + 1):
            own = self.up_inputs[n - 1](pyramid[n])
            below = halve(up[-1], self.same)
            up.append(self.up[n - 1]([own, down[n], below] if n < last else [own, below]))
        return up


class _Node(nn.Module):
    """Fast normalised fusion (section 3.3), or a sum, and a separable convolution."""

    def __init__(self, inputs: int, channels: int, weighted: bool, conv_bias: bool):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs)) if weighted else None
        self.conv = SeparableConv(channels, channels, bias=conv_bias)
        self.norm = make_bifpn_norm(channels)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        if self.weights is not None:
            weights = F.relu(self.weights)
            inputs = [w * x for w, x in zip(weights / (weights.sum() + TINY), inputs)]
        return self.norm(self.conv(F.silu(sum(inputs[1:], inputs[0]))))


def _resample(in_channels: int, channels: int, conv_bias: bool) -> nn.Module:
    """A 1x1 convolution where the widths differ."""
    if in_channels == channels:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, channels, 1, bias=conv_bias)
    return nn.Sequential(conv, make_bifpn_norm(channels))


def make_bifpn_norm(channels: int) -> nn.BatchNorm2d:
    """EfficientDet's batch normalisation, which forgets slowly."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
