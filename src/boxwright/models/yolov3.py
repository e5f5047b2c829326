"""YOLOv3: three anchors a cell on three levels, with an objectness beside the classes.

Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018.
"""

import torch
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.grid import grid_assign
from boxwright.config.models import YOLOv3Config
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import clip_boxes
from boxwright.losses.classification import soft_binary_cross_entropy
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.backbones.darknet import Darknet53, LeakyReLU
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.dense import flatten_level, init_prior
from boxwright.models.layers import ConvNorm, Normalize
from boxwright.models.necks.yolo import YOLONeck
from boxwright.models.points import one_hot, targets_of_points
from boxwright.models.priors import make_anchors, make_level_sizes

STRIDES = (32, 16, 8)  # coarsest first, as in the paper
CENTER_MARGIN = 1e-6  # keeps a centre's place within its cell from 0 and 1
MAX_LOG_SCALE = 10.0  # keeps a side finite


class YOLOv3Head(nn.Module):
    """Box, objectness and classes of every anchor.

    Args:
        channels: of each level.
        num_classes: categories.
        priors: anchors a cell.
    """

    def __init__(self, channels: list[int], num_classes: int, priors: int):
        super().__init__()
        self.width = 5 + num_classes
        self.bridge = nn.ModuleList(ConvNorm(c, 2 * c, activation=LeakyReLU) for c in channels)
        self.predict = nn.ModuleList(nn.Conv2d(2 * c, priors * self.width, 1) for c in channels)
        for layer in self.predict:
            assert isinstance(layer, nn.Conv2d)
            init_prior(layer)
            with torch.no_grad():  # boxes start as their anchors
                layer.bias.view(priors, self.width)[:, :4] = 0.0  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """(B, A, 4 + 1 + C): x, y, w, h, objectness, classes."""
        maps = (p(b(f)) for p, b, f in zip(self.predict, self.bridge, pyramid))
        return torch.cat([flatten_level(m, self.width) for m in maps], dim=1)


