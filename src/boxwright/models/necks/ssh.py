"""SSH's context module: each level seen through wider windows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.models.layers import ConvNorm, with_dense_gradient


class SSHContext(nn.Module):
    """Each level's features and two wider views side by side, in a half and two quarters of the channels.

    Najibi et al., SSH: Single Stage Headless Face Detector, ICCV 2017, section 3.3; with batch norm and one
    module a level, as RetinaFace (Deng et al., CVPR 2020) has it.

    Args:
        channels: of the pyramid, in and out; a multiple of 4.
        levels: of the pyramid.
    """

    def __init__(self, channels: int, levels: int):
        super().__init__()
        self.levels = nn.ModuleList(_Context(channels) for _ in range(levels))

    def forward(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Maps (B, channels, H_l, W_l) to maps of the same shapes."""
        return [level(features) for level, features in zip(self.levels, pyramid)]


class _Context(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        quarter = channels // 4
        self.near = ConvNorm(channels, channels // 2, activation=None)
        self.reduce = ConvNorm(channels, quarter)
        self.middle = ConvNorm(quarter, quarter, activation=None)  # a 5x5 window in two steps
        self.far = nn.Sequential(ConvNorm(quarter, quarter), ConvNorm(quarter, quarter, activation=None))

    def forward(self, features: Tensor) -> Tensor:
        reduced = self.reduce(features)
        reached = self.near(features), self.middle(reduced), self.far(reduced)
        return F.relu(torch.cat([with_dense_gradient(maps) for maps in reached], dim=1))
