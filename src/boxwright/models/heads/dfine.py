"""D-FINE's decoder: queries that refine distributions of their boxes' sides, layer by layer.

Peng et al., D-FINE, ICLR 2025, section 4.1.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from boxwright.losses.distribution import expected, side_weights
from boxwright.models.attention import HEADS, MLP, DeformableAttention, SelfAttention
from boxwright.models.queries import Queries, init_class
from boxwright.models.set_boxes import UPRIGHT, OrientedSets, UprightSets

BINS = 32  # steps of a side's distribution, which has one value more
UP = 0.5  # greatest shift of a side, in halves of the box; the outermost bins stand for twice as much
TOP = 4  # greatest probabilities of a side that tell how sure it is


class Decoded(NamedTuple):
    """What M queries became, whose boxes have N numbers."""

    cls_logits: Tensor  # (B, L, M, C)
    boxes: Tensor  # (B, L, M, N)
    side_logits: Tensor  # (B, L or L - 1, M, N, BINS + 1), without those of the first boxes
    references: Tensor  # (B, M, N), the first boxes, without gradient
    hidden: Tensor  # (B, M, channels) of the last layer


class DFINEDecoder(nn.Module):
    """Queries that attend to the image around their boxes, and refine the distributions of their sides.

    Args:
        channels: of queries and memory.
        hidden: of the perceptrons.
        num_classes: categories.
        layers: of it.
        points: that a head reads of each level.
        reg_scale: the larger, the finer the steps of small shifts.
        discrete: see `DeformableAttention`.
        kind: of the boxes; oriented ones have N = 5 numbers and distributions in place of 4.
    """

    steps: Tensor

    def __init__(
        self,
        channels: int,
        hidden: int,
        num_classes: int,
        layers: int,
        points: tuple[int, ...],
        reg_scale: float,
        discrete: bool,
        kind: UprightSets | OrientedSets = UPRIGHT,
    ):
        super().__init__()
        self.reg_scale, self.kind = reg_scale, kind
        sides = kind.sides
        self.layers = nn.ModuleList(DecoderLayer(channels, hidden, points, discrete) for _ in range(layers))
        self.positions = MLP(kind.positions, 2 * channels, channels)
        self.first_box = MLP(channels, channels, channels, sides)
        self.cls = nn.ModuleList(nn.Linear(channels, num_classes) for _ in range(layers))
        self.sides = nn.ModuleList(
            MLP(channels, channels, channels, sides * (BINS + 1)) for _ in range(layers)
        )
        self.quality = nn.ModuleList(MLP(sides * (TOP + 1), 64, 1) for _ in range(layers))
        self.register_buffer("steps", side_weights(BINS, UP, reg_scale), persistent=False)
        for cls in self.cls:
            assert isinstance(cls, nn.Linear)
            init_class(cls)
        for head in (self.first_box, *self.sides, *self.quality):
            assert isinstance(head, MLP)
            head.start_at_zero()

    def forward(self, queries: Queries, levels: list[Tensor], image_size: Tensor, every: bool) -> Decoded:
        """Refine boxes.

        Args:
            queries: M = D + Q of them.
            levels: see `split_heads`.
            image_size: (2,) width and height of the input, pixels.
            every: all layers are given, after the first boxes; else the last layer alone.
        """
        kind = self.kind
        hidden, boxes = queries.features, kind.from_logits(queries.box_logits)
        before, sides, first, references = torch.zeros_like(hidden), None, None, boxes
        logits, refined, shifts = [], [], []
        for n, layer in enumerate(self.layers):
            positions = self.positions(kind.position(boxes)).clamp(-10, 10)
            hidden = layer(hidden, positions, kind.frames(boxes, image_size), levels, queries.hidden)
            if first is None:
                first = kind.from_logits(self.first_box(hidden).float() + kind.to_logits(boxes))
                references = first.detach()
            own = self.sides[n](hidden + before).float().unflatten(-1, (kind.sides, BINS + 1))
            sides = own if sides is None else sides + own
            better = kind.shifted(references, expected(sides, self.steps), self.reg_scale)
            boxes, before = better.detach(), hidden.detach()
            if every or n == len(self.layers) - 1:
                own_logits = self.cls[n](hidden)
                if every and n == 0:
                    logits.append(own_logits)
                    refined.append(first)
                logits.append(own_logits + self._sureness(n, sides))
                refined.append(better)
                shifts.append(sides)
        return Decoded(
            torch.stack(logits, dim=1), torch.stack(refined, dim=1), torch.stack(shifts, dim=1),
            references, hidden,
        )  # fmt: skip

    def _sureness(self, layer: int, sides: Tensor) -> Tensor:
        """(B, M, 1) what the greatest probabilities of each side add to the logits."""
        top = sides.softmax(-1).topk(TOP, dim=-1).values  # (B, M, N, TOP)
        return self.quality[layer](torch.cat([top, top.mean(-1, keepdim=True)], dim=-1).flatten(-2))


class DecoderLayer(nn.Module):
    """As RT-DETR's, but what is read of the image isn't projected, and enters by a gate in place of a sum."""

    def __init__(self, channels: int, hidden: int, points: tuple[int, ...], discrete: bool):
        super().__init__()
        self.self_attention = SelfAttention(channels, HEADS)
        self.cross_attention = DeformableAttention(channels, HEADS, points, discrete=discrete)
        self.gate = nn.Linear(2 * channels, 2 * channels)
        self.mlp = MLP(channels, hidden, channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(
        self, hidden: Tensor, positions: Tensor, boxes: Tensor, levels: list[Tensor], mask: Tensor | None
    ) -> Tensor:
        """Hidden and positions (B, Q, C), boxes as `DeformableAttention` has them; (B, Q, C)."""
        hidden = self.norm1(hidden + self.self_attention(hidden, positions, mask))
        read = self.cross_attention(hidden + positions, boxes, levels)
        old, new = self.gate(torch.cat([hidden, read], dim=-1)).sigmoid().chunk(2, dim=-1)
        hidden = self.norm2(old * hidden + new * read)
        return self.norm3((hidden + self.mlp(hidden)).clamp(-65504, 65504))
