"""FCOS and ATSS for oriented boxes: each point predicts a class, an oriented box and its centerness.

They differ only in label assignment (Tian et al., TPAMI 2020; Zhang et al., CVPR 2020), so they
are one detector with two assigners.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.rotated import rotated_atss_assign, rotated_fcos_assign
from boxwright.config.models import ATSSOBBConfig, FCOSOBBConfig
from boxwright.data.targets import Targets
from boxwright.geometry.torch_rotated import place_in_boxes
from boxwright.losses.classification import focal_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.fcos import RANGE, centerness_of
from boxwright.models.heads.dense import DenseHead
from boxwright.models.layers import Normalize
from boxwright.models.oriented import (
    BOX_WIDTH,
    HeadingBranch,
    decode_at_points,
    head_boxes,
    init_oriented,
    mean_by_share,
    oriented_losses,
    within,
)
from boxwright.models.points import assignment_in_rotated, one_hot, rotated_of_points
from boxwright.models.priors import make_level_sizes, make_points
from boxwright.models.pyramid import make_pyramid


class PointsOBB(Detector):
    """See the module's docstring.

    Args:
        backbone, neck: images to a pyramid of `strides`.
        head: logits, numbers of boxes and centerness.
        heading: None: front and back are one.
        strides: of the pyramid.
        config: which assigner, and the losses.
        selection: thresholds of `decode`.
    """

    oriented = True

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: DenseHead,
        heading: HeadingBranch | None,
        strides: tuple[int, ...],
        config: FCOSOBBConfig | ATSSOBBConfig,
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head, self.heading = backbone, neck, head, heading
        self.finds_headings = heading is not None
        self.strides, self.recipe, self.selection = strides, config, selection
        ends = [float(RANGE * stride) for stride in strides[:-1]]
        ranges = torch.tensor(list(zip([-1.0, *ends], [*ends, 1e8])))
        self.register_buffer("ranges", ranges, persistent=False)

    @classmethod
    def from_config(cls, config: FCOSOBBConfig | ATSSOBBConfig, num_classes: int) -> "PointsOBB":
        """Build the parts that a checked config describes."""
        backbone, neck, strides = make_pyramid(config, "output")
        channels, depth, norm = config.neck.channels, config.head_depth, config.head_norm
        head = DenseHead(channels, num_classes, depth, norm, box_width=BOX_WIDTH, quality="box")
        init_oriented(head.box)
        heading = HeadingBranch(channels, depth, norm) if config.heading else None
        return cls(backbone, neck, head, heading, strides, config, Selection(**config.selection.model_dump()))

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs.

        Returns:
            cls_logits (B, P, C), box_numbers (B, P, 6) as `decode_oriented` takes them,
            centerness_logits (B, P), points (P, 2), strides (P,), ranges (P, 2), level_sizes (L,); with a
            heading `headings` (B, P, 2).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, numbers, centerness = self.head(pyramid)
        sizes = [f.shape[-2:] for f in pyramid]
        points, strides = make_points(sizes, self.strides, images)
        outputs = {
            "cls_logits": logits,
            "box_numbers": numbers,
            "centerness_logits": centerness,
            "points": points,
            "strides": strides,
            "ranges": torch.cat([r.expand(h * w, 2) for r, (h, w) in zip(self.get_buffer("ranges"), sizes)]),
            "level_sizes": make_level_sizes(sizes),
        }
        return outputs if self.heading is None else outputs | {"headings": self.heading(pyramid)}

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Points near a box's centre: on the level of its size, or whose squares overlap it best."""
        points, strides = outputs["points"], outputs["strides"]
        boxes, mask = targets.rotated, targets.mask
        if isinstance(self.recipe, FCOSOBBConfig):
            radius = self.recipe.assigner.radius
            matched_gt = rotated_fcos_assign(points, strides, outputs["ranges"], boxes, mask, radius)
        else:
            sides, levels = strides * self.recipe.anchor_scale, outputs["level_sizes"].tolist()
            topk = self.recipe.assigner.topk
            matched_gt = rotated_atss_assign(points, sides, levels, boxes, mask, topk)
        return assignment_in_rotated(points, targets, matched_gt)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The weighted losses `cls`, `iou`, `gaussian`, `angle`, `centerness`, with a heading `heading`."""
        logits = outputs["cls_logits"]
        assigned = self.assign(outputs, targets)
        positive = assigned.matched_gt >= 0
        gt_boxes, gt_oriented, gt_labels = rotated_of_points(assigned.matched_gt, targets)
        weight = positive.float()
        place = place_in_boxes(outputs["points"], gt_boxes)
        half = gt_boxes[..., 2:4] / 2
        centerness = centerness_of(torch.cat([half + place, half - place], dim=-1)) * weight
        wanted = one_hot(gt_labels, logits.shape[-1]) * weight[..., None]
        positives = mean_over_processes(weight.sum())
        centerness_loss = F.binary_cross_entropy_with_logits(
            outputs["centerness_logits"], centerness, reduction="none"
        )
        cls_loss = (focal_loss(logits, wanted) * ~assigned.ignored[..., None]).sum() / positives
        boxes = self.boxes(outputs)
        losses = oriented_losses(boxes, outputs, gt_boxes, gt_oriented, centerness, self.recipe)
        return {
            "cls": self.recipe.loss_weights.cls * cls_loss,
            "centerness": (centerness_loss * weight).sum() / positives,
        } | mean_by_share(losses, centerness)

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image: thresholds by class score, ranks by class score times centerness."""
        boxes = head_boxes(self.boxes(outputs), outputs, self.recipe.long_edge)
        scores = outputs["cls_logits"].sigmoid() * within(boxes, image_sizes)
        centerness = outputs["centerness_logits"].sigmoid()
        return Scored(boxes, scores, outputs["level_sizes"], centerness)

    def boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        """Those of all points (B, P, 5), before a heading chooses among their spellings."""
        return decode_at_points(outputs, self.recipe.long_edge)
