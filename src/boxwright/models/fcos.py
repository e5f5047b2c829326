"""FCOS: every point near a box's centre predicts the distances to its sides, and how central it is.

Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, ICCV 2019, with the improvements of its
journal version (TPAMI 2020): centre sampling, GIoU loss, centerness beside the box tower.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.fcos import fcos_assign
from boxwright.config.models import FCOSConfig
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import boxes_to_distances, clip_boxes, distances_to_boxes
from boxwright.losses.box import giou_loss, log_iou_loss
from boxwright.losses.classification import focal_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.dense import DenseHead
from boxwright.models.layers import Normalize
from boxwright.models.points import assignment_of_points, one_hot, targets_of_points
from boxwright.models.priors import make_level_sizes, make_points
from boxwright.models.pyramid import make_pyramid

RANGE = 8  # strides: the farthest side that a level is assigned, section 3.2


class FCOS(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps, `channels` and `strides` 8, 16, 32.
        neck: maps to a pyramid of `strides`.
        head: logits, raw sides, centerness.
        strides: of the pyramid.
        radius: of centre sampling in strides; 0: the whole box.
        relu: sides are max(x, 0) in place of exp(s * x), as torchvision has it.
        in_strides: sides are in strides; False: in pixels, as in the paper.
        point_offset: of the points from their cells' corners, in cells.
        log_iou: -ln(IoU) as the box loss, as in the paper, in place of GIoU.
        plain: boxes are averaged plainly, not by centerness.
        product: detections are ranked by class score times centerness, as in the paper, not by its root, and
            pass the threshold by the class score alone.
        selection: thresholds of `decode`.
    """

    ranges: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        strides: tuple[int, ...],
        radius: float,
        relu: bool,
        in_strides: bool,
        point_offset: float,
        log_iou: bool,
        plain: bool,
        product: bool,
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides = strides
        self.radius, self.relu, self.in_strides, self.point_offset = radius, relu, in_strides, point_offset
        self.plain, self.product = plain, product
        self.box_loss = log_iou_loss if log_iou else giou_loss
        self.selection = selection
        ends = [float(RANGE * stride) for stride in strides[:-1]]
        ranges = torch.tensor(list(zip([-1.0, *ends], [*ends, 1e8])))
        self.register_buffer("ranges", ranges, persistent=False)

    @classmethod
    def from_config(cls, config: FCOSConfig, num_classes: int) -> "FCOS":
        """Build the parts that a checked config describes."""
        backbone, neck, strides = make_pyramid(config, "output")
        head = DenseHead(
            config.neck.channels,
            num_classes,
            config.head_depth,
            config.head_norm,
            quality="cls" if config.centerness_on_cls else "box",
            levels=len(strides) if config.distances == "exp" else 0,
            tower_bias=config.tower_bias,
        )
        return cls(
            backbone,
            neck,
            head,
            strides,
            config.assigner.radius,
            config.distances == "relu",
            config.distances_in_strides,
            config.point_offset,
            config.box_loss == "log_iou",
            config.box_average == "plain",
            config.rank == "product",
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs.

        Returns:
            cls_logits (B, P, C), distances (B, P, 4) pixels, centerness_logits (B, P), points (P, 2),
            strides (P,), ranges (P, 2), level_sizes (L,).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, sides, centerness = self.head(pyramid)
        sizes = [f.shape[-2:] for f in pyramid]
        points, strides = make_points(sizes, self.strides, images, self.point_offset)
        sides = sides.float().relu() if self.relu else sides.float().exp()
        ranges = torch.cat([r.expand(h * w, 2) for r, (h, w) in zip(self.ranges, sizes)])
        return {
            "cls_logits": logits,
            "distances": sides * (strides[:, None] if self.in_strides else 1),
            "centerness_logits": centerness,
            "points": points,
            "strides": strides,
            "ranges": ranges,
            "level_sizes": make_level_sizes(sizes),
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Points near a box's centre, on the level of its size."""
        points, strides, ranges = outputs["points"], outputs["strides"], outputs["ranges"]
        matched_gt = fcos_assign(points, strides, ranges, targets.boxes, targets.mask, self.radius)
        return assignment_of_points(points, targets, matched_gt)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls`, `box` and `centerness`, each a scalar."""
        logits, points = outputs["cls_logits"], outputs["points"]
        assigned = self.assign(outputs, targets)
        positive, gt_boxes, gt_labels = targets_of_points(assigned.matched_gt, targets)
        weight = positive.float()
        wanted = one_hot(gt_labels, logits.shape[-1]) * weight[..., None]
        centerness = centerness_of(boxes_to_distances(points, gt_boxes)) * weight

        boxes = self.boxes(outputs)
        positives = mean_over_processes(weight.sum())
        # Boxes are averaged by centerness, section 3.2.2 of the journal version.
        share = weight if self.plain else centerness
        shares = positives if self.plain else mean_over_processes(centerness.sum(), least=1e-6)
        centerness_loss = F.binary_cross_entropy_with_logits(
            outputs["centerness_logits"], centerness, reduction="none"
        )
        return {
            "cls": (focal_loss(logits, wanted) * ~assigned.ignored[..., None]).sum() / positives,
            "box": (self.box_loss(boxes, gt_boxes) * share).sum() / shares,
            "centerness": (centerness_loss * weight).sum() / positives,
        }

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image, scored by class and centerness."""
        boxes = clip_boxes(self.boxes(outputs), image_sizes)
        scores, centerness = outputs["cls_logits"].sigmoid(), outputs["centerness_logits"].sigmoid()
        if self.product:
            return Scored(boxes, scores, outputs["level_sizes"], centerness)
        ranks = (scores * centerness[..., None]).sqrt()
        return Scored(boxes, ranks, outputs["level_sizes"])

    def boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        """Those of all points (B, P, 4) xyxy pixels."""
        return distances_to_boxes(outputs["points"], outputs["distances"])


def centerness_of(distances: Tensor) -> Tensor:
    """Centerness (...) of points with these distances to their box's sides (..., 4). FCOS, equation 3."""
    horizontal, vertical = distances[..., 0::2], distances[..., 1::2]
    balance = (horizontal.amin(-1) / horizontal.amax(-1).clamp(min=1e-6)) * (
        vertical.amin(-1) / vertical.amax(-1).clamp(min=1e-6)
    )
    return balance.clamp(min=0).sqrt()
