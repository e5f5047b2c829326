"""SSD's coarser maps, each from the one before, and the scaled finest one."""

import torch
from torch import Tensor, nn

from boxwright.models.layers import ConvNorm


class L2Norm(nn.Module):
    """Every location's features divided by their length, times a learned factor a channel.

    Liu et al., ParseNet, 2015, section 3.2.
    """

    def __init__(self, channels: int, scale: float = 20.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, features: Tensor) -> Tensor:
        length = features.float().square().sum(1, keepdim=True).sqrt() + 1e-10
        return (self.weight[:, None, None] * features.float() / length).to(features.dtype)


class SSDNeck(nn.Module):
    """The backbone's maps, the first L2-normalised, and one more for each entry of `extra`.

    Args:
        in_channels: of the backbone's maps.
        extra: (channels, stride, padding, kernel) of each further map's second convolution.
    """

    def __init__(self, in_channels: list[int], extra: list[tuple[int, int, int, int]]):
        super().__init__()
        self.l2_norm = L2Norm(in_channels[0])
        self.channels = [*in_channels, *(e[0] for e in extra)]
        self.extras = nn.ModuleList()
        last = in_channels[-1]
        for channels, stride, padding, kernel in extra:
            reduce = ConvNorm(last, channels // 2, 1, norm="none")
            conv = nn.Conv2d(channels // 2, channels, kernel, stride, padding)
            self.extras.append(nn.Sequential(reduce, nn.Sequential(conv, nn.ReLU(inplace=True))))
            last = channels
        for module in self.extras.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps, finest first, to all of SSD's."""
        pyramid, coarsest = [self.l2_norm(maps[0]), *maps[1:]], maps[-1]
        for extra in self.extras:
            coarsest = extra(coarsest)
            pyramid.append(coarsest)
        return pyramid
