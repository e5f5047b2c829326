"""Queries of a decoder: the best places of the encoded image, and in training the truth with noise on it."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from boxwright.assign import BACKGROUND
from boxwright.data.targets import Targets
from boxwright.models.attention import MLP, MapLinear
from boxwright.models.set_boxes import UPRIGHT, OrientedSets, UprightSets, kind_of
from boxwright.models.sets import Matched, truth_of_sets
from boxwright.models.shapes import at_most

# Of a place's box at the finest level, in shares of the unit; the next level's is twice as large.
SIDE = 0.05
MARGIN = 0.01  # places whose box's centre or side is nearer to 0 or 1 aren't taken


class Selected(NamedTuple):
    """The best places of each image."""

    features: Tensor  # (B, Q, C)
    box_logits: Tensor  # (B, Q, N), see `UprightSets.from_logits`
    cls_logits: Tensor  # (B, Q, classes)


class Queries(NamedTuple):
    """What a decoder starts from: in training D queries made of the truth, then Q selected ones."""

    features: Tensor  # (B, D + Q, C)
    box_logits: Tensor  # (B, D + Q, N), without gradient
    hidden: Tensor | None  # (D + Q, D + Q) bool, True where a query may not see another
    selected: Selected
    denoising: "Denoising | None"

    def split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B, L, D + Q, ...) of those made of the truth, and of those selected."""
        noisy = 0 if self.denoising is None else self.denoising.features.shape[1]
        return values[:, :, :noisy], values[:, :, noisy:]


class Denoising(NamedTuple):
    """Queries made of the truth, D of them, before the Q others."""

    features: Tensor  # (B, D, C)
    box_logits: Tensor  # (B, D, N)
    matched_gt: Tensor  # (B, D), -1 for those that are to become background
    counted: Tensor  # (B, D) bool, False where they are made of padding
    hidden: Tensor  # (D + Q, D + Q) bool, True where a query may not see another
    groups: int


class QuerySelection(nn.Module):
    """Classes and boxes of every place, of which the best become queries.

    Zhang et al., DINO, ICLR 2023, section 3.4; RT-DETR, section 4.3.

    Args:
        channels: of the maps.
        num_classes: categories.
        count: of queries; of all places where there are fewer.
        kind: of the boxes.
    """

    def __init__(
        self, channels: int, num_classes: int, count: int, kind: UprightSets | OrientedSets = UPRIGHT
    ):
        super().__init__()
        self.count, self.kind = count, kind
        self.project, self.norm = MapLinear(channels, channels), nn.LayerNorm(channels)
        self.cls = nn.Linear(channels, num_classes)
        self.box = MLP(channels, channels, channels, len(kind.places))
        init_class(self.cls)
        if kind.oriented:
            self.box.start_at(kind.places)

    def forward(self, maps: list[Tensor], image_size: Tensor) -> Selected:
        """The best of all cells of maps (B, C, H, W), of an image of `image_size` (2,) pixels."""
        sizes = [(m.shape[2], m.shape[3]) for m in maps]
        places, usable = grid_places(sizes, image_size / self.kind.unit(image_size))
        projected = torch.cat([self.project(n, m).flatten(2) for n, m in enumerate(maps)], dim=2)
        # Other places are those of a map that is 0 there.
        features = self.norm(torch.where(usable, projected.transpose(1, 2), self.project.bias))
        logits = self.cls(features)
        count = at_most(self.count, logits.shape[1])
        best = logits.amax(-1).topk(count, dim=1).indices[..., None]  # (B, Q, 1)

        def chosen(values: Tensor) -> Tensor:
            return values.gather(1, best.expand(-1, -1, values.shape[-1]))

        # Boxes of the best places alone.
        own = chosen(features)
        boxes = self.kind.at_place(self.box(own).float(), places[best[..., 0]])
        return Selected(own.detach(), boxes, chosen(logits))


