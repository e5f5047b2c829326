"""The compact detector: the default, made for small budgets.

A small residual net, a narrow FPN on strides 8, 16 and 32, of 4 too for small objects, and a head that
classifies and localises in separate towers. Training assigns points by task alignment (TOOD, ICCV 2021); the
class score learns the alignment, so that it tells how good the box is; sides are distributions (GFL, NeurIPS
2020).
"""

import torch
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.task_aligned import REACH, TaskAligned, are_candidates, task_aligned_assign
from boxwright.config.models import CompactConfig
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import clip_boxes, distances_to_boxes
from boxwright.losses.box import distribution_focal_loss, giou_loss
from boxwright.losses.classification import soft_binary_cross_entropy
from boxwright.losses.distribution import expected
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.backbones.residual import ResidualNet, scale_channels
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.dense import flatten_level, init_head, init_prior, make_tower
from boxwright.models.layers import Normalize
from boxwright.models.necks.fpn import FPN
from boxwright.models.points import (
    assigned_first,
    assignment_of_points,
    at_points,
    one_hot,
    rows_of,
    targets_of_points,
)
from boxwright.models.priors import make_points


class CompactHead(nn.Module):
    """Class logits and a box's numbers of every point.

    Args:
        channels: of the pyramid and the towers.
        num_classes: categories.
        depth: convolutions a tower.
        width: numbers a box.
    """

    def __init__(self, channels: int, num_classes: int, depth: int, width: int):
        super().__init__()
        self.cls_tower = make_tower(channels, depth, "batch", nn.SiLU)
        self.box_tower = make_tower(channels, depth, "batch", nn.SiLU)
        self.cls = nn.Conv2d(channels, num_classes, 1)
        self.box = nn.Conv2d(channels, width, 1)
        init_prior(self.cls)
        init_head(self.box)

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, P, C) and numbers (B, P, width)."""
        logits = [flatten_level(self.cls(self.cls_tower(f)), self.cls.out_channels) for f in pyramid]
        sides = [flatten_level(self.box(self.box_tower(f)), self.box.out_channels) for f in pyramid]
        return torch.cat(logits, dim=1), torch.cat(sides, dim=1)


class Compact(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps, `channels` and `strides`.
        neck: maps to a pyramid of the same strides.
        head: logits and side distributions.
        reg_max: greatest distance of a side in strides; its distribution has one bin more.
        topk, alpha, beta: of the task-aligned assigner.
        loss_weights: of the losses `cls`, `box` and `dfl`.
        selection: thresholds of `decode`.
    """

    bins: Tensor
    follows_predictions = True

    def __init__(
        self,
        backbone: ResidualNet,
        neck: nn.Module,
        head: nn.Module,
        reg_max: int,
        topk: int,
        alpha: float,
        beta: float,
        loss_weights: dict[str, float],
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides = backbone.strides
        self.topk, self.alpha, self.beta = topk, alpha, beta
        self.loss_weights = loss_weights
        self.selection = selection
        self.register_buffer("bins", torch.arange(reg_max + 1.0), persistent=False)

    @classmethod
    def from_config(cls, config: CompactConfig, num_classes: int) -> "Compact":
        """Build the parts that a checked config describes."""
        backbone = ResidualNet(config.width, finest=config.finest)
        channels = scale_channels(config.channels, config.width)
        return cls(
            backbone,
            FPN(backbone.channels, channels, norm="batch", activation=nn.SiLU),
            CompactHead(channels, num_classes, config.head_depth, 4 * (config.reg_max + 1)),
            config.reg_max,
            config.assigner.topk,
            config.assigner.alpha,
            config.assigner.beta,
            config.loss_weights.model_dump(),
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255, H and W multiples of 32, to raw outputs.

        Returns:
            cls_logits (B, P, C), side_logits (B, P, 4, reg_max + 1), points (P, 2), strides (P,).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, sides = self.head(pyramid)
        points, strides = make_points([f.shape[-2:] for f in pyramid], self.strides, images)
        return {
            "cls_logits": logits,
            "side_logits": sides.unflatten(-1, (4, -1)),
            "points": points,
            "strides": strides,
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """The points whose scores and boxes fit an object best."""
        matched_gt = self._align(outputs, targets, self.boxes(outputs)).matched_gt
        return assignment_of_points(outputs["points"], targets, matched_gt)

    def candidates(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        """(B, G) points inside each object, or near its centre."""
        return are_candidates(outputs["points"], targets.boxes, REACH * outputs["strides"][0]).sum(2)

    def _align(self, outputs: dict[str, Tensor], targets: Targets, boxes: Tensor) -> TaskAligned:
        return task_aligned_assign(
            outputs["cls_logits"].detach().sigmoid(),
            boxes.detach(),
            outputs["points"],
            targets.boxes,
            targets.labels,
            targets.mask,
            self.topk,
            self.alpha,
            self.beta,
            REACH * outputs["strides"][0],
        )

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The weighted losses `cls`, `box` and `dfl`, each a scalar."""
        logits, boxes = outputs["cls_logits"], self.boxes(outputs)
        matched_gt, quality = self._align(outputs, targets, boxes)
        _, _, gt_labels = targets_of_points(matched_gt, targets)
        wanted = one_hot(gt_labels, logits.shape[-1]) * quality[..., None]
        ignored = assignment_of_points(outputs["points"], targets, matched_gt).ignored
        cls_loss = soft_binary_cross_entropy(logits, wanted) * ~ignored[..., None]
        total = mean_over_processes(quality.sum())

        some, index = assigned_first(quality, self.topk * targets.boxes.shape[1])
        _, gt_boxes, _ = targets_of_points(rows_of(matched_gt, index), targets)
        points, strides = outputs["points"][index], outputs["strides"][index]
        distances = torch.cat([points - gt_boxes[..., :2], gt_boxes[..., 2:] - points], dim=-1)
        side_logits = rows_of(outputs["side_logits"], index)
        dfl_loss = distribution_focal_loss(side_logits, distances / strides[..., None]).mean(-1) * some
        box_loss = giou_loss(rows_of(boxes, index), gt_boxes) * some
        parts = {"cls": cls_loss} | {
            name: at_points(loss, index, quality) for name, loss in (("box", box_loss), ("dfl", dfl_loss))
        }
        return {name: self.loss_weights[name] * part.sum() / total for name, part in parts.items()}

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image; `image_sizes` (B, 2) width and height of the content, to clip to."""

        def boxes_of(image: Tensor, point: Tensor, label: Tensor) -> Tensor:
            priors = {name: outputs[name][point] for name in ("points", "strides")}
            boxes = self.boxes({"side_logits": outputs["side_logits"][image, point]} | priors)
            return clip_boxes(boxes[:, None], image_sizes[image])[:, 0]

        return Scored(boxes_of, outputs["cls_logits"].sigmoid())

    def boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        """Expected sides to boxes (B, P, 4) xyxy pixels, in float32."""
        sides = expected(outputs["side_logits"].float(), self.bins)  # (B, P, 4)
        return distances_to_boxes(outputs["points"], sides * outputs["strides"][..., None])
