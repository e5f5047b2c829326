"""RetinaNet: anchors on a feature pyramid, and a focal loss against their imbalance.

Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
"""

import torch
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.max_iou import max_iou_assign
from boxwright.assign.samplers import hard_negatives, ohem_sample, prime_weights, random_sample
from boxwright.config.models import AnchorBasedConfig, MaxIoUConfig, RetinaNetConfig
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import aligned_iou, clip_boxes
from boxwright.losses.box import balanced_l1_loss, ciou_loss, diou_loss, giou_loss, smooth_l1_loss
from boxwright.losses.classification import focal_loss, soft_binary_cross_entropy
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.box_coder import decode_deltas, encode_deltas
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.dense import DenseHead
from boxwright.models.layers import Normalize
from boxwright.models.points import one_hot, targets_of_points
from boxwright.models.priors import make_anchors, make_base_anchors, make_level_sizes
from boxwright.models.pyramid import make_pyramid

CLS_LOSSES = {"focal": focal_loss, "cross_entropy": soft_binary_cross_entropy}
IOU_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}
NO_DEVIATIONS = (1.0, 1.0, 1.0, 1.0)


class RetinaNet(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps, `channels` and `strides`.
        neck: maps to a pyramid of `strides`.
        head: logits and deltas.
        strides: of the pyramid.
        base_anchors: (K, 4) of each level, see `make_base_anchors`.
        selection: thresholds of `decode`.
        deviations: that the deltas are divided by.
        anchor_offset: of the anchors' centres from their cells' corners, in cells.
        recipe: assigner, losses and sampler; None: the defaults.
    """

    base_anchors: Tensor
    deviations: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        strides: tuple[int, ...],
        base_anchors: list[Tensor],
        selection: Selection,
        deviations: tuple[float, float, float, float] = NO_DEVIATIONS,
        anchor_offset: float = 0.0,
        recipe: RetinaNetConfig | None = None,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides, self.anchor_offset = strides, anchor_offset
        self.register_buffer("base_anchors", torch.stack(base_anchors), persistent=False)
        self.register_buffer("deviations", torch.tensor(deviations), persistent=False)
        self.selection = selection
        self.recipe = recipe or RetinaNetConfig(name="retinanet")

    @classmethod
    def from_config(cls, config: RetinaNetConfig, num_classes: int) -> "RetinaNet":
        """Build the parts that a checked config describes."""
        return cls(*cls.parts_of(config, num_classes), recipe=config)

    @staticmethod
    def parts_of(config: AnchorBasedConfig, num_classes: int) -> tuple:
        """The constructor's arguments up to `selection`."""
        backbone, neck, strides = make_pyramid(config, "input")
        anchors = config.anchors
        base_anchors = [
            make_base_anchors(stride, anchors.base_scale, anchors.scales, anchors.ratios, anchors.rounded)
            for stride in strides
        ]
        count = len(base_anchors[0])
        head = DenseHead(config.neck.channels, num_classes, config.head_depth, config.head_norm, count)
        selection = Selection(**config.selection.model_dump())
        return backbone, neck, head, strides, base_anchors, selection

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs.

        Returns:
            cls_logits (B, A, C), box_deltas (B, A, 4), anchors (A, 4) xyxy pixels, level_sizes (L,).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, deltas, _ = self.head(pyramid)
        sizes = [f.shape[-2:] for f in pyramid]
        return {
            "cls_logits": logits,
            "box_deltas": deltas,
            "anchors": make_anchors(sizes, self.strides, list(self.base_anchors), self.anchor_offset),
            "level_sizes": make_level_sizes(sizes, self.base_anchors.shape[1]),
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Anchors that overlap a box enough, or best."""
        return assign_by_overlap(outputs["anchors"], targets, self.recipe.assigner)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls` and `box`, each a scalar."""
        logits = outputs["cls_logits"]
        assigned = self.assign(outputs, targets)
        positive, gt_boxes, gt_labels = targets_of_points(assigned.matched_gt, targets)
        weight = positive.float()
        wanted = one_hot(gt_labels, logits.shape[-1]) * weight[..., None]
        cls_loss = CLS_LOSSES[self.recipe.cls_loss](logits, wanted)
        counted = self._counted(cls_loss.sum(-1).detach(), assigned, gt_boxes, outputs, targets.labels)
        positives = mean_over_processes(weight.sum())
        # Background anchors have deltas to some box, infinite ones maybe: select, don't multiply.
        box_loss = torch.where(positive, self._box_loss(outputs, gt_boxes), 0.0)
        return {
            "cls": (cls_loss * counted[..., None]).sum() / positives,
            "box": box_loss.sum() / positives,
        }

    def _box_loss(self, outputs: dict[str, Tensor], gt_boxes: Tensor) -> Tensor:
        """(B, A)."""
        if self.recipe.box_loss in IOU_LOSSES:
            return IOU_LOSSES[self.recipe.box_loss](self.boxes(outputs), gt_boxes)
        wanted = encode_deltas(outputs["anchors"], gt_boxes) / self.deviations
        deltas = outputs["box_deltas"].float()
        if self.recipe.box_loss == "balanced_l1":
            return balanced_l1_loss(deltas, wanted)
        return smooth_l1_loss(deltas, wanted, self.recipe.smooth_l1_beta)

    def _counted(
        self,
        losses: Tensor,
        assigned: Assignment,
        gt_boxes: Tensor,
        outputs: dict[str, Tensor],
        labels: Tensor,
    ) -> Tensor:
        """(B, A) how much each anchor's class loss counts."""
        sampler = self.recipe.sampler
        positive = assigned.matched_gt >= 0
        negative = ~positive & ~assigned.ignored
        if sampler is None:
            return positive | negative
        if sampler.name == "prime":
            iou = aligned_iou(self.boxes(outputs).detach(), gt_boxes)
            weight = prime_weights(iou, assigned.matched_gt, labels, losses, sampler.power, sampler.bias)
            return weight * (positive | negative)
        if sampler.name == "hard_negative":
            return positive | hard_negatives(losses, positive, negative, sampler.ratio)
        if sampler.name == "random":
            return random_sample(positive, negative, sampler.count, sampler.positive_share)
        return ohem_sample(losses, positive, negative, sampler.count, sampler.positive_share)

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Clipped to the images."""

        def boxes_of(image: Tensor, anchor: Tensor, label: Tensor) -> Tensor:
            deltas, anchors = outputs["box_deltas"][image, anchor], outputs["anchors"][anchor]
            boxes = self.boxes({"box_deltas": deltas, "anchors": anchors})
            return clip_boxes(boxes[:, None], image_sizes[image])[:, 0]

        scores = outputs["cls_logits"].sigmoid()
        return Scored(boxes_of, scores, outputs["level_sizes"])

    def boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        """Those of all anchors (B, A, 4) xyxy pixels, in float32."""
        return decode_deltas(outputs["anchors"], outputs["box_deltas"].float() * self.deviations)


def assign_by_overlap(anchors: Tensor, targets: Targets, assigner: MaxIoUConfig) -> Assignment:
    """Max-IoU of anchors (A, 4) and the truth's upright boxes, as a config has it."""
    return max_iou_assign(
        anchors,
        targets.boxes,
        targets.mask,
        targets.ignore if targets.any_ignored else None,
        peak_to_best=assigner.peak_to == "best",
        **assigner.model_dump(exclude={"name", "peak_to"}),
    )
