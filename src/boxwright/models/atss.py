"""ATSS: one square anchor a location, and a threshold that each box sets itself.

Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
Selection, CVPR 2020.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.atss import atss_assign
from boxwright.config.models import ATSSConfig
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import boxes_to_distances, clip_boxes
from boxwright.losses.box import giou_loss
from boxwright.losses.classification import focal_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.box_coder import decode_deltas
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.fcos import centerness_of
from boxwright.models.heads.dense import DenseHead
from boxwright.models.layers import Normalize
from boxwright.models.points import assignment_of_points, one_hot, targets_of_points
from boxwright.models.priors import make_anchors, make_base_anchors, make_level_sizes
from boxwright.models.pyramid import make_pyramid

DELTA_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)


class ATSS(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps, `channels` and `strides` 8, 16, 32.
        neck: maps to a pyramid of `strides`.
        head: logits, deltas and centerness.
        strides: of the pyramid.
        anchor_scale: side of the anchors in strides.
        topk: of the assigner.
        box_weight: of the box loss.
        selection: thresholds of `decode`.
    """

    base_anchors: Tensor
    deviations: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        strides: tuple[int, ...],
        anchor_scale: float,
        topk: int,
        box_weight: float,
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides, self.topk, self.box_weight = strides, topk, box_weight
        base = torch.stack([make_base_anchors(s, anchor_scale, [1.0], [1.0]) for s in strides])
        self.register_buffer("base_anchors", base, persistent=False)
        self.register_buffer("deviations", torch.tensor(DELTA_DEVIATIONS), persistent=False)
        self.selection = selection

    @classmethod
    def from_config(cls, config: ATSSConfig, num_classes: int) -> "ATSS":
        """Build the parts that a checked config describes."""
        backbone, neck, strides = make_pyramid(config, "output")
        head = DenseHead(
            config.neck.channels,
            num_classes,
            config.head_depth,
            config.head_norm,
            quality="box",
            levels=len(strides),
        )
        return cls(
            backbone,
            neck,
            head,
            strides,
            config.anchor_scale,
            config.assigner.topk,
            config.box_weight,
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs.

        Returns:
            cls_logits (B, A, C), box_deltas (B, A, 4), centerness_logits (B, A), anchors (A, 4) xyxy pixels,
            level_sizes (L,).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, deltas, centerness = self.head(pyramid)
        sizes = [f.shape[-2:] for f in pyramid]
        return {
            "cls_logits": logits,
            "box_deltas": deltas,
            "centerness_logits": centerness,
            "anchors": make_anchors(sizes, self.strides, list(self.base_anchors)),
            "level_sizes": make_level_sizes(sizes),
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Anchors near a box's centre that overlap it more than is usual among the nearest."""
        return assign_near_centers(outputs, targets, self.topk)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls`, `box` and `centerness`, each a scalar."""
        logits, anchors = outputs["cls_logits"], outputs["anchors"]
        assigned = self.assign(outputs, targets)
        positive, gt_boxes, gt_labels = targets_of_points(assigned.matched_gt, targets)
        weight = positive.float()
        wanted = one_hot(gt_labels, logits.shape[-1]) * weight[..., None]
        centers = (anchors[:, :2] + anchors[:, 2:]) / 2
        centerness = centerness_of(boxes_to_distances(centers, gt_boxes)) * weight

        positives = mean_over_processes(weight.sum())
        centrality = mean_over_processes(centerness.sum())
        box_loss = giou_loss(self.boxes(outputs), gt_boxes) * centerness
        centerness_loss = F.binary_cross_entropy_with_logits(
            outputs["centerness_logits"], centerness, reduction="none"
        )
        return {
            "cls": (focal_loss(logits, wanted) * ~assigned.ignored[..., None]).sum() / positives,
            "box": self.box_weight * box_loss.sum() / centrality,
            "centerness": (centerness_loss * weight).sum() / positives,
        }

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image: thresholds by class score, ranks by class score times centerness."""
        boxes = clip_boxes(self.boxes(outputs), image_sizes)
        scores, centerness = outputs["cls_logits"].sigmoid(), outputs["centerness_logits"].sigmoid()
        return Scored(boxes, scores, outputs["level_sizes"], centerness)

    def boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        """Those of all anchors (B, A, 4) xyxy pixels, in float32."""
        return decode_deltas(outputs["anchors"], outputs["box_deltas"].float() * self.deviations)


def assign_near_centers(outputs: dict[str, Tensor], targets: Targets, topk: int) -> Assignment:
    """ATSS on a detector's anchors; background whose centre lies in an ignore region doesn't count."""
    anchors, sizes = outputs["anchors"], outputs["level_sizes"].tolist()
    matched_gt = atss_assign(anchors, sizes, targets.boxes, targets.mask, topk)
    return assignment_of_points((anchors[:, :2] + anchors[:, 2:]) / 2, targets, matched_gt)
