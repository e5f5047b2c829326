"""YOLOX: one point a cell, decoupled heads, and labels that go to the cheapest points.

Ge et al., YOLOX: Exceeding YOLO Series in 2021.
"""

from typing import Any

import torch
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.ota import ota_assign
from boxwright.assign.simota import regions, simota_assign
from boxwright.config.models import YOLOXConfig
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import aligned_iou, clip_boxes
from boxwright.losses.box import squared_iou_loss
from boxwright.losses.classification import soft_binary_cross_entropy
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.backbones.csp import CSPDarknet, make_conv
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.dense import flatten_level, init_prior
from boxwright.models.layers import Normalize
from boxwright.models.necks.csp import CSPPAFPN
from boxwright.models.points import assignment_of_points, one_hot, targets_of_points
from boxwright.models.priors import make_level_sizes, make_points

STRIDES = (8, 16, 32)
BASE_CHANNELS = 256  # of neck and head at width 1
HEAD_DEPTH = 2
MAX_LOG_SCALE = 10.0  # keeps a side finite


class YOLOXHead(nn.Module):
    """Towers and predictions of their own on each level.

    Args:
        channels: of the pyramid and the towers.
        num_classes: categories.
        levels: of the pyramid.
        depthwise: the towers' convolutions are of each channel by itself.
    """

    def __init__(self, channels: int, num_classes: int, levels: int, depthwise: bool = False):
        super().__init__()
        self.cls_towers = nn.ModuleList(_make_tower(channels, depthwise) for _ in range(levels))
        self.box_towers = nn.ModuleList(_make_tower(channels, depthwise) for _ in range(levels))
        self.cls = nn.ModuleList(nn.Conv2d(channels, num_classes, 1) for _ in range(levels))
        self.box = nn.ModuleList(nn.Conv2d(channels, 4, 1) for _ in range(levels))
        self.objectness = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in range(levels))
        for layer in (*self.cls, *self.objectness):
            assert isinstance(layer, nn.Conv2d)
            init_prior(layer)

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, P, C), boxes (B, P, 4), objectness logits (B, P); levels side by side."""
        logits, boxes, objectness = [], [], []
        for n, features in enumerate(pyramid):
            box_features = self.box_towers[n](features)
            logits.append(self.cls[n](self.cls_towers[n](features)))
            boxes.append(self.box[n](box_features))
            objectness.append(self.objectness[n](box_features))
        flat = [torch.cat([flatten_level(m, m.shape[1]) for m in maps], 1) for maps in (logits, boxes)]
        return flat[0], flat[1], torch.cat([m.flatten(1) for m in objectness], 1)


class YOLOX(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps and `channels` of strides 8, 16 and 32.
        neck: maps to a pyramid of the same strides.
        head: logits, boxes and objectness.
        assigner: options of `simota_assign` or `ota_assign`.
        sinkhorn: labels by `ota_assign`.
        box_weight: of the box loss.
        clip: boxes are cut at the image's border; False: left as they are, as in the original.
        selection: thresholds of `decode`.
    """

    follows_predictions = True

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        assigner: dict[str, Any],
        sinkhorn: bool,
        box_weight: float,
        clip: bool,
        selection: Selection,
    ):
        super().__init__()
        # The original's weights want plain 0..255.
        self.normalize = Normalize((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.backbone, self.neck, self.head = backbone, neck, head
        self.assigner, self.sinkhorn = assigner, sinkhorn
        self.box_weight, self.clip, self.selection = box_weight, clip, selection

    @classmethod
    def from_config(cls, config: YOLOXConfig, num_classes: int) -> "YOLOX":
        """Build the parts that a checked config describes."""
        backbone = CSPDarknet(config.width, config.depth, config.depthwise)
        channels = int(BASE_CHANNELS * config.width)
        assigner = config.assigner.model_dump(exclude={"name"})
        return cls(
            backbone,
            CSPPAFPN(backbone.channels, channels, max(round(3 * config.depth), 1), config.depthwise),
            YOLOXHead(channels, num_classes, len(STRIDES), config.depthwise),
            assigner,
            config.assigner.name == "ota",
            config.box_weight,
            config.clip,
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255, H and W multiples of 32, to raw outputs.

        Returns:
            cls_logits (B, P, C), box_deltas (B, P, 4): centre from the cell's corner and log of the size in
            strides, objectness_logits (B, P), points (P, 2), strides (P,), level_sizes (L,).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, deltas, objectness = self.head(pyramid)
        sizes = [f.shape[-2:] for f in pyramid]
        points, strides = make_points(sizes, STRIDES, images)
        return {
            "cls_logits": logits,
            "box_deltas": deltas,
            "objectness_logits": objectness,
            "points": points,
            "strides": strides,
            "level_sizes": make_level_sizes(sizes),
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """The points that cost least, by what they predict."""
        scores = outputs["cls_logits"].detach().float().sigmoid()
        scores = scores * outputs["objectness_logits"].detach().float().sigmoid()[..., None]
        points, boxes = outputs["points"], self._boxes(outputs).detach()
        assign = ota_assign if self.sinkhorn else simota_assign
        matched_gt = assign(
            scores,
            boxes,
            points,
            outputs["strides"],
            targets.boxes,
            targets.labels,
            targets.mask,
            **self.assigner,
        )
        return assignment_of_points(points, targets, matched_gt)

    def candidates(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        """(B, G) points inside each object or near its centre."""
        radius = self.assigner["radius"]
        in_box, near = regions(outputs["points"], outputs["strides"], targets.boxes, radius)
        return (in_box & near if self.sinkhorn else in_box | near).sum(2)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls`, `box` and `objectness`, each a scalar."""
        logits, objectness = outputs["cls_logits"].float(), outputs["objectness_logits"].float()
        boxes, assigned = self._boxes(outputs), self.assign(outputs, targets)
        positive, gt_boxes, gt_labels = targets_of_points(assigned.matched_gt, targets)
        weight = positive.float()
        quality = aligned_iou(boxes.detach(), gt_boxes) * weight
        wanted = one_hot(gt_labels, logits.shape[-1]) * quality[..., None]
        cls_loss = soft_binary_cross_entropy(logits, wanted).sum(-1) * weight
        objectness_loss = soft_binary_cross_entropy(objectness, weight) * ~assigned.ignored
        positives = mean_over_processes(weight.sum())
        return {
            "cls": cls_loss.sum() / positives,
            "box": self.box_weight * (squared_iou_loss(boxes, gt_boxes) * weight).sum() / positives,
            "objectness": objectness_loss.sum() / positives,
        }

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image: a point has one class, and is scored by class times objectness."""
        scores = outputs["cls_logits"].float().sigmoid()
        best = one_hot(scores.argmax(-1), scores.shape[-1])
        ranks = scores * best * outputs["objectness_logits"].float().sigmoid()[..., None]
        boxes = self._boxes(outputs)
        if self.clip:
            boxes = clip_boxes(boxes, image_sizes)
        return Scored(boxes, ranks, outputs["level_sizes"])

    def _boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        """(B, P, 4) xyxy pixels, in float32."""
        deltas, strides = outputs["box_deltas"].float(), outputs["strides"][:, None]
        centers = (deltas[..., :2] - 0.5) * strides + outputs["points"]
        half = deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp() * strides / 2
        return torch.cat([centers - half, centers + half], dim=-1)


def _make_tower(channels: int, depthwise: bool) -> nn.Sequential:
    return nn.Sequential(*(make_conv(channels, channels, depthwise=depthwise) for _ in range(HEAD_DEPTH)))
