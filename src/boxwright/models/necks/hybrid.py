"""The hybrid encoder: attention within the coarsest map, convolutions across maps, down and up again.

Zhao et al., DETRs Beat YOLOs on Real-time Object Detection (RT-DETR), CVPR 2024, section 4.2; with the
lighter blocks of Peng et al., D-FINE, ICLR 2025, appendix A.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.models.attention import EncoderLayer, sine_positions
from boxwright.models.layers import ConvNorm, folded, with_dense_gradient

Block = Callable[[int, int], nn.Module]  # of channels in and out


class HybridEncoder(nn.Module):
    """See the module's docstring.

    Args:
        in_channels: of the backbone's maps, finest first.
        channels: of every output.
        heads, hidden: of the attention in the coarsest map.
        block: what two maps, one on the other, are joined by; of their channels together, and its own.
        halve: what makes a coarser map of a fine one.
        lateral: activation after a map's way down, None: none.
    """

    def __init__(
        self,
        in_channels: list[int],
        channels: int,
        heads: int,
        hidden: int,
        block: Block,
        halve: Block,
        lateral: type[nn.Module] | None,
    ):
        super().__init__()
        self.project = nn.ModuleList(ConvNorm(c, channels, 1, activation=None) for c in in_channels)
        self.attention = EncoderLayer(channels, heads, hidden, activation=nn.GELU)
        steps = len(in_channels) - 1
        self.laterals = nn.ModuleList(
            ConvNorm(channels, channels, 1, activation=lateral) for _ in range(steps)
        )
        self.down = nn.ModuleList(block(2 * channels, channels) for _ in range(steps))
        self.halves = nn.ModuleList(halve(channels, channels) for _ in range(steps))
        self.up = nn.ModuleList(block(2 * channels, channels) for _ in range(steps))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C_l, H_l, W_l), finest first, to (B, channels, H_l, W_l)."""
        maps = [project(m) for project, m in zip(self.project, maps)]
        maps[-1] = self._attend(with_dense_gradient(maps[-1]))
        coarse, fine = [], maps[-1]
        for lateral, block, finer in zip(self.laterals, self.down, maps[-2::-1]):
            fine = lateral(fine)
            coarse.append(fine)
            fine = block([fine, finer])
        pyramid = [fine]
        for halve, block, coarser in zip(self.halves, self.up, coarse[::-1]):
            pyramid.append(block([halve(pyramid[-1]), coarser]))
        return pyramid

    def merge(self) -> None:
        """Make projections, whose norms are folded into them, a part of what joins their maps with coarser
        ones, where that multiplies less.
        """
        for level, block in zip(reversed(range(len(self.down))), self.down):
            joining = [layer for layer in block.modules() if isinstance(layer, JoiningConv)]
            if (conv := folded(self.project[level])) and _is_less(conv, joining):
                for layer in joining:
                    layer.take_in(conv)
                self.project[level] = nn.Identity()

    def _attend(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        positions = sine_positions(height, width, features.shape[1], features)
        rows = self.attention(features.flatten(2).transpose(1, 2), positions)
        return rows.transpose(1, 2).reshape(features.shape)


class JoiningConv(nn.Conv2d):
    """A 1x1 convolution of maps one on the other, the last of which is the largest: what others give is
    enlarged in place of them, which is the same, of a quarter of the cells.
    """

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) to (B, C, H, W) of the last one's height and width."""
        *others, last = maps
        *weights, own = self.weight.split([m.shape[1] for m in maps], dim=1)
        joined = F.conv2d(last, own, self.bias)
        for other, weight in zip(others, weights):
            part = F.conv2d(other, weight)
            if part.shape != joined.shape:
                part = F.interpolate(part, size=joined.shape[-2:])
            joined = joined + part
        return joined

    @torch.no_grad()
    def take_in(self, conv: nn.Conv2d) -> None:
        """Make the 1x1 convolution that the last map comes from a part of this one."""
        others, own = self.weight.split([self.in_channels - conv.out_channels, conv.out_channels], dim=1)
        joined = own.flatten(1) @ conv.weight.flatten(1)
        bias = torch.zeros_like(own[:, 0, 0, 0]) if self.bias is None else self.bias
        if conv.bias is not None:
            bias = bias + own.flatten(1) @ conv.bias
        self.weight = nn.Parameter(torch.cat([others, joined[..., None, None]], dim=1))
        self.bias = nn.Parameter(bias)
        self.in_channels = self.weight.shape[1]


