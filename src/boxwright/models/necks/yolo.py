"""YOLOv3's neck: from the coarsest map down, each level joined to the one above."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.models.backbones.darknet import LeakyReLU
from boxwright.models.layers import ConvNorm


class YOLONeck(nn.Module):
    """Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, section 2.3.

    Args:
        in_channels: of the backbone's maps, finest first; each level has half of them.
    """

    def __init__(self, in_channels: list[int]):
        super().__init__()
        self.channels = [c // 2 for c in reversed(in_channels)]
        self.reduce = nn.ModuleList(ConvNorm(c, c // 2, 1, activation=LeakyReLU) for c in self.channels[:-1])
        above = [0, *(c // 2 for c in self.channels[:-1])]
        self.levels = nn.ModuleList(
            _make_level(own + extra, own // 2) for own, extra in zip(reversed(in_channels), above)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps, finest first, to the pyramid, coarsest first."""
        features = self.levels[0](maps[-1])
        pyramid = [features]
        for reduce, level, own in zip(self.reduce, list(self.levels)[1:], reversed(maps[:-1])):
            above = F.interpolate(reduce(features), size=own.shape[-2:])
            features = level(torch.cat([above, own], dim=1))
            pyramid.append(features)
        return pyramid


def _make_level(in_channels: int, channels: int) -> nn.Sequential:
    """Five convolutions, 1x1 and 3x3 by turns."""
    widths = [in_channels, channels, 2 * channels, channels, 2 * channels, channels]
    kernels = (1, 3, 1, 3, 1)
    layers = (
        ConvNorm(widths[n], widths[n + 1], kernel, activation=LeakyReLU) for n, kernel in enumerate(kernels)
    )
    return nn.Sequential(*layers)
