"""GFL: the class score is the quality of the box, and each side a distribution.

Li et al., Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object
Detection, NeurIPS 2020.
"""

import torch
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.config.models import GFLConfig
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import (
    aligned_iou,
    boxes_to_distances,
    clip_boxes,
    distances_to_boxes,
)
from boxwright.losses.box import distribution_focal_loss, giou_loss
from boxwright.losses.classification import quality_focal_loss
from boxwright.losses.distribution import expected
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.atss import assign_near_centers
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.dense import DenseHead
from boxwright.models.layers import Normalize
from boxwright.models.points import one_hot, targets_of_points
from boxwright.models.priors import make_anchors, make_base_anchors, make_level_sizes, make_points
from boxwright.models.pyramid import make_pyramid


class GFL(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps, `channels` and `strides` 8, 16, 32.
        neck: maps to a pyramid of `strides`.
        head: logits, and logits of the bins of each side.
        strides: of the pyramid.
        anchor_scale: side in strides of the anchors that the assigner compares with the boxes.
        reg_max: greatest distance of a side in strides; the distribution has one bin more.
        topk: of the assigner.
        box_weight, dfl_weight: of these losses.
        selection: thresholds of `decode`.
    """

    base_anchors: Tensor
    bins: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        strides: tuple[int, ...],
        anchor_scale: float,
        reg_max: int,
        topk: int,
        box_weight: float,
        dfl_weight: float,
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides, self.topk = strides, topk
        self.box_weight, self.dfl_weight = box_weight, dfl_weight
        base = torch.stack([make_base_anchors(s, anchor_scale, [1.0], [1.0]) for s in strides])
        self.register_buffer("base_anchors", base, persistent=False)
        self.register_buffer("bins", torch.arange(reg_max + 1.0), persistent=False)
        self.selection = selection

    @classmethod
    def from_config(cls, config: GFLConfig, num_classes: int) -> "GFL":
        """Build the parts that a checked config describes."""
        backbone, neck, strides = make_pyramid(config, "output")
        head = DenseHead(
            config.neck.channels,
            num_classes,
            config.head_depth,
            config.head_norm,
            box_width=4 * (config.reg_max + 1),
            levels=len(strides),
        )
        return cls(
            backbone,
            neck,
            head,
            strides,
            config.anchor_scale,
            config.reg_max,
            config.assigner.topk,
            config.box_weight,
            config.dfl_weight,
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs.

        Returns:
            cls_logits (B, P, C), side_logits (B, P, 4, reg_max + 1), anchors (P, 4) xyxy pixels,
            strides (P,), level_sizes (L,).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, sides, _ = self.head(pyramid)
        sizes = [f.shape[-2:] for f in pyramid]
        return {
            "cls_logits": logits,
            "side_logits": sides.unflatten(-1, (4, -1)),
            "anchors": make_anchors(sizes, self.strides, list(self.base_anchors)),
            "strides": make_points(sizes, self.strides, images)[1],
            "level_sizes": make_level_sizes(sizes),
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Anchors near a box's centre that overlap it more than is usual among the nearest."""
        return assign_near_centers(outputs, targets, self.topk)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls`, `box` and `dfl`, each a scalar."""
        logits, anchors, strides = outputs["cls_logits"], outputs["anchors"], outputs["strides"][:, None]
        assigned = self.assign(outputs, targets)
        positive, gt_boxes, gt_labels = targets_of_points(assigned.matched_gt, targets)
        centers, boxes = _centers(anchors), self.boxes(outputs)
        quality = aligned_iou(boxes.detach(), gt_boxes) * positive
        wanted = one_hot(gt_labels, logits.shape[-1]) * quality[..., None]
        # Boxes are averaged by how sure the classes are of something there.
        weight = logits.detach().sigmoid().amax(-1) * positive

        positives = mean_over_processes(positive.float().sum())
        total = mean_over_processes(weight.sum())
        in_strides = boxes_to_distances(centers, gt_boxes) / strides
        dfl_loss = distribution_focal_loss(outputs["side_logits"].float(), in_strides).mean(-1)
        return {
            "cls": (quality_focal_loss(logits, wanted) * ~assigned.ignored[..., None]).sum() / positives,
            "box": self.box_weight * (giou_loss(boxes, gt_boxes) * weight).sum() / total,
            "dfl": self.dfl_weight * (dfl_loss * weight).sum() / total,
        }

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Clipped to the images."""
        boxes, scores = clip_boxes(self.boxes(outputs), image_sizes), outputs["cls_logits"].sigmoid()
        return Scored(boxes, scores, outputs["level_sizes"])

    def boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        """Expected sides to boxes (B, P, 4) xyxy pixels, in float32."""
        sides = expected(outputs["side_logits"].float(), self.bins)
        return distances_to_boxes(_centers(outputs["anchors"]), sides * outputs["strides"][:, None])


def _centers(anchors: Tensor) -> Tensor:
    return (anchors[:, :2] + anchors[:, 2:]) / 2
