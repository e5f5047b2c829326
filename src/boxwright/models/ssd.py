"""SSD: boxes of every shape from maps of every size, without a pyramid's top-down path.

Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.max_iou import max_iou_assign
from boxwright.assign.samplers import hard_negatives
from boxwright.config.models import SSDConfig
from boxwright.data.targets import Targets
from boxwright.errors import ConfigError
from boxwright.geometry.torch_boxes import clip_boxes
from boxwright.losses.box import smooth_l1_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.backbones.vgg import VGG16
from boxwright.models.box_coder import decode_deltas, encode_deltas
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.dense import flatten_level
from boxwright.models.layers import Normalize
from boxwright.models.necks.ssd import SSDNeck
from boxwright.models.points import targets_of_points
from boxwright.models.priors import make_anchors

# By input size: further maps (channels, stride, padding, kernel), strides, aspect ratios beside 1, and the
# first map's least and greatest side in hundredths of the input (those of COCO).
LAYOUTS = {
    300: (
        [(512, 2, 1, 3), (256, 2, 1, 3), (256, 1, 0, 3), (256, 1, 0, 3)],
        (8, 16, 32, 64, 100, 300),
        ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        (7, 15),
    ),
    512: (
        [(512, 2, 1, 3), (256, 2, 1, 3), (256, 2, 1, 3), (256, 2, 1, 3), (256, 1, 1, 4)],
        (8, 16, 32, 64, 128, 256, 512),
        ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        (4, 10),
    ),
}
GREATEST = 90  # hundredths of the input: where the sides of the last map but one end
DELTA_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)


class SSDHead(nn.Module):
    """Class logits, background last, and box deltas of every anchor; one convolution each a map.

    Args:
        channels: of each map.
        counts: anchors a location of each map.
        num_classes: categories.
    """

    def __init__(self, channels: list[int], counts: list[int], num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.cls = nn.ModuleList(
            nn.Conv2d(c, k * (num_classes + 1), 3, padding=1) for c, k in zip(channels, counts)
        )
        self.box = nn.ModuleList(nn.Conv2d(c, k * 4, 3, padding=1) for c, k in zip(channels, counts))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, A, C + 1) and deltas (B, A, 4)."""
        logits = [flatten_level(c(f), self.num_classes + 1) for c, f in zip(self.cls, pyramid)]
        return torch.cat(logits, 1), torch.cat([flatten_level(b(f), 4) for b, f in zip(self.box, pyramid)], 1)


