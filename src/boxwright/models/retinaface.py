"""RetinaFace: faces, and the five landmarks of each, in one look.

Deng et al., RetinaFace: Single-Shot Multi-Level Face Localisation in the Wild, CVPR 2020; without its dense
regression of a mesh.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.samplers import hard_negatives
from boxwright.config.faces import RetinaFaceConfig
from boxwright.config.models import MaxIoUConfig
from boxwright.data.tables import LANDMARKS
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import clip_boxes
from boxwright.losses.box import smooth_l1_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.box_coder import decode_deltas, encode_deltas
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.dense import flatten_level, init_head
from boxwright.models.layers import Normalize
from boxwright.models.points import targets_of_points
from boxwright.models.priors import make_anchors, make_base_anchors, make_level_sizes
from boxwright.models.pyramid import make_pyramid
from boxwright.models.retinanet import assign_by_overlap

DELTA_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)
LANDMARK_DEVIATION = 0.1  # anchor sizes


class FaceHead(nn.Module):
    """Class logits, background last, box deltas and landmarks of every anchor: a 1x1 convolution each, which
    all levels share (RetinaFace, section 4.2).

    Args:
        channels: of the pyramid.
        num_classes: categories.
        priors: anchors a location.
    """

    def __init__(self, channels: int, num_classes: int, priors: int):
        super().__init__()
        self.num_classes = num_classes
        self.cls = nn.Conv2d(channels, priors * (num_classes + 1), 1)
        self.box = nn.Conv2d(channels, priors * 4, 1)
        self.landmarks = nn.Conv2d(channels, priors * 2 * LANDMARKS, 1)
        init_head(self)

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, A, C + 1), deltas (B, A, 4) and shifts of landmarks (B, A, LANDMARKS * 2)."""
        parts = ((self.cls, self.num_classes + 1), (self.box, 4), (self.landmarks, 2 * LANDMARKS))
        logits, deltas, shifts = (
            torch.cat([flatten_level(layer(level), width) for level in pyramid], dim=1)
            for layer, width in parts
        )
        return logits, deltas, shifts


class RetinaFace(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps, `channels` and `strides`.
        neck: maps to a pyramid of `strides`.
        head: logits, deltas and landmarks.
        strides: of the pyramid.
        base_anchors: (K, 4) of each level, see `make_base_anchors`.
        assigner: overlaps of positives and negatives.
        negatives: for each positive in the class loss.
        box_weight, landmark_weight: of the losses.
        selection: thresholds of `decode`.
    """

    finds_landmarks = True
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
        negatives: float,
        box_weight: float,
        landmark_weight: float,
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides, self.assigner, self.negatives = strides, assigner, negatives
        self.box_weight, self.landmark_weight, self.selection = box_weight, landmark_weight, selection
        self.register_buffer("base_anchors", torch.stack(base_anchors), persistent=False)
        self.register_buffer("deviations", torch.tensor(DELTA_DEVIATIONS), persistent=False)

    @classmethod
    def from_config(cls, config: RetinaFaceConfig, num_classes: int) -> "RetinaFace":
        """Build the parts that a checked config describes."""
        backbone, neck, strides = make_pyramid(config, "input")
        anchors = config.anchors
        base_anchors = [
            make_base_anchors(s, anchors.base_scale, anchors.scales, anchors.ratios, anchors.rounded)
            for s in strides
        ]
        return cls(
            backbone,
            neck,
            FaceHead(config.neck.channels, num_classes, len(base_anchors[0])),
            strides,
            base_anchors,
            config.assigner,
            config.negatives,
            config.box_weight,
            config.landmark_weight,
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs.

        Returns:
            cls_logits (B, A, C + 1), background last, box_deltas (B, A, 4), landmark_shifts (B, A, 10),
            anchors (A, 4) xyxy pixels, level_sizes (L,).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, deltas, shifts = self.head(pyramid)
        sizes = [level.shape[-2:] for level in pyramid]
        return {
            "cls_logits": logits,
            "box_deltas": deltas,
            "landmark_shifts": shifts,
            "anchors": make_anchors(sizes, self.strides, list(self.base_anchors), offset=0.5),
            "level_sizes": make_level_sizes(sizes, self.base_anchors.shape[1]),
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Anchors that overlap a face enough, or best."""
        return assign_by_overlap(outputs["anchors"], targets, self.assigner)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `cls`, `box` and `landmarks`, each a scalar; the last of the faces that have some."""
        logits, anchors = outputs["cls_logits"].float(), outputs["anchors"]
        assigned = self.assign(outputs, targets)
        positive, gt_boxes, gt_labels = targets_of_points(assigned.matched_gt, targets)
        wanted = torch.where(positive, gt_labels, logits.shape[-1] - 1)
        cls_loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
        negative = ~positive & ~assigned.ignored
        # An image without a face has as many negatives as one with a single positive.
        hard = hard_negatives(cls_loss, positive, negative, self.negatives, least=self.negatives)
        box_targets = encode_deltas(anchors, gt_boxes) / self.deviations
        box_loss = smooth_l1_loss(outputs["box_deltas"].float(), box_targets, beta=1.0)
        shifts, known = self._landmark_targets(anchors, assigned.matched_gt, targets)
        landmark_loss = smooth_l1_loss(outputs["landmark_shifts"].float(), shifts, beta=1.0)
        positives = mean_over_processes(positive.float().sum())
        with_landmarks = mean_over_processes(known.float().sum())
        return {
            "cls": (cls_loss * (positive | hard)).sum() / positives,
            "box": self.box_weight * torch.where(positive, box_loss, 0.0).sum() / positives,
            "landmarks": self.landmark_weight * torch.where(known, landmark_loss, 0.0).sum() / with_landmarks,
        }

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image, with landmarks, which may lie outside."""
        anchors = outputs["anchors"]
        boxes = decode_deltas(anchors, outputs["box_deltas"].float() * self.deviations)
        center, size = _center_and_size(anchors)
        shifts = outputs["landmark_shifts"].float().unflatten(-1, (LANDMARKS, 2))
        return Scored(
            clip_boxes(boxes, image_sizes),
            outputs["cls_logits"].float().softmax(-1)[..., :-1],
            outputs["level_sizes"],
            landmarks=center + shifts * LANDMARK_DEVIATION * size,
        )

    def _landmark_targets(
        self, anchors: Tensor, matched_gt: Tensor, targets: Targets
    ) -> tuple[Tensor, Tensor]:
        """Shifts (B, A, LANDMARKS * 2) of the landmarks of the face that an anchor is assigned to, 0 where it
        has none; and whether it has some, (B, A) bool.
        """
        if targets.boxes.shape[1] == 0:
            shape = (*matched_gt.shape, 2 * LANDMARKS)
            return anchors.new_zeros(shape), torch.zeros_like(matched_gt, dtype=torch.bool)
        index = matched_gt.clamp(min=0)[..., None].expand(-1, -1, 2 * LANDMARKS)
        points = targets.landmarks.flatten(2).gather(1, index).unflatten(-1, (LANDMARKS, 2))
        known = points.isfinite().all(-1).all(-1) & (matched_gt >= 0)
        center, size = _center_and_size(anchors)
        shifts = (points - center) / (LANDMARK_DEVIATION * size)
        return torch.where(known[..., None], shifts.flatten(2), 0.0), known


def _center_and_size(anchors: Tensor) -> tuple[Tensor, Tensor]:
    """(A, 1, 2) both, of anchors (A, 4)."""
    return ((anchors[:, :2] + anchors[:, 2:]) / 2)[:, None], (anchors[:, 2:] - anchors[:, :2])[:, None]