class YOLOv3(Detector):
    """See the module's docstring.

    Losses are sums over an image, averaged over the images of a batch.

    Args:
        backbone: gives maps and `channels` of strides 8, 16 and 32.
        neck: maps to a pyramid of strides 32, 16 and 8.
        head: predictions of every anchor.
        base_anchors: (K, 4) of each level, coarsest first, around the middle of its cell.
        positive_iou, negative_iou: of the assigner.
        box_weight: of the losses of centre and size.
        least_objectness: below it an anchor is no candidate.
        clip: boxes are cut at the image's border; False: left as they are, as in MMDetection.
        selection: thresholds of `decode`.
    """

    base_anchors: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        base_anchors: Tensor,
        positive_iou: float,
        negative_iou: float,
        box_weight: float,
        least_objectness: float,
        clip: bool,
        selection: Selection,
    ):
        super().__init__()
        # Images in 0..1, as the original's weights want them.
        self.normalize = Normalize((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
        self.backbone, self.neck, self.head = backbone, neck, head
        self.register_buffer("base_anchors", base_anchors, persistent=False)
        self.thresholds = {"positive_iou": positive_iou, "negative_iou": negative_iou}
        self.box_weight, self.least_objectness, self.clip = box_weight, least_objectness, clip
        self.selection = selection

    @classmethod
    def from_config(cls, config: YOLOv3Config, num_classes: int) -> "YOLOv3":
        """Build the parts that a checked config describes."""
        backbone = Darknet53(config.channels)
        neck = YOLONeck(backbone.channels)
        half = torch.tensor(config.anchors)[list(reversed(range(len(STRIDES))))] / 2  # (L, K, 2)
        return cls(
            backbone,
            neck,
            YOLOv3Head(neck.channels, num_classes, half.shape[1]),
            torch.cat([-half, half], dim=-1),
            config.assigner.positive_iou,
            config.assigner.negative_iou,
            config.box_weight,
            config.least_objectness,
            config.clip,
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs, coarsest level first.

        Returns:
            cls_logits (B, A, C), objectness_logits (B, A), box_deltas (B, A, 4), anchors (A, 4) xyxy pixels,
            strides (A,), level_sizes (L,).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        found = self.head(pyramid)
        deltas, objectness, logits = found[..., :4], found[..., 4:5], found[..., 5:]
        sizes = [f.shape[-2:] for f in pyramid]
        count = self.base_anchors.shape[1]
        strides = [deltas.new_full((h * w * count,), float(s)) for s, (h, w) in zip(STRIDES, sizes)]
        return {
            "cls_logits": logits,
            "objectness_logits": objectness[..., 0],
            "box_deltas": deltas,
            "anchors": make_anchors(sizes, STRIDES, list(self.base_anchors), offset=0.5),
            "strides": torch.cat(strides),
            "level_sizes": make_level_sizes(sizes, count),
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """The best anchor of the cells that a box's centre lies in."""
        return grid_assign(
            outputs["anchors"],
            outputs["strides"].float(),
            targets.boxes,
            targets.mask,
            targets.ignore if targets.any_ignored else None,
            **self.thresholds,
        )

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls`, `objectness`, `xy` and `wh`, each a scalar."""
        anchors, strides = outputs["anchors"], outputs["strides"].float()
        assigned = self.assign(outputs, targets)
        positive, gt_boxes, gt_labels = targets_of_points(assigned.matched_gt, targets)
        weight = positive.float()
        center, log_size = _encode(anchors, strides, gt_boxes)
        deltas, logits = outputs["box_deltas"].float(), outputs["cls_logits"].float()
        cls_loss = soft_binary_cross_entropy(logits, one_hot(gt_labels, logits.shape[-1]).float()).sum(-1)
        xy_loss = soft_binary_cross_entropy(deltas[..., :2], center).sum(-1)
        wh_loss = (deltas[..., 2:] - log_size).square().sum(-1)
        objectness = soft_binary_cross_entropy(outputs["objectness_logits"].float(), weight)
        images = mean_over_processes(weight.new_tensor(float(len(weight))))
        # Background anchors have sizes relative to some box, infinite ones maybe: select, don't multiply.
        return {
            "cls": (cls_loss * weight).sum() / images,
            "objectness": (objectness * ~assigned.ignored).sum() / images,
            "xy": self.box_weight * (xy_loss * weight).sum() / images,
            "wh": self.box_weight * torch.where(positive, wh_loss, 0.0).sum() / images,
        }

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image: thresholds by class, ranks by class times objectness."""
        deltas = outputs["box_deltas"].float()
        anchors = outputs["anchors"]
        middle, half = (anchors[:, :2] + anchors[:, 2:]) / 2, (anchors[:, 2:] - anchors[:, :2]) / 2
        center = middle + (deltas[..., :2].sigmoid() - 0.5) * outputs["strides"][:, None]
        half = half * deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp()
        boxes = torch.cat([center - half, center + half], dim=-1)
        objectness = outputs["objectness_logits"].float().sigmoid()
        likely = (objectness >= self.least_objectness)[..., None]
        scores = outputs["cls_logits"].float().sigmoid() * likely
        if self.clip:
            boxes = clip_boxes(boxes, image_sizes)
        return Scored(boxes, scores, outputs["level_sizes"], objectness)


def _encode(anchors: Tensor, strides: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the boxes' centres within the anchors' cells, and logs of relative sizes; (B, A, 2) each."""
    gap = (boxes[..., :2] + boxes[..., 2:] - anchors[:, :2] - anchors[:, 2:]) / 2
    center = (gap / strides[:, None] + 0.5).clamp(CENTER_MARGIN, 1 - CENTER_MARGIN)
    size = boxes[..., 2:] - boxes[..., :2]
    return center, (size / (anchors[:, 2:] - anchors[:, :2])).clamp(min=CENTER_MARGIN).log()
