"""Parts of transformers that detect: positions, attention at a few points of a pyramid, small perceptrons."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 8  # of the real-time detectors


class MLP(nn.Module):
    """Linear layers with an activation between them; the last one's bare.

    Args:
        sides: channels of the input, between the layers, and of the output.
        activation: between the layers.
    """

    def __init__(self, *sides: int, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sides))
        self.activation = activation()

    def start_at_zero(self) -> None:
        """Let the last layer give 0 whatever comes."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def start_at(self, numbers: Sequence[float]) -> None:
        """Let the last layer give something near these numbers."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.copy_(torch.tensor(numbers))

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            features = self.activation(layer(features))
        return self.layers[-1](features)


class SelfAttention(nn.MultiheadAttention):
    """Attention of a set to itself, with positions added to queries and keys.

    Torch's own parameters; its forward projects queries and keys apart, and puts the batch between the rows
    of an image, which costs a third of the attention's time on a processor.
    """

    def __init__(self, channels: int, heads: int, dropout: float = 0.0):
        super().__init__(channels, heads, dropout, batch_first=True)

    def forward(self, features: Tensor, positions: Tensor, mask: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Features (B, N, C), positions that broadcast, mask (N, N) True where nothing is seen; (B, N, C)."""
        channels = self.embed_dim
        weight, bias = self.in_proj_weight, self.in_proj_bias
        both = F.linear(features + positions, weight[: 2 * channels], bias[: 2 * channels])
        values = F.linear(features, weight[2 * channels :], bias[2 * channels :])
        query, key, value = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in (*both.chunk(2, dim=-1), values)
        )
        read = F.scaled_dot_product_attention(
            query, key, value, None if mask is None else ~mask, self.dropout if self.training else 0.0
        )
        return self.out_proj(read.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Self-attention and a perceptron, each added to its input and normalised after.

    Vaswani et al., Attention Is All You Need, NeurIPS 2017, section 3.1.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.attention = SelfAttention(channels, heads, dropout)
        self.mlp = MLP(channels, hidden, channels, activation=activation)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """Features (B, N, C) and positions that broadcast; (B, N, C)."""
        features = self.norm1(features + self.dropout(self.attention(features, positions)))
        return self.norm2(features + self.dropout(self.mlp(features)))


class DeformableAttention(nn.Module):
    """Each query reads a few points of every level, around its box.

    Zhu et al., Deformable DETR, ICLR 2021, equation 3; offsets in shares of the box, and any number of
    points a level, as in Lv et al., RT-DETRv2, 2024, section 3. What is read is split into heads beforehand
    (`split_heads`), once for all layers where values have no projection of their own.

    Args:
        channels: of queries and values.
        heads: that divide them.
        points: of each level.
        offset_scale: of an offset of 1, in the box's sides.
        discrete: the nearest cell is read in place of the mean of four: no gradient of where, simpler to
            export.
    """

    point_scale: Tensor
    middle: Tensor

    def __init__(
        self,
        channels: int,
        heads: int,
        points: tuple[int, ...],
        offset_scale: float = 0.5,
        discrete: bool = False,
    ):
        super().__init__()
        self.heads, self.points, self.discrete = heads, points, discrete
        total = sum(points)
        self.offsets = nn.Linear(channels, heads * total * 2)
        self.weights = nn.Linear(channels, heads * total)
        scale = torch.tensor([offset_scale / n for n in points for _ in range(n)])
        self.register_buffer("point_scale", scale.repeat(heads), persistent=False)
        self.register_buffer("middle", torch.tensor([1.0, 1, 0, 0, 0, 0]), persistent=False)
        self.merged = False
        self._reset()

    def _reset(self) -> None:
        """Each head samples along a direction of its own, its points ever farther (Deformable DETR, A.1)."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.cat([torch.arange(1, n + 1) for n in self.points])
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        with torch.no_grad():
            self.offsets.bias.copy_((direction[:, None] * distance[:, None]).flatten())

    def forward(self, queries: Tensor, boxes: Tensor, levels: list[Tensor]) -> Tensor:
        """What the queries read.

        Args:
            queries: (B, Q, C).
            boxes: (B, Q, 4) cx, cy, w, h in shares of the image; or (B, Q, 6) cx, cy and x, y along the width
                and along the height of turned ones.
            levels: of each level (B * heads, C / heads, H, W), see `split_heads`.

        Returns:
            (B, Q, C).
        """
        batch, count, channels = queries.shape
        # Places as `grid_sample` counts them, from -1 to 1, by boxes that are twice as large.
        place, weights = self.sample(queries, 2 * boxes - self.middle[: boxes.shape[2]])
        # Queries last and level by level: sums over points are sums of rows, of what the caches still hold.
        place = place.permute(0, 2, 3, 1, 4).flatten(0, 1).split(self.points, dim=1)  # (B * heads, P, Q, 2)
        weights = weights.permute(0, 2, 3, 1).flatten(0, 1)[:, None].split(self.points, dim=2)
        read = [
            (self._read(level, at) * weight).sum(2)  # (B * heads, C / heads, Q)
            for level, at, weight in zip(levels, place, weights, strict=True)
        ]
        return sum(read[1:], read[0]).view(batch, channels, count).transpose(1, 2)

    def sample(self, queries: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Where each head reads, (B, Q, heads, P, 2) x, y in shares of the image, and with what weight."""
        batch, count, _ = queries.shape
        # x of all points, then y: (B, Q, 2, heads * P). In onnxruntime rows of two numbers would be slow.
        offsets, around = self.offsets(queries), boxes[..., None]
        if self.merged:
            offsets = offsets.view(batch, count, 2, -1)
        else:
            offsets = offsets.view(batch, count, -1, 2).transpose(2, 3) * self.point_scale
        if boxes.shape[2] == 4:
            place = around[:, :, :2] + offsets * around[:, :, 2:]
        else:
            along, across = around[:, :, 2:4], around[:, :, 4:]
            place = around[:, :, :2] + offsets[:, :, :1] * along + offsets[:, :, 1:] * across
        place = place.view(batch, count, 2, self.heads, -1).permute(0, 1, 3, 4, 2)
        return place, self.weights(queries).view(batch, count, self.heads, -1).softmax(-1)

    @torch.no_grad()
    def merge(self) -> None:
        """Make what multiplies offsets a part of their weights, and put x of all points before y."""
        if not self.merged:
            for parameter in (self.offsets.weight, self.offsets.bias):
                pairs = parameter.unflatten(0, (-1, 2)).transpose(0, 1)  # (2, heads * P, ...)
                scale = self.point_scale.view(-1, *(1 for _ in pairs.shape[2:]))
                parameter.copy_((pairs * scale).flatten(0, 1))
            self.merged = True

    def _read(self, level: Tensor, place: Tensor) -> Tensor:
        """(N, C, P, Q) of a level (N, C, H, W) at places (N, P, Q, 2) from -1 to 1."""
        if not self.discrete:
            return F.grid_sample(level, place, padding_mode="zeros", align_corners=False)
        height, width = level.shape[-2:]
        x = ((place[..., 0] + 1) / 2 * width + 0.5).long().clamp(0, width - 1)
        y = ((place[..., 1] + 1) / 2 * height + 0.5).long().clamp(0, height - 1)
        index = (y * width + x).flatten(1)[:, None].expand(-1, level.shape[1], -1)
        return level.flatten(2).gather(2, index).unflatten(2, place.shape[1:3])


class MapLinear(nn.Linear):
    """A linear layer of every cell of a pyramid's maps, the same for all levels until `take_in`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels)
        self.weights: Tensor | None  # after `take_in` of each level, (L, C', C), and its bias, (L, C')
        self.biases: Tensor | None
        self.register_buffer("weights", None, persistent=False)
        self.register_buffer("biases", None, persistent=False)

    def forward(self, level: int, features: Tensor) -> Tensor:
        """Of a level's map (B, C, H, W) all channels (B, C', H, W)."""
        weight, bias = self.weight, self.bias
        if self.weights is not None and self.biases is not None:
            weight, bias = self.weights[level], self.biases[level]
        # As a product of matrices whose result lies channel by channel, as `DeformableAttention` reads it.
        weight = weight.expand(features.shape[0], -1, -1)
        return torch.baddbmm(bias[:, None], weight, features.flatten(2)).view(
            -1, weight.shape[1], *features.shape[2:]
        )

    @torch.no_grad()
    def take_in(self, convolutions: list[nn.Conv2d]) -> None:
        """Make each level's 1x1 convolution, that its map comes from, a part of the layer."""
        weights = [self.weight @ conv.weight.flatten(1) for conv in convolutions]
        biases = [self.bias if c.bias is None else self.bias + self.weight @ c.bias for c in convolutions]
        self.weights, self.biases = torch.stack(weights), torch.stack(biases)


