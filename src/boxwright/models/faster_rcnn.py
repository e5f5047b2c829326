"""Faster R-CNN: proposals of where objects could be, then a head that classifies and refines each of them.

Ren et al., NeurIPS 2015, on a feature pyramid (Lin et al., CVPR 2017). With several stages it is Cascade
R-CNN (Cai and Vasconcelos, CVPR 2018): a stage takes the boxes of the one before, and asks for more overlap.
With oriented regions it is Oriented R-CNN (Xie et al., ICCV 2021).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.samplers import ohem_sample, random_sample
from boxwright.config.regions import (
    FasterRCNNConfig,
    FasterRCNNOBBConfig,
    RegionConfig,
    RPNConfig,
    StageConfig,
)
from boxwright.data.targets import Targets
from boxwright.losses.classification import soft_binary_cross_entropy
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.roi import RegionPooling, RoIHead, SheetPooling
from boxwright.models.heads.rpn import RPNHead, propose
from boxwright.models.layers import Normalize
from boxwright.models.oriented import distance_to_angle, head_boxes
from boxwright.models.points import rotated_of_points, targets_of_points
from boxwright.models.priors import make_anchors, make_base_anchors, make_level_sizes
from boxwright.models.pyramid import make_pyramid
from boxwright.models.regions import OrientedRegions, UprightRegions
from boxwright.models.retinanet import assign_by_overlap
from boxwright.models.shapes import is_exporting, size_of

STAGE_OUTPUTS = ("regions", "region_mask", "matched_gt", "cls_logits", "box_deltas", "headings")
LEVELS = 4  # that regions are pooled from; proposals come from the coarser ones too


class FasterRCNN(Detector):
    """See the module's docstring.

    Args:
        backbone, neck: images to a pyramid of `strides`.
        rpn_head: objectness and deltas of the anchors.
        roi_heads: one a stage.
        strides: of the pyramid.
        base_anchors: (K, 4) of each level, see `make_base_anchors`.
        rpn: how proposals are assigned, sampled and thinned out.
        regions: how regions are sampled and pooled.
        stages: overlap and deviations of each stage.
        selection: thresholds of `decode`.
        kind: of the regions.
        heading_weight: of the loss of headings, where the heads predict some.
    """

    base_anchors: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn_head: nn.Module,
        roi_heads: Sequence[nn.Module],
        strides: tuple[int, ...],
        base_anchors: list[Tensor],
        rpn: RPNConfig,
        regions: RegionConfig,
        stages: Sequence[StageConfig],
        selection: Selection,
        kind: UprightRegions | OrientedRegions,
        heading_weight: float = 0.0,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.rpn_head = backbone, neck, rpn_head
        self.roi_heads = nn.ModuleList(roi_heads)
        how = (strides[:LEVELS], regions.sampling_ratio, regions.aligned)
        self.pooling = RegionPooling(*how) if regions.sampling_ratio else SheetPooling(*how)
        self.exported_pooling = SheetPooling(*how)
        self.kind, self.oriented, self.heading_weight = kind, kind.oriented, heading_weight
        self.finds_headings = any(head.heading is not None for head in roi_heads)
        self.strides, self.rpn, self.regions, self.selection = strides, rpn, regions, selection
        self.register_buffer("base_anchors", torch.stack(base_anchors), persistent=False)
        self.overlaps, self.weights = [s.positive_iou for s in stages], [s.weight for s in stages]
        for n, stage in enumerate(stages):
            self.register_buffer(f"deviations_{n}", torch.tensor(stage.deviations), persistent=False)

    @classmethod
    def from_config(cls, config: FasterRCNNConfig, num_classes: int) -> "FasterRCNN":
        """Build the parts that a checked config describes."""
        backbone, neck, strides = make_pyramid(config, "pool")
        anchors, channels = config.anchors, config.neck.channels
        base_anchors = [
            make_base_anchors(s, anchors.base_scale, anchors.scales, anchors.ratios, anchors.rounded)
            for s in strides
        ]
        kind, heading, heading_weight = UprightRegions(), False, 0.0
        if isinstance(config, FasterRCNNOBBConfig):
            kind, heading, heading_weight = OrientedRegions(), config.heading, config.heading_weight
        agnostic = config.regions.class_agnostic
        return cls(
            backbone,
            neck,
            RPNHead(channels, len(base_anchors[0]), kind.start),
            [
                RoIHead(channels, num_classes, config.hidden, agnostic, kind.delta_width, heading)
                for _ in config.stages
            ],
            strides,
            base_anchors,
            config.rpn,
            config.regions,
            config.stages,
            Selection(**config.selection.model_dump()),
            kind,
            heading_weight,
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs, of all proposals or with targets of a sample of them.

        Returns:
            rpn_logits (B, A), rpn_deltas (B, A, 4), anchors (A, 4) xyxy pixels, level_sizes (L,), and of S
            stages regions (B, S, R, 4) xyxy pixels, region_mask (B, S, R) False where there are fewer,
            cls_logits (B, S, R, C + 1), background last, box_deltas (B, S, R, C or 1, 4). With targets
            matched_gt (B, S, R) of the regions, -1 for background. Of oriented regions there are 6, 5 and 5
            numbers in place of 4, and with a heading headings (B, S, R, 2).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, deltas = self.rpn_head(pyramid)
        sizes = [level.shape[-2:] for level in pyramid]
        anchors = make_anchors(sizes, self.strides, list(self.base_anchors))
        counts = [height * width * self.base_anchors.shape[1] for height, width in sizes]
        limit = size_of(images)[None]
        candidates = self.rpn.candidates if targets is None else self.rpn.train_candidates
        regions, mask = propose(
            logits, deltas, anchors, counts, limit,
            candidates, self.rpn.proposals, self.rpn.iou_threshold, self.kind,
        )  # fmt: skip
        pooling = self.exported_pooling if is_exporting() else self.pooling
        pool = partial(pooling, pooling.prepare(pyramid[:LEVELS]))
        stages = []
        for n in range(len(self.roi_heads)):
            stage = {"regions": regions, "region_mask": mask}
            if targets is not None:
                stage = self._sample(n, regions, mask, pool, targets)
            stage |= self.roi_heads[n](pool(stage["regions"]))
            stages.append(stage)
            regions, mask = self._refined(n, stage, limit), stage["region_mask"]
        return {
            "rpn_logits": logits,
            "rpn_deltas": deltas,
            "anchors": anchors,
            "level_sizes": make_level_sizes(sizes, self.base_anchors.shape[1]),
            **{name: torch.stack([stage[name] for stage in stages], dim=1) for name in stages[0]},
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Anchors that overlap a box enough to be proposals of it."""
        return assign_by_overlap(outputs["anchors"], targets, self.rpn.assigner)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `rpn_cls` and `rpn_box`, and of each stage `cls`, `box` and where it is predicted
        `heading`, numbered from the second.
        """
        losses = self._rpn_loss(outputs, targets)
        for n, weight in enumerate(self.weights):
            stage = {name: outputs[name][:, n] for name in STAGE_OUTPUTS if name in outputs}
            counted = mean_over_processes(stage["region_mask"].float().sum())
            ending = f"_{n + 1}" if n else ""
            for name, loss in self._stage_losses(n, stage, targets).items():
                losses[f"{name}{ending}"] = weight * loss.sum() / counted
        return losses

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image: the last stage's boxes, the mean of all stages' scores."""
        last = len(self.roi_heads) - 1
        scores = outputs["cls_logits"].float().softmax(-1).mean(dim=1)[..., :-1]
        scores = scores * outputs["region_mask"][:, last, :, None]
        regions, deltas = outputs["regions"][:, last], outputs["box_deltas"][:, last].float()
        scores = scores * self.kind.inside(regions, image_sizes)

        def boxes_of(image: Tensor, region: Tensor, label: Tensor) -> Tensor:
            own = deltas[image, region, label if deltas.shape[2] > 1 else 0]
            own = own * self.get_buffer(f"deviations_{last}")
            boxes = self.kind.refine(regions[image, region][:, None], own[:, None], image_sizes[image])[:, 0]
            if "headings" not in outputs:
                return boxes
            return head_boxes(boxes, {"headings": outputs["headings"][image, last, region]}, long_edge=True)

        return Scored(boxes_of, scores)

    @torch.no_grad()
    def _refined(self, stage: int, outputs: dict[str, Tensor], limit: Tensor) -> Tensor:
        """(B, R, 4 or 5) where a stage's most probable class moves its regions."""
        deltas = outputs["box_deltas"].float()
        if deltas.shape[2] > 1:
            best = outputs["cls_logits"][..., :-1].argmax(-1)[..., None, None]
            deltas = deltas.gather(2, best.expand(-1, -1, 1, deltas.shape[3]))
        deltas = deltas[:, :, 0] * self.get_buffer(f"deviations_{stage}")
        return self.kind.refine(outputs["regions"], deltas, limit)

    @torch.no_grad()
    def _sample(
        self, stage: int, regions: Tensor, mask: Tensor, pool: Callable[[Tensor], Tensor], targets: Targets
    ) -> dict[str, Tensor]:
        """The regions that a stage learns from: proposals and the truth itself, assigned and sampled."""
        sampler, least = self.regions.sampler, self.overlaps[stage]
        short = max(0, sampler.count - regions.shape[1])  # as many of every stage
        truth = self.kind.truth(targets)
        regions = torch.cat([F.pad(regions, (0, 0, 0, short)), truth], dim=1)  # (B, R + G, 4 or 5)
        mask = torch.cat([F.pad(mask, (0, short)), targets.mask], dim=1)
        assigned = self.kind.assign(regions, targets, least)
        positive = (assigned.matched_gt >= 0) & mask
        negative = (assigned.matched_gt < 0) & mask & ~assigned.ignored
        if sampler.name == "ohem":
            every = {"regions": regions, "region_mask": mask, "matched_gt": assigned.matched_gt}
            every |= self.roi_heads[stage](pool(regions))
            hardness = sum(self._stage_losses(stage, every, targets).values())
            assert isinstance(hardness, Tensor)
            chosen = ohem_sample(hardness, positive, negative, sampler.count, sampler.positive_share)
        else:
            chosen = random_sample(positive, negative, sampler.count, sampler.positive_share)
        rows = chosen.int().argsort(dim=1, descending=True, stable=True)[:, : sampler.count]
        return {
            "regions": regions.gather(1, rows[..., None].expand(-1, -1, regions.shape[2])),
            "region_mask": chosen.gather(1, rows),
            "matched_gt": assigned.matched_gt.gather(1, rows),
        }

    def _rpn_loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        assigned = self.assign(outputs, targets)
        positive = assigned.matched_gt >= 0
        negative = ~positive & ~assigned.ignored
        chosen = random_sample(positive, negative, self.rpn.sample, self.rpn.positive_share)
        counted = mean_over_processes(chosen.float().sum())
        cls_loss = soft_binary_cross_entropy(outputs["rpn_logits"], positive.float())
        box_loss = self.kind.proposal_loss(
            outputs["rpn_deltas"], outputs["anchors"], assigned.matched_gt, targets, self.rpn.smooth_l1_beta
        )
        return {
            "rpn_cls": (cls_loss * chosen).sum() / counted,
            "rpn_box": torch.where(chosen & positive, box_loss, 0.0).sum() / counted,
        }

    def _stage_losses(self, stage: int, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses of each region by name, (B, R) each, 0 where there is none."""
        positive, _, gt_labels = targets_of_points(outputs["matched_gt"], targets)
        mask, logits, deltas = outputs["region_mask"], outputs["cls_logits"].float(), outputs["box_deltas"]
        wanted = torch.where(positive, gt_labels, logits.shape[-1] - 1)
        cls_loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
        if deltas.shape[2] > 1:
            deltas = deltas.gather(2, gt_labels[..., None, None].expand(-1, -1, 1, deltas.shape[3]))
        box_loss = self.kind.region_loss(
            deltas[:, :, 0].float(), outputs["regions"], outputs["matched_gt"], targets,
            self.get_buffer(f"deviations_{stage}"), self.regions.smooth_l1_beta,
        )  # fmt: skip
        losses = {
            "cls": torch.where(mask, cls_loss, 0.0),
            "box": torch.where(mask & positive, box_loss, 0.0),
        }
        if "headings" in outputs:
            gt_boxes, gt_oriented, _ = rotated_of_points(outputs["matched_gt"], targets)
            distance = distance_to_angle(outputs["headings"].float(), gt_boxes[..., 4])
            known = mask & positive & gt_oriented
            losses["heading"] = self.heading_weight * torch.where(known, distance, 0.0)
        return losses