class NoisyQueries(nn.Module):
    """Groups of queries made of the truth: near ones that are to find it, far ones that aren't to.

    DINO, section 3.3 (contrastive denoising).

    Args:
        channels: of queries.
        num_classes: categories.
        count: of queries, about; there is one group at least.
        label_noise: share of labels drawn anew, twice.
        box_noise: shift of a near query's sides, at most, in halves of width and height.
        kind: of the boxes.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        count: int,
        label_noise: float,
        box_noise: float,
        kind: UprightSets | OrientedSets = UPRIGHT,
    ):
        super().__init__()
        self.num_classes, self.count, self.kind = num_classes, count, kind
        self.label_noise, self.box_noise = label_noise, box_noise
        self.embed = nn.Embedding(num_classes + 1, channels, padding_idx=num_classes)
        nn.init.xavier_uniform_(self.embed.weight[:-1])

    def forward(self, targets: Targets, gt_boxes: Tensor, queries: int) -> Denoising:
        """Of the truth, whose boxes are `gt_boxes` (see `UprightSets.truth`), beside other queries."""
        labels, boxes, mask = targets.labels, gt_boxes, targets.mask
        if labels.shape[1] == 0:
            # One that doesn't count, so that every process has the same parameters at work.
            labels, mask = labels.new_zeros(len(labels), 1), mask.new_zeros(len(mask), 1)
            boxes = boxes.new_zeros(len(boxes), 1, boxes.shape[2])
        each = labels.shape[1]
        groups = max(1, self.count // each)
        # Of each group first the near ones, then the far ones.
        labels = torch.where(mask, labels, self.num_classes).repeat(1, 2 * groups)
        boxes, mask = boxes.repeat(1, 2 * groups, 1), mask.repeat(1, 2 * groups)
        is_far = torch.arange(labels.shape[1], device=labels.device) // each % 2 == 1
        labels = self._with_label_noise(labels, mask)
        boxes = self.kind.noisy(boxes, is_far, self.box_noise)
        own = torch.arange(each, device=labels.device).repeat(2 * groups)
        return Denoising(
            self.embed(labels),
            self.kind.to_logits(boxes),
            torch.where(mask & ~is_far, own, BACKGROUND),
            mask,
            _hidden(2 * each, groups, queries, labels.device),
            groups,
        )

    def _with_label_noise(self, labels: Tensor, mask: Tensor) -> Tensor:
        drawn = torch.rand(labels.shape, device=labels.device) < self.label_noise / 2
        others = torch.randint(0, self.num_classes, labels.shape, dtype=torch.int32, device=labels.device)
        return torch.where(drawn & mask, others.long(), labels)


def make_queries(
    select: QuerySelection,
    noisy: NoisyQueries,
    maps: list[Tensor],
    targets: Targets | None,
    image_size: Tensor,
) -> Queries:
    """The best places of the maps (B, C, H, W), and with targets those made of the truth before them."""
    selected = select(maps, image_size)
    if targets is None:
        return Queries(selected.features, selected.box_logits.detach(), None, selected, None)
    gt_boxes = noisy.kind.truth(targets, image_size)
    denoising = noisy(targets, gt_boxes, selected.features.shape[1])
    return Queries(
        torch.cat([denoising.features.to(selected.features.dtype), selected.features], dim=1),
        torch.cat([denoising.box_logits, selected.box_logits.detach()], dim=1),
        denoising.hidden,
        selected,
        denoising,
    )


def grid_places(sizes: list[tuple[int, int]], extent: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of a box at every cell of every level, (N, 4), and (N, 1) bool, where it can be a query; the
    image is `extent` (2,) units wide and high.
    """
    device = extent.device
    boxes = []
    for level, (height, width) in enumerate(sizes):
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        side = torch.full_like(grid_x, SIDE * 2.0**level)
        boxes.append(torch.stack([grid_x * extent[0], grid_y * extent[1], side, side], dim=-1).flatten(0, 1))
    places = torch.cat(boxes)
    usable = ((places > MARGIN) & (places < 1 - MARGIN)).all(-1, keepdim=True)
    logits = (places / (1 - places)).log()
    return torch.where(usable, logits, torch.finfo(torch.float32).max), usable


def _hidden(each: int, groups: int, queries: int, device: torch.device) -> Tensor:
    """Groups don't see each other, queries see no group; groups see the queries."""
    noisy = each * groups
    group = torch.arange(noisy + queries, device=device).div(each, rounding_mode="floor").clamp(max=groups)
    is_query = group == groups
    return (group[:, None] != group) & ~is_query


def init_class(layer: nn.Linear) -> None:
    """Every class starts at the same small probability."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.constant_(layer.bias, -math.log(layer.out_features))


def set_outputs(queries: Queries, logits: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """A decoder's outputs by name: the selected places' before those of the layers, noisy queries apart."""
    if queries.denoising is None:
        return {"cls_logits": logits, "boxes": boxes}
    (dn_logits, logits), (dn_boxes, boxes) = queries.split(logits), queries.split(boxes)
    first = queries.selected
    return {
        "cls_logits": torch.cat([first.cls_logits[:, None], logits], dim=1),
        "boxes": torch.cat([kind_of(boxes).from_logits(first.box_logits)[:, None], boxes], dim=1),
        "dn_cls_logits": dn_logits,
        "dn_boxes": dn_boxes,
        "dn_matched_gt": queries.denoising.matched_gt,
        "dn_counted": queries.denoising.counted,
        "dn_groups": torch.full((1,), float(queries.denoising.groups), device=boxes.device),
    }


def noisy_truth(outputs: dict[str, Tensor], targets: Targets, gt_boxes: Tensor) -> tuple[Matched, Tensor]:
    """The truth of the noisy queries of every layer (B, L, D), and where they count."""
    layers = outputs["dn_boxes"].shape[1]
    matched_gt = outputs["dn_matched_gt"][:, None].expand(-1, layers, -1)
    counted = outputs["dn_counted"][:, None].expand(-1, layers, -1).float()
    return truth_of_sets(matched_gt, targets, gt_boxes), counted
