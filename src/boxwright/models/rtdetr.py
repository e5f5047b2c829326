"""RT-DETR: a real-time DETR, with a hybrid encoder and queries chosen among the image's places.

Zhao et al., DETRs Beat YOLOs on Real-time Object Detection, CVPR 2024; version 2 by Lv et al., RT-DETRv2,
2024.
"""

from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.config.sets import RTDETRConfig, SetLossWeights
from boxwright.data.targets import Targets
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.attention import HEADS, MapLinear
from boxwright.models.backbones.timm import TimmBackbone
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.rtdetr import RTDETRDecoder
from boxwright.models.layers import ConvNorm, Normalize, folded, with_dense_gradient
from boxwright.models.necks.hybrid import CSPRepLayer, HybridEncoder, JoiningConv
from boxwright.models.queries import NoisyQueries, QuerySelection, make_queries, noisy_truth, set_outputs
from boxwright.models.set_boxes import UPRIGHT
from boxwright.models.sets import (
    Costs,
    assign_last,
    count_of_queries,
    match_sets,
    not_ignored,
    quality_set_losses,
    score_sets,
    truth_of_sets,
)
from boxwright.models.shapes import size_of

STRIDES = (8, 16, 32)
# Of ResNet-18 to 101: channels of the encoder, hidden of its perceptron, width of its blocks, decoder layers.
SIZES = {18: (256, 1024, 0.5, 3), 34: (256, 1024, 0.5, 4), 50: (256, 1024, 1.0, 6), 101: (384, 2048, 1.0, 6)}
CHANNELS, POINTS, DEPTH = 256, 4, 3


class RTDETR(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps of strides 8, 16, 32.
        neck: maps to as many of equal channels.
        project: each of these to the decoder's channels.
        select: queries among the places.
        noisy: queries made of the truth.
        decoder: see `RTDETRDecoder`.
        weights: of the losses.
        matching_aware: DEIM's class loss in place of the varifocal one.
        selection: thresholds of `decode`.
    """

    follows_predictions = True

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        project: nn.ModuleList,
        select: QuerySelection,
        noisy: NoisyQueries,
        decoder: RTDETRDecoder,
        weights: SetLossWeights,
        matching_aware: bool,
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
        self.backbone, self.neck, self.project = backbone, neck, project
        self.select, self.noisy, self.decoder = select, noisy, decoder
        self.weights, self.matching_aware, self.selection = weights, matching_aware, selection
        self.costs = Costs()

    @classmethod
    def from_config(cls, config: RTDETRConfig, num_classes: int) -> "RTDETR":
        """Build the parts that a checked config describes."""
        channels, hidden, width, layers = SIZES[config.size]
        backbone = TimmBackbone(
            f"resnet{config.size}d", config.pretrained, STRIDES, config.frozen_stages,
            norm_eval=config.norm_eval, style="paddle",
        )  # fmt: skip

        def block(before: int, after: int) -> nn.Module:
            return CSPRepLayer(before, after, int(after * width), DEPTH, JoiningConv)

        def halve(before: int, after: int) -> nn.Module:
            return ConvNorm(before, after, 3, 2, activation=nn.SiLU)

        return cls(
            backbone,
            HybridEncoder(backbone.channels, channels, HEADS, hidden, block, halve, nn.SiLU),
            nn.ModuleList(ConvNorm(channels, CHANNELS, 1, activation=None) for _ in STRIDES),
            QuerySelection(CHANNELS, num_classes, config.queries),
            NoisyQueries(CHANNELS, num_classes, config.denoising, config.label_noise, config.box_noise),
            RTDETRDecoder(
                CHANNELS, num_classes, layers, (POINTS,) * len(STRIDES), config.sampling == "discrete"
            ),
            config.loss_weights,
            config.cls_loss == "mal",
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs: of the last layer, with targets of the selected
        places and every layer (L in all).

        Returns:
            cls_logits (B, L, Q, C), boxes (B, L, Q, 4) cx, cy, w, h in shares of the input, image_size (2,)
            its width and height. With targets the same of D noisy queries, dn_cls_logits and dn_boxes, and
            their dn_matched_gt and dn_counted (B, D), dn_groups (1,).
        """
        maps = self.neck(self.backbone(self.normalize(images)))
        maps = [with_dense_gradient(project(m)) for project, m in zip(self.project, maps)]
        image_size = size_of(images)
        queries = make_queries(self.select, self.noisy, maps, targets, image_size)
        logits, boxes = self.decoder(queries, maps, targets is not None)
        return set_outputs(queries, logits, boxes) | {"image_size": image_size}

    def merge(self) -> None:
        """Make the projections, whose norms are folded into them, a part of the layers that read them."""
        projections = [conv for layer in self.project if (conv := folded(layer))]
        if len(projections) == len(self.project):
            for layer in self.modules():
                if isinstance(layer, MapLinear):
                    layer.take_in(projections)
            self.project = nn.ModuleList(nn.Identity() for _ in projections)

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """The last layer's queries, each matched with at most one box."""
        return assign_last(outputs, targets, self.costs)

    def candidates(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        """(B, G) how many queries could be matched with each object: none beyond as many as there are."""
        return count_of_queries(self.select.count, targets)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls`, `l1`, `giou`, each the sum over all layers, and `dn_` of the noisy queries."""
        gt_boxes, image_size = UPRIGHT.truth(targets, outputs["image_size"]), outputs["image_size"]
        objects = mean_over_processes(targets.mask.float().sum())
        logits, boxes = outputs["cls_logits"], outputs["boxes"]
        matched = truth_of_sets(match_sets(logits, boxes, targets, gt_boxes, self.costs), targets, gt_boxes)
        counted = not_ignored(boxes, matched, targets, image_size)
        losses = quality_set_losses(logits, boxes, matched, matched, counted, self.matching_aware)
        losses = {name: loss.sum() / objects for name, loss in losses.items()}
        logits, boxes = outputs["dn_cls_logits"], outputs["dn_boxes"]
        own, counted = noisy_truth(outputs, targets, gt_boxes)
        noisy = quality_set_losses(logits, boxes, own, own, counted, self.matching_aware)
        objects = objects * outputs["dn_groups"][0]
        losses |= {f"dn_{name}": loss.sum() / objects for name, loss in noisy.items()}
        weights = self.weights.model_dump()
        return {name: weights[name.removeprefix("dn_")] * loss for name, loss in losses.items()}

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image: the best pairs of query and class."""
        scores = outputs["cls_logits"][:, -1].float().sigmoid()
        return score_sets(outputs, scores, image_sizes)
