"""DSSD's neck: SSD's ever coarser maps, and learned upsampling back to the finest."""

import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.models.layers import ConvNorm


class DSSDNeck(nn.Module):
    """Fu et al., DSSD: Deconvolutional Single Shot Detector, 2017, section 3.2.

    Args:
        in_channels: of the backbone's maps, finest first.
        channels: of every output.
        extra: (stride, padding) of the 3x3 convolution that makes each further map.
    """

    def __init__(self, in_channels: list[int], channels: int, extra: tuple[tuple[int, int], ...]):
        super().__init__()
        self.extras = nn.ModuleList()
        widths = list(in_channels)
        for stride, padding in extra:
            conv = nn.Conv2d(channels, channels, 3, stride, padding, bias=False)
            norm = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
            self.extras.append(nn.Sequential(ConvNorm(widths[-1], channels, 1), norm))
            widths.append(channels)
        self.top = ConvNorm(widths[-1], channels, 1)
        self.meetings = nn.ModuleList(_Meeting(width, channels) for width in widths[:-1])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps, finest first, to (B, channels, H_l, W_l) of these and of the further ones."""
        features = list(maps)
        for extra in self.extras:
            features.append(extra(features[-1]))
        pyramid = [self.top(features[-1])]
        for n in range(len(features) - 2, -1, -1):
            pyramid.insert(0, self.meetings[n](features[n], pyramid[0]))
        return pyramid


class _Meeting(nn.Module):
    """A deconvolution module: the coarser level, upsampled, times the map of this level; figure 3."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.own = nn.Sequential(ConvNorm(width, channels), ConvNorm(channels, channels, activation=None))
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2, bias=False)
        self.above = ConvNorm(channels, channels, activation=None)

    def forward(self, own: Tensor, above: Tensor) -> Tensor:
        height, width = own.shape[-2:]
        doubled = self.upsample(above)
        # From one cell to three is more than twice.
        missing = (max(width - doubled.shape[-1], 0), max(height - doubled.shape[-2], 0))
        doubled = F.pad(doubled, (0, missing[0], 0, missing[1]))[..., :height, :width]
        return F.relu(self.own(own) * self.above(doubled))
