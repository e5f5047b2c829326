"""Stems of timm's backbones as a graph of ONNX has them."""

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from timm.models.hgnet import ConvBNAct, StemV2


class ReachingStem(nn.Module):
    """The stem of a PP-HGNetV2; in a graph of ONNX its windows reach beyond the lower and right border.

    timm's `StemV2` makes copies with one more row and column. onnxruntime has maps in blocks of channels, and
    would put each such copy into its own order and back.

    Args:
        stem: in eval mode, its weights final.
    """

    def __init__(self, stem: "StemV2"):
        super().__init__()
        self.stem = stem
        # Then a border of zeros, as timm has it, is never more than what a window holds.
        self.positive = isinstance(stem.stem1.lab, nn.Identity) and _least(stem.stem1.act) >= 0

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem
        if not torch.onnx.is_in_onnx_export():
            return stem(images)
        maps = stem.stem1(images)
        pooled = _PoolAhead.apply(maps) if self.positive else stem.pool(F.pad(maps, (0, 1, 0, 1)))
        halved = _reach(stem.stem2b, _reach(stem.stem2a, maps))
        return stem.stem4(stem.stem3(torch.cat([pooled, halved], dim=1)))


def _least(act: nn.Module) -> float:
    return act.min_val if isinstance(act, nn.Hardtanh) else 0.0  # else a ReLU


def _reach(layer: "ConvBNAct", maps: Tensor) -> Tensor:
    """A convolution of 2 x 2 pixels, the row below and the column to the right among them."""
    conv = cast(nn.Conv2d, layer.conv)
    return layer.lab(layer.act(layer.bn(F.conv2d(maps, conv.weight, conv.bias, padding="same"))))


class _PoolAhead(torch.autograd.Function):
    """The greatest of each 2 x 2 pixels, of those that there are. PyTorch's pool pads on both sides alike."""

    @staticmethod
    def forward(ctx, maps: Tensor) -> Tensor:
        return F.max_pool2d(maps, 2, 1, 1)[..., 1:, 1:]

    @staticmethod
    def symbolic(graph, maps):
        pooled = graph.op("MaxPool", maps, kernel_shape_i=[2, 2], strides_i=[1, 1], pads_i=[0, 0, 1, 1])
        return pooled.setType(maps.type())
