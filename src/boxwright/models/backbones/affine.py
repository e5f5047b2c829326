"""The affine blocks of timm's HGNetV2 in fewer passes over memory, where they learn."""

from typing import Any

import torch
from torch import Tensor, nn


def lighten(body: nn.Module) -> None:
    """Let an HGNet's ReLUs work in place, and its affine blocks be `Affine`s: the same maps and gradients."""
    for layer in body.modules():
        if type(layer).__name__ == "ConvBNAct":  # by name, so that timm's HGNet isn't imported for others
            own: Any = layer
            if isinstance(own.act, nn.ReLU):
                own.act.inplace = True
            if not isinstance(own.lab, nn.Identity):
                own.lab = Affine(own.lab)


class Affine(nn.Module):
    """scale * x + bias.

    Args:
        block: timm's `LearnableAffineBlock`, whose parameters these are.
    """

    def __init__(self, block: Any):
        super().__init__()
        self.scale, self.bias = block.scale, block.bias

    def forward(self, maps: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return maps * self.scale + self.bias
        return _ScaleAndShift.apply(maps, self.scale, self.bias)  # pyright: ignore[reportReturnType]


class _ScaleAndShift(torch.autograd.Function):
    """Autograd's own way writes the product of gradient and maps before it sums it up."""

    @staticmethod
    def forward(ctx, maps: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(maps, scale)
        return (maps * scale).add_(bias)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps, scale = ctx.saved_tensors
        product = torch.dot(_in_a_row(gradient), _in_a_row(maps).to(gradient.dtype))
        own = (gradient * scale).to(maps.dtype)
        return own, product.to(scale.dtype).view(1), gradient.sum().to(scale.dtype).view(1)


def _in_a_row(maps: Tensor) -> Tensor:
    """All values, without a copy where maps lie in channels-last memory."""
    return maps.permute(0, 2, 3, 1).reshape(-1)