def split_heads(features: Tensor, heads: int) -> Tensor:
    """A map (B, C, H, W) as (B * heads, C / heads, H, W)."""
    return features.unflatten(1, (heads, -1)).flatten(0, 1)


def sine_positions(height: int, width: int, channels: int, like: Tensor, temperature: float = 1e4) -> Tensor:
    """Sines and cosines of row, then of column, of every cell, row by row; (H * W, channels).

    Args:
        height, width: in cells.
        channels: divisible by 4.
        like: gives device and type.
        temperature: greatest wavelength over 2 pi, in cells.
    """
    quarter = channels // 4
    steps = torch.arange(quarter, device=like.device, dtype=torch.float32) / quarter
    frequency = temperature**-steps
    row = torch.arange(height, device=like.device, dtype=torch.float32)[:, None] * frequency
    column = torch.arange(width, device=like.device, dtype=torch.float32)[:, None] * frequency
    rows = torch.cat([row.sin(), row.cos()], dim=1)[:, None].expand(-1, width, -1)
    columns = torch.cat([column.sin(), column.cos()], dim=1)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1).to(like.dtype)


def inverse_sigmoid(share: Tensor, least: float = 1e-5) -> Tensor:
    """The logit of shares, at least `least` from 0 and from 1."""
    share = share.clamp(0, 1)
    return share.clamp(min=least).log() - (1 - share).clamp(min=least).log()