class SSD(Detector):
    """See the module's docstring.

    Args:
        normalize: 0..255 to what the backbone wants.
        backbone: maps of strides 8 and 16.
        neck: these maps to all of them.
        head: logits and deltas.
        strides: of the maps.
        base_anchors: (K, 4) of each map, around the middle of its cell.
        negatives: for each positive.
        selection: thresholds of `decode`.
        input_size: least side of the images.
    """

    stride = 1  # its maps halve what they get, odd or even
    deviations: Tensor

    def __init__(
        self,
        normalize: nn.Module,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        strides: tuple[float, ...],
        base_anchors: list[Tensor],
        negatives: float,
        selection: Selection,
        input_size: int,
    ):
        super().__init__()
        self.normalize = normalize
        self.backbone, self.neck, self.head = backbone, neck, head
        self.anchor_strides, self.negatives, self.selection = strides, negatives, selection
        self.least_side = input_size
        for n, base in enumerate(base_anchors):
            self.register_buffer(f"base_anchors_{n}", base, persistent=False)
        self.register_buffer("deviations", torch.tensor(DELTA_DEVIATIONS), persistent=False)

    @classmethod
    def from_config(cls, config: SSDConfig, num_classes: int) -> "SSD":
        """Build the parts that a checked config describes."""
        extra, strides, ratios, first = LAYOUTS[config.input_size]
        base_anchors = make_ssd_anchors(config.input_size, strides, ratios, first)
        if config.clip_anchors:
            half = config.input_size / 2
            base_anchors = [base.clamp(-half, half) for base in base_anchors]
        backbone = VGG16(config.width)
        extra = [(int(channels * config.width), *others) for channels, *others in extra]
        neck = SSDNeck(backbone.channels, extra)
        head = SSDHead(neck.channels, [len(b) for b in base_anchors], num_classes)
        selection = Selection(**config.selection.model_dump())
        # The weights of VGG that SSD starts from know no deviations.
        normalize = Normalize(config.mean, (1.0, 1.0, 1.0))
        return cls(
            normalize,
            backbone,
            neck,
            head,
            strides,
            base_anchors,
            config.negatives,
            selection,
            config.input_size,
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs.

        Returns:
            cls_logits (B, A, C + 1), background last, box_deltas (B, A, 4), anchors (A, 4) xyxy pixels,
            level_sizes (L,).

        Raises:
            ConfigError: the images are smaller than the model is made for.
        """
        if min(images.shape[-2:]) < self.least_side:
            height, width = images.shape[-2:]
            raise ConfigError(
                f"images of {width} x {height} px; SSD{self.least_side} needs that many a side."
            )
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, deltas = self.head(pyramid)
        sizes = [f.shape[-2:] for f in pyramid]
        bases = [self.get_buffer(f"base_anchors_{n}") for n in range(len(sizes))]
        counts = [h * w * len(base) for (h, w), base in zip(sizes, bases)]
        return {
            "cls_logits": logits,
            "box_deltas": deltas,
            "anchors": make_anchors(sizes, self.anchor_strides, bases, offset=0.5),
            "level_sizes": torch.tensor(counts),
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Anchors that overlap a box by half, and the best of each."""
        return assign_by_half(outputs, targets)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls` and `box`, each a scalar."""
        logits, anchors = outputs["cls_logits"].float(), outputs["anchors"]
        assigned = self.assign(outputs, targets)
        positive, gt_boxes, gt_labels = targets_of_points(assigned.matched_gt, targets)
        wanted = torch.where(positive, gt_labels, logits.shape[-1] - 1)
        cls_loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
        hard = hard_negatives(cls_loss, positive, ~positive & ~assigned.ignored, self.negatives)
        box_targets = encode_deltas(anchors, gt_boxes) / self.deviations
        box_loss = smooth_l1_loss(outputs["box_deltas"].float(), box_targets, beta=1.0)
        positives = mean_over_processes(positive.float().sum())
        return {
            "cls": (cls_loss * (positive | hard)).sum() / positives,
            "box": torch.where(positive, box_loss, 0.0).sum() / positives,
        }

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Clipped to the images."""
        boxes = decode_deltas(outputs["anchors"], outputs["box_deltas"].float() * self.deviations)
        scores = outputs["cls_logits"].float().softmax(-1)[..., :-1]
        return Scored(clip_boxes(boxes, image_sizes), scores, outputs["level_sizes"])


def assign_by_half(outputs: dict[str, Tensor], targets: Targets) -> Assignment:
    """Max-IoU with one threshold of a half, and each box's best anchor."""
    ignore = targets.ignore if targets.any_ignored else None
    return max_iou_assign(outputs["anchors"], targets.boxes, targets.mask, ignore, 0.5, 0.5, every_peak=False)


def make_ssd_anchors(
    input_size: int,
    strides: tuple[float, ...],
    ratios: tuple[tuple[float, ...], ...],
    first: tuple[int, int],
) -> list[Tensor]:
    """Anchors around the origin of each map, (K, 4) xyxy: a square, one between it and the next map's, then
    each aspect ratio both ways.

    SSD, section 2.2 (choosing scales and aspect ratios), with sides cut to whole pixels as in the original.
    """
    step = (GREATEST - first[1]) // (len(strides) - 2)
    shares = [first[0], *range(first[1], GREATEST + 1, step)]
    shares.append(shares[-1] + step)
    sides = [int(input_size * share / 100) for share in shares]
    anchors = []
    for n, others in enumerate(ratios):
        least, greatest = sides[n], sides[n + 1]
        shapes = [(least, least), (math.sqrt(least * greatest),) * 2]
        for ratio in others:
            root = math.sqrt(ratio)
            shapes += [(least * root, least / root), (least / root, least * root)]
        half = torch.tensor(shapes) / 2
        anchors.append(torch.cat([-half, half], dim=1))
    return anchors
