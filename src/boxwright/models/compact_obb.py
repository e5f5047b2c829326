"""The compact detector for turned boxes: small, fast, and from the finest stride that pays.

Net, pyramid and assignment are the compact detector's, with the overlap of rectangles in place of boxes'.
"""

from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.assign.rotated import is_inside, rotated_task_aligned_assign
from boxwright.assign.task_aligned import TaskAligned
from boxwright.config.models import CompactOBBConfig
from boxwright.data.targets import Targets
from boxwright.losses.classification import soft_binary_cross_entropy
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.backbones.residual import ResidualNet, scale_channels
from boxwright.models.compact import CompactHead
from boxwright.models.detections import Detections, Selection, select_detections
from boxwright.models.detector import Detector
from boxwright.models.layers import Normalize
from boxwright.models.necks.fpn import FPN
from boxwright.models.oriented import BOX_WIDTH, decode_at_points, init_turned, turned_losses, within
from boxwright.models.points import assignment_in_rotated, one_hot, rotated_of_points
from boxwright.models.priors import make_level_sizes, make_points


class CompactOBB(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps, `channels` and `strides`.
        neck: maps to a pyramid of the same strides.
        head: logits and the numbers of boxes.
        config: assigner and losses.
        selection: thresholds of `decode`.
    """

    turned = True
    follows_predictions = True

    def __init__(
        self,
        backbone: ResidualNet,
        neck: nn.Module,
        head: CompactHead,
        config: CompactOBBConfig,
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.strides = backbone.strides
        self.recipe, self.selection = config, selection

    @classmethod
    def from_config(cls, config: CompactOBBConfig, num_classes: int) -> "CompactOBB":
        """Build the parts that a checked config describes."""
        backbone = ResidualNet(config.width, finest=config.finest)
        channels = scale_channels(config.channels, config.width)
        width = BOX_WIDTH + 2 * config.heading
        head = CompactHead(channels, num_classes, config.head_depth, width)
        init_turned(head.box, width)
        return cls(
            backbone,
            FPN(backbone.channels, channels, norm="batch", activation=nn.SiLU),
            head,
            config,
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255, H and W multiples of 32, to raw outputs.

        Returns:
            cls_logits (B, P, C), box_numbers (B, P, 6 or 8) as `decode_turned` takes them, points (P, 2),
            strides (P,), level_sizes (L,).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, numbers = self.head(pyramid)
        sizes = [f.shape[-2:] for f in pyramid]
        points, strides = make_points(sizes, self.strides, images)
        return {
            "cls_logits": logits,
            "box_numbers": numbers,
            "points": points,
            "strides": strides,
            "level_sizes": make_level_sizes(sizes),
        }

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """The points whose scores and boxes fit an object best."""
        matched_gt = self._align(outputs, targets, decode_at_points(outputs)).matched_gt
        return assignment_in_rotated(outputs["points"], targets, matched_gt)

    def candidates(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        """(B, G) points inside each object."""
        strides = outputs["strides"]
        boxes = targets.rotated[:, :, None]
        return is_inside(outputs["points"], strides, strides[0], boxes).sum(2)

    def _align(self, outputs: dict[str, Tensor], targets: Targets, boxes: Tensor) -> TaskAligned:
        return rotated_task_aligned_assign(
            outputs["cls_logits"].detach().float().sigmoid(),
            boxes.detach(),
            outputs["points"],
            outputs["strides"],
            outputs["level_sizes"].tolist(),
            targets.rotated,
            targets.turned,
            targets.labels,
            targets.mask,
            self.recipe.assigner.topk,
            self.recipe.assigner.alpha,
            self.recipe.assigner.beta,
        )

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The weighted losses `cls`, `iou`, `gaussian`, `angle` and, with a heading, `front`; scalars."""
        logits, boxes = outputs["cls_logits"].float(), decode_at_points(outputs)
        assigned = self._align(outputs, targets, boxes)
        gt_boxes, gt_turned, gt_labels = rotated_of_points(assigned.matched_gt, targets)
        quality = assigned.quality
        wanted = one_hot(gt_labels, logits.shape[-1]) * quality[..., None]
        ignored = assignment_in_rotated(outputs["points"], targets, assigned.matched_gt).ignored
        cls_loss = soft_binary_cross_entropy(logits, wanted) * ~ignored[..., None]
        cls_loss = self.recipe.loss_weights.cls * cls_loss.sum() / mean_over_processes(quality.sum())
        numbers = outputs["box_numbers"]
        turned = turned_losses(boxes, numbers, gt_boxes, gt_turned, quality, self.recipe)
        return {"cls": cls_loss} | turned

    def decode(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> list[Detections]:
        """Detections of each image, those whose centres lie within `image_sizes` (B, 2), width and height."""
        boxes = decode_at_points(outputs)
        scores = outputs["cls_logits"].float().sigmoid() * within(boxes, image_sizes)
        return select_detections(boxes, scores, self.selection, outputs["level_sizes"])
