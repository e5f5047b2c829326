"""Deformable 3x3 convolutions: torchvision's operator, and the same of plain operators for ONNX."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from boxwright.models.shapes import is_exporting

PLACES = 9  # of the kernel


class DeformableConv(DeformConv2d):
    """A 3x3 deformable convolution, which ONNX gets as samples of the map."""

    def forward(self, features: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve.

        Args:
            features: (B, C, H, W).
            offset: (B, G * 18, H, W), y and x of each place, row by row, for G groups of channels.
            mask: (B, G * 9, H, W) factors on what is read at each place; None: 1.
        """
        if not is_exporting():
            # The operator reads outside the memory at a NaN: it gets none, and what it gives has it instead.
            return super().forward(features, offset.nan_to_num(), mask) + 0 * offset.sum()
        _, channels, height, width = features.shape
        groups = offset.shape[1] // (2 * PLACES)
        places = offset.view(-1, PLACES, 2, height, width)  # (B * G, 9, 2, H, W)
        kernel = torch.arange(PLACES, device=offset.device)
        rows = torch.arange(height, device=offset.device)[:, None]
        columns = torch.arange(width, device=offset.device)
        y = places[:, :, 0] + (kernel // 3 - 1)[:, None, None] + rows
        x = places[:, :, 1] + (kernel % 3 - 1)[:, None, None] + columns
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        split = features.reshape(-1, channels // groups, height, width)
        read = F.grid_sample(split, grid.view(-1, PLACES * height, width, 2), align_corners=False)
        read = read.view(-1, channels // groups, PLACES, height, width)
        if mask is not None:
            read = read * mask.reshape(-1, 1, PLACES, height, width)
        flat = read.reshape(-1, channels * PLACES, height, width)
        return F.conv2d(flat, self.weight.flatten(1)[:, :, None, None], self.bias)


class ModulatedConv(nn.Module):
    """A deformable convolution that predicts its own offsets and factors.

    Zhu et al., Deformable ConvNets v2, CVPR 2019, section 3.2.

    Args:
        channels: in and out.
        groups: of channels that share their offsets.
    """

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.offset = nn.Conv2d(channels, groups * 3 * PLACES, 3, padding=1)
        self.conv = DeformableConv(channels, channels, 3, padding=1)
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        y, x, factor = self.offset(features).chunk(3, dim=1)
        return self.conv(features, torch.cat([y, x], dim=1), factor.sigmoid())
