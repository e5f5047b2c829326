"""The few layers that backbones, necks and heads share."""

import torch
from torch import Tensor, nn

NORMS = ("batch", "group", "none")


def make_norm(name: str, channels: int) -> nn.Module:
    """Batch normalisation, group normalisation (at most 32 groups of at least 4 channels), or none.

    Wu and He, Group Normalization, ECCV 2018.

    Raises:
        ValueError: an unknown name.
    """
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "group":
        groups = next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0 and (channels >= 4 * g or g == 1))
        return nn.GroupNorm(groups, channels)
    if name == "none":
        return nn.Identity()
    raise ValueError(f"norm is '{name}', expected one of {', '.join(NORMS)}.")


class ConvNorm(nn.Sequential):
    """Convolution, norm, activation; the convolution has a bias only where there is no norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        norm: str = "batch",
        activation: type[nn.Module] | None = nn.ReLU,
    ):
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=norm == "none")
        layers = [conv, make_norm(norm, out_channels)]
        if activation is not None:
            layers.append(activation(inplace=True))
        super().__init__(*layers)


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
    std: Tensor

    def __init__(self, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        normalized = (images.float() - self.mean) / self.std
        return normalized.contiguous(memory_format=torch.channels_last)
