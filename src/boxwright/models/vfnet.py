"""VarifocalNet: scores that know the IoU, and boxes looked at twice.

Zhang et al., VarifocalNet: An IoU-aware Dense Object Detector, CVPR 2021.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.config.models import VFNetConfig
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import aligned_iou, clip_boxes, distances_to_boxes
from boxwright.losses.box import giou_loss
from boxwright.losses.classification import varifocal_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.atss import assign_near_centers
from boxwright.models.deformable import DeformableConv
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.dense import flatten_level, init_head, init_prior, make_tower
from boxwright.models.layers import ConvNorm, Normalize, Scale
from boxwright.models.points import one_hot, targets_of_points
from boxwright.models.priors import make_anchors, make_base_anchors, make_level_sizes
from boxwright.models.pyramid import make_pyramid

UNIT = 8  # strides: what exp(s * x) of each level is multiplied with
# Of the star's nine points, row by row, which side each coordinate follows: 0 none, else 1 + side (left, top,
# right, bottom); left and top are negative.
STAR_Y, STAR_X = (2, 2, 2, 0, 0, 0, 4, 4, 4), (1, 0, 3, 1, 0, 3, 1, 0, 3)


class VFNetHead(nn.Module):
    """Class logits and two rounds of boxes.

    Args:
        channels: of the pyramid and the towers.
        num_classes: categories.
        depth: convolutions a tower.
        norm: of the towers.
        strides: of the levels.
        gradient: share of the star's gradient that reaches the first boxes.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        depth: int,
        norm: str,
        strides: tuple[int, ...],
        gradient: float,
    ):
        super().__init__()
        self.strides, self.gradient = strides, gradient
        self.cls_tower = make_tower(channels, depth, norm)
        self.box_tower = make_tower(channels, depth, norm)
        self.box_conv = ConvNorm(channels, channels, norm=norm)
        self.box = nn.Conv2d(channels, 4, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in strides)
        self.refine_star = DeformableConv(channels, channels, 3, padding=1, bias=False)
        self.refine = nn.Conv2d(channels, 4, 3, padding=1)
        self.refine_scales = nn.ModuleList(Scale() for _ in strides)
        self.cls_star = DeformableConv(channels, channels, 3, padding=1, bias=False)
        self.cls = nn.Conv2d(channels, num_classes, 3, padding=1)
        init_head(self.cls_tower, self.box_tower, self.box_conv, self.box, self.refine)
        for star in (self.refine_star, self.cls_star):
            nn.init.normal_(star.weight, std=0.01)
        init_prior(self.cls)

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, P, C), first and refined distances (B, P, 4) in pixels."""
        parts = [self._level(features, n) for n, features in enumerate(pyramid)]
        logits, first, refined = (
            torch.cat([flatten_level(m, m.shape[1]) for m in maps], 1) for maps in zip(*parts)
        )
        return logits, first, refined

    def _level(self, features: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        cls_features, box_features = self.cls_tower(features), self.box_tower(features)
        first = self.scales[n](self.box(self.box_conv(box_features))).float().exp() * (UNIT * self.strides[n])
        star = self._star(first, self.strides[n]).to(features.dtype)
        box_features = F.relu(self.refine_star(box_features, star))
        refined = self.refine_scales[n](self.refine(box_features)).float().exp() * first.detach()
        return self.cls(F.relu(self.cls_star(cls_features, star))), first, refined

    def _star(self, distances: Tensor, stride: int) -> Tensor:
        """(B, 18, H, W) offsets of a 3x3 kernel's points to the box's corners, side middles and centre.

        Section 3.3 (star-shaped box feature representation).
        """
        weakened = (1 - self.gradient) * distances.detach() + self.gradient * distances
        left, top, right, bottom = (weakened / stride).unbind(1)
        sides = (torch.zeros_like(left), -left, -top, right, bottom)
        offsets = []
        for point in range(9):
            # The kernel's own place is taken away.
            offsets += [sides[STAR_Y[point]] - (point // 3 - 1), sides[STAR_X[point]] - (point % 3 - 1)]
        return torch.stack(offsets, dim=1)


class VFNet(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps, `channels` and `strides` 8, 16, 32.
        neck: maps to a pyramid of `strides`.
        head: logits, first and refined distances.
        strides: of the pyramid.
        anchor_scale: side in strides of the anchors that the assigner compares with the boxes.
        topk: of the assigner.
        box_weight, refined_weight: of these losses.
        selection: thresholds of `decode`.
    """

    base_anchors: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        strides: tuple[int, ...],
        anchor_scale: float,
        topk: int,
        box_weight: float,
        refined_weight: float,
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides, self.topk, self.selection = strides, topk, selection
        self.box_weight, self.refined_weight = box_weight, refined_weight
        base = torch.stack([make_base_anchors(s, anchor_scale, [1.0], [1.0]) for s in strides])
        self.register_buffer("base_anchors", base, persistent=False)

    @classmethod
    def from_config(cls, config: VFNetConfig, num_classes: int) -> "VFNet":
        """Build the parts that a checked config describes."""
        backbone, neck, strides = make_pyramid(config, "output")
        head = VFNetHead(
            config.neck.channels,
            num_classes,
            config.head_depth,
            config.head_norm,
            strides,
            config.star_gradient,
        )
        return cls(
            backbone,
            neck,
            head,
            strides,
            config.anchor_scale,
            config.assigner.topk,
            config.box_weight,
            config.refined_weight,
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs.

        Returns:
            cls_logits (B, P, C), distances and first_distances (B, P, 4) pixels, anchors (P, 4) xyxy pixels,
            level_sizes (L,).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, first, refined = self.head(pyramid)
        sizes = [f.shape[-2:] for f in pyramid]
        return {
            "cls_logits": logits,
            "distances": refined,
            "first_distances": first,
            "anchors": make_anchors(sizes, self.strides, list(self.base_anchors)),
            "level_sizes": make_level_sizes(sizes),
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Anchors near a box's centre that overlap it more than is usual among the nearest."""
        return assign_near_centers(outputs, targets, self.topk)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls`, `box` and `refined`, each a scalar."""
        logits, anchors = outputs["cls_logits"].float(), outputs["anchors"]
        points = (anchors[:, :2] + anchors[:, 2:]) / 2
        assigned = self.assign(outputs, targets)
        positive, gt_boxes, gt_labels = targets_of_points(assigned.matched_gt, targets)
        losses, quality = {}, torch.zeros_like(positive, dtype=torch.float32)
        for name, key, weight in (
            ("box", "first_distances", self.box_weight),
            ("refined", "distances", self.refined_weight),
        ):
            boxes = distances_to_boxes(points, outputs[key])
            # A box counts by how good it is already, section 3.5.
            quality = aligned_iou(boxes.detach(), gt_boxes).clamp(min=1e-6) * positive
            total = mean_over_processes(quality.sum())
            losses[name] = weight * (giou_loss(boxes, gt_boxes) * quality).sum() / total
        wanted = one_hot(gt_labels, logits.shape[-1]) * quality[..., None]
        positives = mean_over_processes(positive.float().sum())
        cls_loss = varifocal_loss(logits, wanted) * ~assigned.ignored[..., None]
        return {"cls": cls_loss.sum() / positives, **losses}

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Clipped to the images."""
        boxes, scores = clip_boxes(self.boxes(outputs), image_sizes), outputs["cls_logits"].sigmoid()
        return Scored(boxes, scores, outputs["level_sizes"])

    def boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        """The refined ones of all points (B, P, 4) xyxy pixels."""
        anchors = outputs["anchors"]
        return distances_to_boxes((anchors[:, :2] + anchors[:, 2:]) / 2, outputs["distances"])
