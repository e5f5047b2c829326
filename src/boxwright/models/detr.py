"""DETR: a set of boxes, predicted at once by queries that attend to the image, matched one to one.

Carion et al., End-to-End Object Detection with Transformers, ECCV 2020.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.config.sets import DETRConfig, DETRLossWeights
from boxwright.data.targets import Targets
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.attention import MLP, EncoderLayer, SelfAttention
from boxwright.models.backbones.timm import TimmBackbone
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.layers import Normalize
from boxwright.models.set_boxes import UPRIGHT
from boxwright.models.sets import (
    Costs,
    assign_last,
    box_losses,
    count_of_queries,
    match_sets,
    not_ignored,
    score_sets,
    truth_of_sets,
)
from boxwright.models.shapes import size_of

MOST_CELLS = 50  # a side, of learned positions


class DETR(Detector):
    """See the module's docstring.

    Args:
        backbone: gives one map of stride 32.
        positions: of the map's cells, (H * W, channels) for a map.
        encoder, decoder: layers.
        channels: of the transformer.
        num_classes: categories; the background is one more, the last.
        queries: the most objects that an image can have.
        weights: of the losses, and of the costs of a match.
        selection: thresholds of `decode`.
    """

    follows_predictions = True

    def __init__(
        self,
        backbone: TimmBackbone,
        positions: nn.Module,
        encoder: list[nn.Module],
        decoder: list[nn.Module],
        channels: int,
        num_classes: int,
        queries: int,
        weights: DETRLossWeights,
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.positions = backbone, positions
        self.project = nn.Conv2d(backbone.channels[-1], channels, 1)
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)
        self.norm = nn.LayerNorm(channels)
        self.queries = nn.Embedding(queries, channels)
        self.cls = nn.Linear(channels, num_classes + 1)
        self.box = MLP(channels, channels, channels, 4)
        self.weights, self.selection = weights, selection
        self.costs = Costs(weights.cls, weights.l1, weights.giou, softmax=True)
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    @classmethod
    def from_config(cls, config: DETRConfig, num_classes: int) -> "DETR":
        """Build the parts that a checked config describes."""
        channels = config.channels
        shape = (channels, config.heads, config.hidden, config.dropout)
        return cls(
            TimmBackbone(**config.backbone.model_dump(), strides=(32,)),
            POSITIONS[config.positions](channels),
            [EncoderLayer(*shape) for _ in range(config.encoder_layers)],
            [DecoderLayer(*shape) for _ in range(config.decoder_layers)],
            channels,
            num_classes,
            config.queries,
            config.loss_weights,
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs, of all L layers with targets, else of the last.

        Returns:
            cls_logits (B, L, Q, C + 1), background last, boxes (B, L, Q, 4) cx, cy, w, h in shares of the
            input, image_size (2,) its width and height.
        """
        (features,) = self.backbone(self.normalize(images))
        features = self.project(features)
        positions = self.positions(features)
        memory = features.flatten(2).transpose(1, 2)  # (B, N, channels)
        for layer in self.encoder:
            memory = layer(memory, positions)
        queries = self.queries.weight.to(memory.dtype)
        hidden = torch.zeros_like(queries).expand(memory.shape[0], -1, -1)
        every = []
        for layer in self.decoder:
            hidden = layer(hidden, queries, memory, positions)
            every.append(hidden)
        kept = every if targets is not None else every[-1:]
        shown = self.norm(torch.stack(kept, dim=1))  # (B, L, Q, channels)
        return {
            "cls_logits": self.cls(shown),
            "boxes": self.box(shown).float().sigmoid(),
            "image_size": size_of(images),
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """The last layer's queries, each matched with at most one box."""
        return assign_last(outputs, targets, self.costs)

    def candidates(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        """(B, G) how many queries could be matched with each object: none beyond as many as there are."""
        return count_of_queries(self.queries.num_embeddings, targets)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls`, `l1` and `giou`, each the sum over all layers."""
        logits, boxes = outputs["cls_logits"].float(), outputs["boxes"]
        gt_boxes = UPRIGHT.truth(targets, outputs["image_size"])
        matched = truth_of_sets(self._match(outputs, targets), targets, gt_boxes)
        background = logits.shape[-1] - 1
        wanted = torch.where(matched.positive, matched.gt_labels, background)
        cls_loss = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none").view_as(wanted)
        share = torch.where(matched.positive, 1.0, self.weights.background)
        share = share * not_ignored(boxes, matched, targets, outputs["image_size"])
        # Of each layer, over processes: their weighted mean.
        shares = mean_over_processes(share.sum((0, 2)), least=1e-6)
        l1, giou = box_losses(boxes, matched)
        objects = mean_over_processes(targets.mask.float().sum())
        return {
            "cls": self.weights.cls * ((cls_loss * share).sum((0, 2)) / shares).sum(),
            "l1": self.weights.l1 * l1.sum() / objects,
            "giou": self.weights.giou * giou.sum() / objects,
        }

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image: of each query the most probable class."""
        scores = outputs["cls_logits"][:, -1].float().softmax(-1)[..., :-1]
        best = scores.amax(-1, keepdim=True)
        scores = torch.where(scores == best, scores, 0.0)
        return score_sets(outputs, scores, image_sizes)

    def _match(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        gt_boxes = UPRIGHT.truth(targets, outputs["image_size"])
        return match_sets(outputs["cls_logits"], outputs["boxes"], targets, gt_boxes, self.costs)


class DecoderLayer(nn.Module):
    """Queries attend to each other, then to the image; a perceptron; each added and normalised after."""

    def __init__(self, channels: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.self_attention = SelfAttention(channels, heads, dropout)
        self.cross_attention = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.mlp = MLP(channels, hidden, channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, queries: Tensor, memory: Tensor, positions: Tensor) -> Tensor:
        """Hidden (B, Q, C), queries (Q, C), memory (B, N, C) and its positions (N, C); (B, Q, C)."""
        hidden = self.norm1(hidden + self.dropout(self.self_attention(hidden, queries)))
        read, _ = self.cross_attention(hidden + queries, memory + positions, memory, need_weights=False)
        hidden = self.norm2(hidden + self.dropout(read))
        return self.norm3(hidden + self.dropout(self.mlp(hidden)))


class SinePositions(nn.Module):
    """Sines and cosines, in turns, of where a cell lies in the map, row before column (DETR, A.4)."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.frequency = 1e4 ** -(2 * (torch.arange(half) // 2) / half)

    def forward(self, features: Tensor) -> Tensor:
        """Of a map (B, C, H, W); (H * W, C)."""
        height, width = features.shape[-2:]
        frequency = self.frequency.to(features.device)

        def waves(count: int) -> Tensor:
            place = torch.arange(1, count + 1, device=features.device) / (count + 1e-6) * 2 * math.pi
            angle = place[:, None] * frequency
            return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)

        return torch.cat(_grid(waves(height), waves(width)), dim=-1).flatten(0, 1).to(features.dtype)


class LearnedPositions(nn.Module):
    """A learned vector of each row and each column, column before row, as the original's."""

    def __init__(self, channels: int):
        super().__init__()
        self.rows = nn.Parameter(torch.rand(MOST_CELLS, channels // 2))
        self.columns = nn.Parameter(torch.rand(MOST_CELLS, channels // 2))

    def forward(self, features: Tensor) -> Tensor:
        """Of a map (B, C, H, W); (H * W, C); cells beyond the last have the last one's."""
        sides = features.shape[-2:]
        height, width = (torch.arange(n, device=features.device).clamp(max=MOST_CELLS - 1) for n in sides)
        rows, columns = _grid(self.rows[height], self.columns[width])
        return torch.cat([columns, rows], dim=-1).flatten(0, 1)


def _grid(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (H, D) and columns (W, D) of every cell, (H, W, D) both."""
    height, width = rows.shape[0], columns.shape[0]
    return rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)


POSITIONS = {"sine": SinePositions, "learned": LearnedPositions}