def _is_less(conv: nn.Conv2d, joining: list[JoiningConv]) -> bool:
    """Whether a convolution within those that read it multiplies less than before them."""
    outputs = sum(layer.out_channels for layer in joining)
    return conv.in_channels * outputs <= conv.out_channels * (conv.in_channels + outputs)


class RepBlock(nn.Module):
    """A 3x3 and a 1x1 convolution of the same input, added.

    Ding et al., RepVGG, CVPR 2021, section 3.3, without the identity.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.wide = ConvNorm(channels, channels, 3, activation=None)
        self.narrow: nn.Sequential | None = ConvNorm(channels, channels, 1, activation=None)

    def forward(self, features: Tensor) -> Tensor:
        if self.narrow is None:
            return F.silu(self.wide(features))
        return F.silu(self.wide(features) + self.narrow(features))

    @torch.no_grad()
    def merge(self) -> None:
        """Make one convolution of the two, whose norms have been folded into them."""
        wide, narrow = folded(self.wide), None if self.narrow is None else folded(self.narrow)
        if wide is not None and narrow is not None:
            assert wide.bias is not None
            assert narrow.bias is not None
            wide.weight += F.pad(narrow.weight, (1, 1, 1, 1))
            wide.bias += narrow.bias
            self.narrow = None


class CSPRepLayer(nn.Module):
    """Rep blocks on one projection of the input, added to another (RT-DETR, figure 4).

    Args:
        in_channels, out_channels: of it all.
        hidden: channels of the blocks.
        depth: blocks.
        conv: of the projections.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int,
        depth: int,
        conv: type[nn.Conv2d] = nn.Conv2d,
    ):
        super().__init__()
        self.main = ConvNorm(in_channels, hidden, 1, activation=nn.SiLU, conv=conv)
        self.past = ConvNorm(in_channels, hidden, 1, activation=nn.SiLU, conv=conv)
        self.blocks = nn.Sequential(*(RepBlock(hidden) for _ in range(depth)))
        self.join = (
            ConvNorm(hidden, out_channels, 1, activation=nn.SiLU) if hidden != out_channels else nn.Identity()
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.join(self.blocks(self.main(features)) + self.past(features))


class ELANLayer(nn.Module):
    """Half of maps, one on the other, through two chains of CSP layers, every step kept and joined.

    Peng et al., D-FINE, ICLR 2025, appendix A;
    Wang et al., YOLOv9, ECCV 2024, section 4.2 (GELAN).

    Args:
        in_channels, out_channels: of it all; the first is divided in two.
        hidden: channels of the chains.
        depth: Rep blocks of each CSP layer.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int, depth: int):
        super().__init__()
        self.split = ConvNorm(in_channels, in_channels, 1, activation=nn.SiLU, conv=JoiningConv)
        self.chains = nn.ModuleList(
            nn.Sequential(
                CSPRepLayer(first, hidden, hidden, depth), ConvNorm(hidden, hidden, 3, activation=nn.SiLU)
            )
            for first in (in_channels // 2, hidden)
        )
        self.join = ConvNorm(in_channels + 2 * hidden, out_channels, 1, activation=nn.SiLU)

    def forward(self, maps: list[Tensor]) -> Tensor:
        steps = list(self.split(maps).chunk(2, dim=1))
        for chain in self.chains:
            steps.append(chain(steps[-1]))
        return self.join(torch.cat(steps, dim=1))


class DepthwiseHalf(nn.Sequential):
    """Half the height and width by a convolution of each channel by itself, after one across them."""

    def __init__(self, in_channels: int, out_channels: int):
        depthwise = nn.Conv2d(out_channels, out_channels, 3, 2, 1, groups=out_channels, bias=False)
        super().__init__(
            ConvNorm(in_channels, out_channels, 1, activation=None), depthwise, nn.BatchNorm2d(out_channels)
        )
