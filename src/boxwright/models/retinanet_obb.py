"""RetinaNet for oriented boxes: upright anchors, from which oriented boxes are regressed.

Lin et al., Focal Loss for Dense Object Detection, ICCV 2017. Anchors are assigned to a box by their overlap
with its upright hull.
"""

from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.config.models import RetinaNetOBBConfig
from boxwright.data.targets import Targets
from boxwright.losses.classification import focal_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.heads.dense import DenseHead
from boxwright.models.layers import Normalize
from boxwright.models.oriented import (
    BOX_WIDTH,
    HeadingBranch,
    decode_oriented,
    head_boxes,
    init_oriented,
    mean_by_share,
    oriented_losses,
    within,
)
from boxwright.models.points import one_hot, rotated_of_points
from boxwright.models.priors import make_anchors, make_base_anchors, make_level_sizes
from boxwright.models.pyramid import make_pyramid
from boxwright.models.retinanet import assign_by_overlap


class RetinaNetOBB(Detector):
    """See the module's docstring.

    Args:
        backbone, neck: images to a pyramid of `strides`.
        head: logits and numbers of boxes.
        heading: None: front and back are one.
        strides: of the pyramid.
        config: anchors, assigner and losses.
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
        config: RetinaNetOBBConfig,
        selection: Selection,
    ):
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.neck, self.head, self.heading = backbone, neck, head, heading
        self.finds_headings = heading is not None
        self.strides, self.recipe, self.selection = strides, config, selection
        anchors = config.anchors
        for n, stride in enumerate(strides):
            base = make_base_anchors(
                stride, anchors.base_scale, anchors.scales, anchors.ratios, anchors.rounded
            )
            self.register_buffer(f"base_anchors_{n}", base, persistent=False)

    @classmethod
    def from_config(cls, config: RetinaNetOBBConfig, num_classes: int) -> "RetinaNetOBB":
        """Build the parts that a checked config describes."""
        backbone, neck, strides = make_pyramid(config, "input")
        channels, depth, norm = config.neck.channels, config.head_depth, config.head_norm
        priors = len(config.anchors.scales) * len(config.anchors.ratios)
        head = DenseHead(channels, num_classes, depth, norm, priors, box_width=BOX_WIDTH)
        init_oriented(head.box)
        heading = HeadingBranch(channels, depth, norm, priors=priors) if config.heading else None
        return cls(backbone, neck, head, heading, strides, config, Selection(**config.selection.model_dump()))

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs.

        Returns:
            cls_logits (B, A, C), box_numbers (B, A, 6) as `decode_oriented` takes them, anchors (A, 4) xyxy
            pixels, level_sizes (L,); with a heading `headings` (B, A, 2).
        """
        pyramid = self.neck(self.backbone(self.normalize(images)))
        logits, numbers, _ = self.head(pyramid)
        sizes = [f.shape[-2:] for f in pyramid]
        bases = [self.get_buffer(f"base_anchors_{n}") for n in range(len(sizes))]
        outputs = {
            "cls_logits": logits,
            "box_numbers": numbers,
            "anchors": make_anchors(sizes, self.strides, bases),
            "level_sizes": make_level_sizes(sizes, len(bases[0])),
        }
        return outputs if self.heading is None else outputs | {"headings": self.heading(pyramid)}

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Anchors that overlap a box's hull enough, or best."""
        return assign_by_overlap(outputs["anchors"], targets, self.recipe.assigner)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The weighted losses `cls`, `iou`, `gaussian`, `angle` and, with a heading, `heading`; scalars."""
        logits = outputs["cls_logits"]
        assigned = self.assign(outputs, targets)
        weight = (assigned.matched_gt >= 0).float()
        gt_boxes, gt_oriented, gt_labels = rotated_of_points(assigned.matched_gt, targets)
        wanted = one_hot(gt_labels, logits.shape[-1]) * weight[..., None]
        cls_loss = (focal_loss(logits, wanted) * ~assigned.ignored[..., None]).sum()
        cls_loss = self.recipe.loss_weights.cls * cls_loss / mean_over_processes(weight.sum())
        boxes = self.boxes(outputs)
        losses = oriented_losses(boxes, outputs, gt_boxes, gt_oriented, weight, self.recipe)
        return {"cls": cls_loss} | mean_by_share(losses, weight)

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Clipped to the images."""
        boxes = head_boxes(self.boxes(outputs), outputs, self.recipe.long_edge)
        scores = outputs["cls_logits"].sigmoid() * within(boxes, image_sizes)
        return Scored(boxes, scores, outputs["level_sizes"])

    def boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        """Those of all anchors (B, A, 5), before a heading chooses among their spellings."""
        anchors = outputs["anchors"]
        sides = anchors[:, 2:] - anchors[:, :2]
        return decode_oriented(anchors[:, :2] + sides / 2, sides, sides, outputs, self.recipe.long_edge)
