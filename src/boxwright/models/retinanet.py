"""RetinaNet: anchors on a feature pyramid, and a focal loss against their imbalance.

Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
"""

import torch
from torch import Tensor, nn

from boxwright.assign.max_iou import max_iou_assign
from boxwright.config.models import MaxIoUConfig, RetinaNetConfig
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import clip_boxes
from boxwright.losses.box import smooth_l1_loss
from boxwright.losses.classification import focal_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.box_coder import decode_deltas, encode_deltas
from boxwright.models.detections import Detections, Selection, select_detections
from boxwright.models.detector import Detector
from boxwright.models.heads.dense import DenseHead
from boxwright.models.layers import Normalize
from boxwright.models.points import one_hot, targets_of_points
from boxwright.models.priors import make_anchors, make_base_anchors, make_level_sizes
from boxwright.models.pyramid import make_pyramid


class RetinaNet(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps, `channels` and `strides` 8, 16, 32.
        neck: maps to a pyramid of `strides`.
        head: logits and deltas.
        strides: of the pyramid.
        base_anchors: (K, 4) of each level, see `make_base_anchors`.
        assigner: thresholds of the max-IoU assignment.
        smooth_l1_beta: where the box loss turns linear; 0: L1.
        selection: thresholds of `decode`.
        deviations: that the deltas are divided by.
        anchor_offset: of the anchors' centres from their cells' corners, in cells.
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
        assigner: MaxIoUConfig,
        smooth_l1_beta: float,
        selection: Selection,
        deviations: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
        anchor_offset: float = 0.0,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides, self.anchor_offset = strides, anchor_offset
        self.register_buffer("base_anchors", torch.stack(base_anchors), persistent=False)
        self.register_buffer("deviations", torch.tensor(deviations), persistent=False)
        self.thresholds = {
            "positive_iou": assigner.positive_iou,
            "negative_iou": assigner.negative_iou,
            "low_quality": assigner.low_quality,
            "peak_to_best": assigner.peak_to == "best",
            "ignore_coverage": assigner.ignore_coverage,
        }
        self.smooth_l1_beta = smooth_l1_beta
        self.selection = selection

    @classmethod
    def from_config(cls, config: RetinaNetConfig, num_classes: int) -> "RetinaNet":
        """Build the parts that a checked config describes."""
        return cls(*cls.parts_of(config, num_classes))

    @staticmethod
    def parts_of(config: RetinaNetConfig, num_classes: int) -> tuple:
        """The constructor's arguments up to `selection`."""
        backbone, neck, strides = make_pyramid(config, "input")
        anchors = config.anchors
        base_anchors = [
            make_base_anchors(stride, anchors.base_scale, anchors.scales, anchors.ratios, anchors.rounded)
            for stride in strides
        ]
        count = len(base_anchors[0])
        return (
            backbone,
            neck,
            DenseHead(config.neck.channels, num_classes, config.head_depth, config.head_norm, count),
            strides,
            base_anchors,
            config.assigner,
            config.smooth_l1_beta,
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
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

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls` and `box`, each a scalar."""
        logits, anchors = outputs["cls_logits"], outputs["anchors"]
        assigned = max_iou_assign(anchors, targets.boxes, targets.mask, targets.ignore, **self.thresholds)
        positive, gt_boxes, gt_labels = targets_of_points(assigned.matched_gt, targets)
        weight = positive.float()
        wanted = one_hot(gt_labels, logits.shape[-1]) * weight[..., None]
        cls_loss = focal_loss(logits, wanted) * (~assigned.ignored)[..., None]
        box_targets = encode_deltas(anchors, gt_boxes) / self.deviations
        box_loss = smooth_l1_loss(outputs["box_deltas"].float(), box_targets, self.smooth_l1_beta)
        positives = mean_over_processes(weight.sum())
        # Background anchors have deltas to some box, infinite ones maybe: select, don't multiply.
        return {
            "cls": cls_loss.sum() / positives,
            "box": torch.where(positive, box_loss, 0.0).sum() / positives,
        }

    def decode(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> list[Detections]:
        """Detections of each image."""
        boxes, scores = clip_boxes(self._boxes(outputs), image_sizes), outputs["cls_logits"].sigmoid()
        return select_detections(boxes, scores, self.selection, outputs["level_sizes"])

    def _boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        return decode_deltas(outputs["anchors"], outputs["box_deltas"].float() * self.deviations)
