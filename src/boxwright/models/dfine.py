"""D-FINE: RT-DETR whose boxes' sides are distributions, refined layer by layer; the last teaches the others.

Peng et al., D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement, ICLR 2025.
Of oriented boxes (`dfine_obb`) the angle has a distribution too, and queries read along it: see `set_boxes`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.hungarian import most_voted
from boxwright.config.sets import DFINEConfig, DFINELossWeights, DFINEOBBConfig
from boxwright.data.targets import Targets
from boxwright.losses.distribution import decoupled_distillation_loss, fine_grained_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.attention import HEADS, split_heads
from boxwright.models.backbones.timm import TimmBackbone
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.dfine import DFINEDecoder
from boxwright.models.layers import ConvNorm, Normalize, with_dense_gradient
from boxwright.models.necks.hybrid import DepthwiseHalf, ELANLayer, HybridEncoder
from boxwright.models.oriented import distance_to_angle
from boxwright.models.queries import NoisyQueries, QuerySelection, make_queries, noisy_truth, set_outputs
from boxwright.models.set_boxes import ORIENTED, UPRIGHT
from boxwright.models.sets import (
    Costs,
    Matched,
    assign_last,
    count_of_queries,
    match_sets,
    not_ignored,
    overlaps_of,
    quality_set_losses,
    score_sets,
    truth_of_sets,
)
from boxwright.models.shapes import size_of


@dataclass(frozen=True)
class Size:
    """What a model's letter stands for (D-FINE, table 7).

    Attributes:
        backbone: of timm.
        channels, hidden: of the encoder and of its perceptron.
        width, depth: of the encoder's blocks.
        decoder, decoder_hidden: channels of the decoder, and of its perceptrons.
        layers: of the decoder.
        points: that a head reads of each level, finest first.
        reg_scale: the larger, the finer the steps of small shifts.
    """

    backbone: str
    channels: int
    hidden: int
    width: float
    depth: float
    decoder: int
    decoder_hidden: int
    layers: int
    points: tuple[int, ...]
    reg_scale: float = 4.0


SIZES = {
    "n": Size("hgnetv2_b0", 128, 512, 0.34, 0.5, 128, 512, 3, (6, 6)),
    "s": Size("hgnetv2_b0", 256, 1024, 0.5, 0.34, 256, 1024, 3, (3, 6, 3)),
    "m": Size("hgnetv2_b2", 256, 1024, 1.0, 0.67, 256, 1024, 4, (3, 6, 3)),
    "l": Size("hgnetv2_b4", 256, 1024, 1.0, 1.0, 256, 1024, 6, (3, 6, 3)),
    "x": Size("hgnetv2_b5", 384, 2048, 1.0, 1.0, 256, 1024, 6, (3, 6, 3), 8.0),
}


class DFINE(Detector):
    """See the module's docstring.

    Args:
        backbone: gives a map for each level.
        neck: maps to as many of equal channels.
        project: each of these to the decoder's channels.
        select: queries among the places.
        noisy: queries made of the truth.
        decoder: see `DFINEDecoder`.
        weights: of the losses.
        matching_aware: DEIM's class loss in place of the varifocal one.
        union: boxes of all layers learn the match that most layers have.
        selection: thresholds of `decode`.
        heading: hidden to where the front of an oriented box points; None: that isn't predicted.
        heading_weight: of its loss.
    """

    follows_predictions = True

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        project: nn.ModuleList,
        select: QuerySelection,
        noisy: NoisyQueries,
        decoder: DFINEDecoder,
        weights: DFINELossWeights,
        matching_aware: bool,
        union: bool,
        selection: Selection,
        heading: nn.Module | None = None,
        heading_weight: float = 0.0,
    ):
        super().__init__()
        self.normalize = Normalize(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
        self.backbone, self.neck, self.project = backbone, neck, project
        self.select, self.noisy, self.decoder = select, noisy, decoder
        self.weights, self.matching_aware, self.union = weights, matching_aware, union
        self.selection, self.costs = selection, Costs()
        self.heading, self.heading_weight = heading, heading_weight
        self.finds_headings = heading is not None
        self.kind, self.oriented = decoder.kind, decoder.kind.oriented

    @classmethod
    def from_config(cls, config: DFINEConfig, num_classes: int) -> "DFINE":
        """Build the parts that a checked config describes."""
        size = SIZES[config.size]
        strides = (8, 16, 32)[-len(size.points) :]
        backbone = TimmBackbone(
            size.backbone, config.pretrained, strides, config.frozen_stages, norm_eval=config.norm_eval
        )

        kind, heading, heading_weight = UPRIGHT, None, 0.0
        if isinstance(config, DFINEOBBConfig):
            kind, heading_weight = ORIENTED, config.heading_weight
            heading = nn.Linear(size.decoder, 2) if config.heading else None

        def block(before: int, after: int) -> nn.Module:
            return ELANLayer(before, after, round(size.width * after // 2), round(3 * size.depth))

        project = (
            ConvNorm(size.channels, size.decoder, 1, activation=None)
            if size.channels != size.decoder
            else nn.Identity()
            for _ in strides
        )
        return cls(
            backbone,
            HybridEncoder(backbone.channels, size.channels, HEADS, size.hidden, block, DepthwiseHalf, None),
            nn.ModuleList(project),
            QuerySelection(size.decoder, num_classes, config.queries, kind),
            NoisyQueries(
                size.decoder, num_classes, config.denoising, config.label_noise, config.box_noise, kind
            ),
            DFINEDecoder(
                size.decoder, size.decoder_hidden, num_classes, size.layers, size.points, size.reg_scale,
                config.sampling == "discrete", kind,
            ),
            config.loss_weights,
            config.cls_loss == "mal",
            config.union_matching,
            Selection(**config.selection.model_dump()),
            heading,
            heading_weight,
        )  # fmt: skip

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs: of the last layer; with targets of the selected
        places, of the first boxes, which the distributions start from, and of every layer (L in all).

        Returns:
            cls_logits (B, L, Q, C), boxes (B, L, Q, 4) cx, cy, w, h in shares of the input, image_size (2,)
            its width and height. With targets of the decoder's layers side_logits (B, L - 2, Q, 4, BINS +
            1) and references (B, Q, 4), the boxes that sides are shifted from; all of that of D noisy
            queries, by names that begin with dn_; their dn_matched_gt and dn_counted (B, D), dn_groups (1,).
            Oriented boxes have 5 numbers (`OrientedSets`), and with a heading headings (B, Q, 2).
        """
        maps = self.neck(self.backbone(self.normalize(images)))
        maps = [with_dense_gradient(project(m)) for project, m in zip(self.project, maps)]
        image_size = size_of(images)
        queries = make_queries(self.select, self.noisy, maps, targets, image_size)
        levels = [split_heads(m, HEADS) for m in maps]
        decoded = self.decoder(queries, levels, image_size, targets is not None)
        outputs = set_outputs(queries, decoded.cls_logits, decoded.boxes) | {"image_size": image_size}
        if self.heading is not None:
            outputs["headings"] = queries.split(self.heading(decoded.hidden)[:, None])[1][:, 0]
        if targets is not None:
            outputs["dn_side_logits"], outputs["side_logits"] = queries.split(decoded.side_logits)
            noisy, own = queries.split(decoded.references[:, None])
            outputs["dn_references"], outputs["references"] = noisy[:, 0], own[:, 0]
        return outputs

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """The last layer's queries, each matched with at most one box."""
        return assign_last(outputs, targets, self.costs)

    def candidates(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        """(B, G) how many queries could be matched with each object: none beyond as many as there are."""
        return count_of_queries(self.select.count, targets)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls`, `l1`, `giou`, `fgl` of the distributions and `ddf` of their teacher, each the sum
        over all layers, and `dn_` of the noisy queries; with a heading `heading` of the last layer. Of
        oriented boxes `giou` is what stands in its place (`OrientedSets`).
        """
        gt_boxes = self.kind.truth(targets, outputs["image_size"])
        objects = mean_over_processes(targets.mask.float().sum())
        logits, boxes = outputs["cls_logits"], outputs["boxes"]
        matched_gt = match_sets(logits, boxes, targets, gt_boxes, self.costs)
        matched = truth_of_sets(matched_gt, targets, gt_boxes)
        shared, pairs = matched, objects
        if self.union:
            voted = most_voted(matched_gt, gt_boxes.shape[1])
            shared = truth_of_sets(voted[:, None].expand_as(matched_gt), targets, gt_boxes)
            pairs = mean_over_processes((voted >= 0).float().sum())
        counted = not_ignored(boxes, matched, targets, outputs["image_size"])
        losses = self._losses(outputs, "", matched, shared, counted, objects, pairs)
        own, counted = noisy_truth(outputs, targets, gt_boxes)
        objects = objects * outputs["dn_groups"][0]
        losses |= self._losses(outputs, "dn_", own, own, counted, objects, objects)
        weights = self.weights.model_dump()
        losses = {name: weights[name.removeprefix("dn_")] * loss for name, loss in losses.items()}
        if self.heading is not None:
            own = Matched(*(part[:, -1] for part in (shared.positive, shared.gt_boxes, shared.gt_labels)))
            distance = distance_to_angle(outputs["headings"].float(), own.gt_boxes[..., 4])
            known = own.positive & (own.gt_boxes[..., 5] > 0)
            losses["heading"] = self.heading_weight * torch.where(known, distance, 0.0).sum() / pairs
        return losses

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image: the best pairs of query and class."""
        scores = outputs["cls_logits"][:, -1].float().sigmoid()
        return score_sets(outputs, scores, image_sizes)

    def _losses(
        self,
        outputs: dict[str, Tensor],
        prefix: str,
        matched: Matched,
        shared: Matched,
        counted: Tensor,
        objects: Tensor,
        pairs: Tensor,
    ) -> dict[str, Tensor]:
        """Losses of a kind of queries, classes over `objects`, boxes over `pairs` of query and object."""
        logits, boxes = outputs[f"{prefix}cls_logits"], outputs[f"{prefix}boxes"]
        sums = quality_set_losses(logits, boxes, matched, shared, counted, self.matching_aware)
        sides, references = outputs[f"{prefix}side_logits"], outputs[f"{prefix}references"]
        layers = sides.shape[1]
        local = Matched(*(part[:, -layers:] for part in (shared.positive, shared.gt_boxes, shared.gt_labels)))
        quality = overlaps_of(boxes[:, -layers:].detach(), local)
        wanted, counts = self.kind.shifts(references[:, None], local.gt_boxes, self.decoder.reg_scale)
        fgl = (fine_grained_loss(sides, wanted, self.decoder.steps) * counts).sum(-1) * quality
        sure = logits[:, -1].detach().float().sigmoid().amax(-1)[:, None]  # of the last layer, (B, 1, Q)
        importance = torch.where(local.positive, quality, sure)[:, :-1]
        ddf = decoupled_distillation_loss(sides[:, :-1], sides[:, -1:], importance, local.positive[:, :-1])
        return {
            f"{prefix}cls": sums["cls"].sum() / objects,
            f"{prefix}l1": sums["l1"].sum() / pairs,
            f"{prefix}giou": sums["giou"].sum() / pairs,
            f"{prefix}fgl": fgl.sum() / pairs,
            f"{prefix}ddf": ddf,
        }
