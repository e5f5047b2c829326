"""Feature pyramid network, and the path aggregation network, which walks back up."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.models.layers import ConvNorm


class FPN(nn.Module):
    """Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017, section 3.

    With `bottom_up`: Liu et al., Path Aggregation Network for Instance Segmentation, CVPR 2018, section 3.1.

    Args:
        in_channels: of the backbone's maps, finest first.
        channels: of every output.
        extra_levels: coarser levels by stride-2 convolutions.
        extra_from: what the first of these reads: the backbone's last map (RetinaNet), that map's lateral
            convolution, or the pyramid's last output (FCOS). "pool": every second place of the level before,
            in place of convolutions (Faster R-CNN).
        norm: "none" as in the paper, "batch" or "group".
        activation: after each convolution; None as in the paper.
        relu_before_extra: between the coarser levels.
        bottom_up: fine levels are added to the coarse ones again.
    """

    def __init__(
        self,
        in_channels: list[int],
        channels: int = 256,
        extra_levels: int = 0,
        extra_from: Literal["input", "lateral", "output", "pool"] = "output",
        norm: str = "none",
        activation: type[nn.Module] | None = None,
        relu_before_extra: bool = True,
        bottom_up: bool = False,
    ):
        super().__init__()
        self.extra_from = extra_from
        self.relu_before_extra = relu_before_extra
        self.laterals = nn.ModuleList(
            ConvNorm(c, channels, 1, norm=norm, activation=activation) for c in in_channels
        )
        self.outputs = nn.ModuleList(
            ConvNorm(channels, channels, 3, norm=norm, activation=activation) for _ in in_channels
        )
        again = in_channels[1:] if bottom_up else []
        self.downs = nn.ModuleList(
            ConvNorm(channels, channels, 3, 2, norm=norm, activation=activation) for _ in again
        )
        self.mends = nn.ModuleList(
            ConvNorm(channels, channels, norm=norm, activation=activation) for _ in again
        )
        first = in_channels[-1] if extra_from == "input" else channels
        self.pooled = extra_levels if extra_from == "pool" else 0
        self.extras = nn.ModuleList(
            ConvNorm(first if n == 0 else channels, channels, 3, 2, norm=norm, activation=None)
            for n in range(extra_levels - self.pooled)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and norm == "none":
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C_l, H_l, W_l), finest first, to the pyramid's (B, channels, H_l, W_l)."""
        merged = [lateral(m) for lateral, m in zip(self.laterals, maps)]
        for n in range(len(merged) - 2, -1, -1):
            merged[n] = merged[n] + F.interpolate(merged[n + 1], size=merged[n].shape[-2:])
        pyramid = [output(m) for output, m in zip(self.outputs, merged)]
        for n, down in enumerate(self.downs):
            pyramid[n + 1] = pyramid[n + 1] + down(pyramid[n])
        pyramid[1:] = [mend(level) for mend, level in zip(self.mends, pyramid[1:])] or pyramid[1:]
        for _ in range(self.pooled):
            pyramid.append(pyramid[-1][..., ::2, ::2])
        coarsest = {"input": maps[-1], "lateral": merged[-1]}.get(self.extra_from, pyramid[-1])
        for n, extra in enumerate(self.extras):
            coarsest = extra(F.relu(coarsest) if n > 0 and self.relu_before_extra else coarsest)
            pyramid.append(coarsest)
        return pyramid
