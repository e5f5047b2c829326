"""The compact detector for oriented boxes: small, fast, and from the finest stride that pays.

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
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.layers import Normalize
from boxwright.models.necks.fpn import FPN
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
from boxwright.models.points import (
    assigned_first,
    assignment_in_rotated,
    at_points,
    one_hot,
    rotated_of_points,
    rows_of,
)
from boxwright.models.priors import make_level_sizes, make_points


class CompactOBB(Detector):
    """See the module's docstring.

    Args:
        backbone: gives maps, `channels` and `strides`.
        neck: maps to a pyramid of the same strides.
        head: logits and the numbers of boxes.
        heading: None: front and back are one.
        config: assigner and losses.
        selection: thresholds of `decode`.
    """

    oriented = True
    follows_predictions = True

    def __init__(
        self,
        backbone: ResidualNet,
        neck: nn.Module,
        head: CompactHead,
        heading: HeadingBranch | None,
        config: CompactOBBConfig,
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head, self.heading = backbone, neck, head, heading
        self.finds_headings = heading is not None
        self.strides = backbone.strides
        self.recipe, self.selection = config, selection

    @classmethod
    def from_config(cls, config: CompactOBBConfig, num_classes: int) -> "CompactOBB":
        """Build the parts that a checked config describes."""
        backbone = ResidualNet(config.width, finest=config.finest)
        channels = scale_channels(config.channels, config.width)
        depth = config.head_depth
        head = CompactHead(channels, num_classes, depth, BOX_WIDTH)
        init_oriented(head.box)
        heading = HeadingBranch(channels, depth, "batch", nn.SiLU, kernel_size=1) if config.heading else None
        return cls(
            backbone,
            FPN(backbone.channels, channels, norm="batch", activation=nn.SiLU),
            head,
            heading,
            config,
            Selection(**config.selection.model_dump()),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255, H and W multiples of 32, to raw outputs.

        Returns:
            cls_logits (B, P, C), box_numbers (B, P, 6) as `decode_oriented` takes them, points (P, 2),
            strides (P,), level_sizes (L,); with a heading `headings` (B, P, 2).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, numbers = self.head(pyramid)
        sizes = [f.shape[-2:] for f in pyramid]
        points, strides = make_points(sizes, self.strides, images)
        outputs = {
            "cls_logits": logits,
            "box_numbers": numbers,
            "points": points,
            "strides": strides,
            "level_sizes": make_level_sizes(sizes),
        }
        return outputs if self.heading is None else outputs | {"headings": self.heading(pyramid)}

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """The points whose scores and boxes fit an object best."""
        matched_gt = self._align(outputs, targets, self.boxes(outputs)).matched_gt
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
            targets.oriented,
            targets.labels,
            targets.mask,
            self.recipe.assigner.topk,
            self.recipe.assigner.alpha,
            self.recipe.assigner.beta,
        )

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The weighted losses `cls`, `iou`, `gaussian`, `angle` and, with a heading, `heading`; scalars."""
        logits, boxes = outputs["cls_logits"].float(), self.boxes(outputs)
        matched_gt, quality = self._align(outputs, targets, boxes)
        _, _, gt_labels = rotated_of_points(matched_gt, targets)
        wanted = one_hot(gt_labels, logits.shape[-1]) * quality[..., None]
        ignored = assignment_in_rotated(outputs["points"], targets, matched_gt).ignored
        cls_loss = soft_binary_cross_entropy(logits, wanted) * ~ignored[..., None]
        cls_loss = self.recipe.loss_weights.cls * cls_loss.sum() / mean_over_processes(quality.sum())

        some, index = assigned_first(quality, self.recipe.assigner.topk * targets.boxes.shape[1])
        gt_boxes, gt_oriented, _ = rotated_of_points(rows_of(matched_gt, index), targets)
        own = {name: rows_of(outputs[name], index) for name in ("box_numbers", "headings") if name in outputs}
        losses = oriented_losses(rows_of(boxes, index), own, gt_boxes, gt_oriented, some, self.recipe)
        losses = {name: at_points(loss, index, quality) for name, loss in losses.items()}
        return {"cls": cls_loss} | mean_by_share(losses, quality)

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Of each image, those whose centres lie within `image_sizes` (B, 2), width and height."""
        boxes = head_boxes(self.boxes(outputs), outputs, self.recipe.long_edge)
        scores = outputs["cls_logits"].float().sigmoid() * within(boxes, image_sizes)
        return Scored(boxes, scores, outputs["level_sizes"])

    def boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        """Those of all points (B, P, 5), before a heading chooses among their spellings."""
        return decode_at_points(outputs, self.recipe.long_edge)
