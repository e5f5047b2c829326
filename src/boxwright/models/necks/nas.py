"""The pyramid that was searched for FCOS: seven cells that join two maps each, by deformable convolutions.

Wang et al., NAS-FCOS: Fast Neural Architecture Search for Object Detection, CVPR 2020, section 4.1, figure 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.models.deformable import ModulatedConv
from boxwright.models.layers import ConvNorm

GROUPS = 2  # of channels that share offsets
# Which two of the maps made so far each cell joins, the adapted ones being 0 to 2; and whether the second is
# convolved.
CELLS = ((2, 2, True), (2, 2, True), (3, 2, False), (0, 2, False), (4, 2, True), (3, 6, True), (6, 1, True))
OUTPUTS, CONTEXT = (9, 8, 7), 5  # finest first; the map that is added to each of them


class NASFPN(nn.Module):
    """See the module's docstring.

    Args:
        in_channels: of three maps, finest first.
        channels: of every output.
        extra_levels: coarser levels by stride-2 convolutions.
    """

    def __init__(self, in_channels: list[int], channels: int, extra_levels: int):
        super().__init__()
        self.adapt = nn.ModuleList(ConvNorm(c, channels, 1) for c in in_channels)
        self.cells = nn.ModuleList(Cell(channels, second) for *_, second in CELLS)
        self.extras = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(extra_levels)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C_l, H_l, W_l), finest first, to the pyramid's (B, channels, H_l, W_l)."""
        made = [adapt(m) for adapt, m in zip(self.adapt, maps)]
        for cell, (first, second, _) in zip(self.cells, CELLS):
            made.append(cell(made[first], made[second]))
        pyramid = []
        for place, like in zip(OUTPUTS, maps):
            both = made[place] + _bilinear(made[CONTEXT], made[place])
            pyramid.append(_bilinear(both, like))
        for n, extra in enumerate(self.extras):
            pyramid.append(extra(F.relu(pyramid[-1]) if n else pyramid[-1]))
        return pyramid


class Cell(nn.Module):
    """Two maps, convolved, at the size of the larger, joined channel by channel.

    Args:
        channels: of each map.
        second: the second map is convolved too.
    """

    def __init__(self, channels: int, second: bool):
        super().__init__()
        self.first, self.second = _deformable(channels), _deformable(channels) if second else nn.Identity()
        self.norm = nn.BatchNorm2d(2 * channels)
        # Channels 2c and 2c + 1 of both maps, one after the other, make channel c.
        self.join = nn.Conv2d(2 * channels, channels, 1, groups=channels, bias=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Maps (B, C, H, W) of any sizes; (B, C, H, W) of the larger."""
        size = max(tuple(first.shape[-2:]), tuple(second.shape[-2:]))
        both = torch.cat([_resized(self.first(first), size), _resized(self.second(second), size)], dim=1)
        return self.join(F.relu(self.norm(both)))


def _deformable(channels: int) -> nn.Sequential:
    return nn.Sequential(ModulatedConv(channels, GROUPS), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _bilinear(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _resized(features: Tensor, size: tuple[int, ...]) -> Tensor:
    """The nearest cell of a smaller map; the greatest of the cells of a larger one, padded to a multiple."""
    if features.shape[-2] <= size[0] and features.shape[-1] <= size[1]:
        return F.interpolate(features, size=size) if features.shape[-2:] != size else features
    height, width = (-(-have // want) * want for have, want in zip(features.shape[-2:], size))
    more_y, more_x = height - features.shape[-2], width - features.shape[-1]
    sides = (more_x // 2, more_x - more_x // 2, more_y // 2, more_y - more_y // 2)
    step = (height // size[0], width // size[1])
    return F.max_pool2d(F.pad(features, sides), step, step)
