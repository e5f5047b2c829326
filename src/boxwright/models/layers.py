"""The few layers that backbones, necks and heads share."""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[..., nn.Module]  # takes `inplace`
NORMS = ("batch", "group", "none")


def make_norm(norm: "str | Callable[[int], nn.Module]", channels: int) -> nn.Module:
    """What `norm` makes of the channels, or by name: batch normalisation, group normalisation (at most 32
    groups of at least 4 channels), or none.

    Wu and He, Group Normalization, ECCV 2018.

    Raises:
        ValueError: an unknown name.
    """
    if callable(norm):
        return norm(channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        groups = next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0 and (channels >= 4 * g or g == 1))
        return nn.GroupNorm(groups, channels)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm is '{norm}', expected one of {', '.join(NORMS)}.")


class ConvNorm(nn.Sequential):
    """Convolution, norm, activation; without a norm, or with `bias`, the convolution has a bias; in `groups`
    of channels that don't see each other; `conv` is the class of the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        norm: "str | Callable[[int], nn.Module]" = "batch",
        activation: Activation | None = nn.ReLU,
        bias: bool = False,
        groups: int = 1,
        conv: type[nn.Conv2d] = nn.Conv2d,
    ):
        bias = bias or norm == "none"
        first = conv(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias)
        layers = [first, make_norm(norm, out_channels)]
        if activation is not None:
            layers.append(activation(inplace=True))
        super().__init__(*layers)


def folded(layer: nn.Module) -> nn.Conv2d | None:
    """The convolution that a `ConvNorm` without activation is, once its norm is folded; None of any other."""
    if isinstance(layer, ConvNorm) and all(isinstance(part, nn.Identity) for part in list(layer)[1:]):
        return cast(nn.Conv2d, layer[0])
    return None


class SeparableConv(nn.Sequential):
    """A 3x3 convolution of each channel by itself, then a 1x1 convolution across them."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False):
        depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        super().__init__(depthwise, nn.Conv2d(in_channels, out_channels, 1, bias=bias))


def with_dense_gradient(maps: Tensor) -> Tensor:
    """The same maps; a gradient in another layout than theirs, or in larger memory, is put into theirs.

    A batch norm on a processor takes ten times as long for a gradient that doesn't lie as its input does.
    """
    return _DenseGradient.apply(maps) if maps.requires_grad else maps  # pyright: ignore[reportReturnType]


class _DenseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps: Tensor) -> Tensor:
        last = maps.is_contiguous(memory_format=torch.channels_last)
        ctx.layout = torch.channels_last if last else torch.contiguous_format
        return maps.view_as(maps)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=ctx.layout)


def halve(features: Tensor, same: bool = False) -> Tensor:
    """3x3 max pooling at every second place; `same` pads as TensorFlow does, more to the right and bottom."""
    if not same:
        return F.max_pool2d(features, 3, 2, 1)
    height, width = features.shape[-2:]
    padding = [side for size in (width, height) for side in (size % 2, 1)]
    return F.max_pool2d(F.pad(features, padding, value=-torch.inf), 3, 2)


class Scale(nn.Module):
    """A learned factor, one a level (FCOS, section 3.2)."""

    def __init__(self, value: float = 1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(value))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.scale


class Normalize(nn.Module):
    """uint8 or float RGB in 0..255 to zero mean and unit deviation.

    The defaults are ImageNet's, which timm's weights expect.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)):
        super().__init__()
        self.as_it_is = not any(mean) and all(s == 1 for s in std)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("variance", torch.tensor(std).square(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.as_it_is:
            return images.float()
        # In one pass over memory, where a difference and a quotient take two.
        return F.batch_norm(images.float(), self.mean, self.variance, eps=1e-12)
