"""RT-DETR's decoder: queries that attend to the image around their boxes, and refine these, layer by layer.

Zhao et al., RT-DETR, CVPR 2024, section 4.1; Zhu et al., Deformable DETR, ICLR 2021, section 4.1.
"""

import torch
from torch import Tensor, nn

from boxwright.models.attention import (
    HEADS,
    MLP,
    DeformableAttention,
    MapLinear,
    SelfAttention,
    inverse_sigmoid,
    split_heads,
)
from boxwright.models.queries import Queries, init_class

HIDDEN = 1024  # of the perceptrons


class RTDETRDecoder(nn.Module):
    """Queries that attend to the image around their boxes, and refine them, layer by layer.

    Args:
        channels: of queries and maps.
        num_classes: categories.
        layers: of it.
        points: that a head reads of each level.
        discrete: see `DeformableAttention`.
    """

    def __init__(self, channels: int, num_classes: int, layers: int, points: tuple[int, ...], discrete: bool):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(channels, points, discrete) for _ in range(layers))
        self.positions = MLP(4, 2 * channels, channels)
        self.cls = nn.ModuleList(nn.Linear(channels, num_classes) for _ in range(layers))
        self.box = nn.ModuleList(MLP(channels, channels, channels, 4) for _ in range(layers))
        for cls, box in zip(self.cls, self.box):
            assert isinstance(cls, nn.Linear)
            assert isinstance(box, MLP)
            init_class(cls)
            box.start_at_zero()

    def forward(self, queries: Queries, maps: list[Tensor], every: bool) -> tuple[Tensor, Tensor]:
        """Logits (B, L, D + Q, C) and boxes (B, L, D + Q, 4) of `every` layer, or of the last alone, that
        look at maps (B, C, H, W).
        """
        hidden, boxes = queries.features, queries.box_logits.sigmoid()
        logits, refined, before = [], [], boxes
        for n, layer in enumerate(self.layers):
            hidden = layer(hidden, self.positions(boxes), boxes, maps, queries.hidden)
            shift = self.box[n](hidden).float()
            if every or n == len(self.layers) - 1:
                logits.append(self.cls[n](hidden))
                refined.append((shift + inverse_sigmoid(before)).sigmoid())
            # A layer's box learns from the next one's too (DINO, section 3.5), and no further.
            before = (shift + inverse_sigmoid(boxes)).sigmoid()
            boxes = before.detach()
        return torch.stack(logits, dim=1), torch.stack(refined, dim=1)


class DecoderLayer(nn.Module):
    """Queries attend to each other, then to points of the image; a perceptron; all added and normalised."""

    def __init__(self, channels: int, points: tuple[int, ...], discrete: bool):
        super().__init__()
        self.self_attention = SelfAttention(channels, HEADS)
        self.cross_attention = DeformableAttention(channels, HEADS, points, discrete=discrete)
        self.value, self.read = MapLinear(channels, channels), nn.Linear(channels, channels)
        self.mlp = MLP(channels, HIDDEN, channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(
        self,
        hidden: Tensor,
        positions: Tensor,
        boxes: Tensor,
        maps: list[Tensor],
        mask: Tensor | None,
    ) -> Tensor:
        """Hidden and positions (B, Q, C), boxes (B, Q, 4), maps (B, C, H, W); (B, Q, C)."""
        hidden = self.norm1(hidden + self.self_attention(hidden, positions, mask))
        levels = [split_heads(self.value(n, m), HEADS) for n, m in enumerate(maps)]
        hidden = self.norm2(hidden + self.read(self.cross_attention(hidden + positions, boxes, levels)))
        return self.norm3(hidden + self.mlp(hidden))
