"""What detectors of oriented boxes share: the numbers of a box, the heading branch, and their losses.

A location predicts the centre, the logs of both sides, and the direction of the longer side as cosine and
sine of twice its angle. Half a turn, which changes no rectangle, changes no number. The longer side is the
width, in whichever of the two numbers it stands: no rectangle can settle in a second spelling, which the IoU
can't tell from the first. With `heading` a branch of its own predicts where the front points.
"""

import math

import torch
from torch import Tensor, nn

from boxwright.config.models import OrientedBoxes
from boxwright.geometry.torch_rotated import as_seen
from boxwright.losses.normalizer import mean_over_processes
from boxwright.losses.rotated import gwd_loss, kld_loss, prob_iou_loss, rotated_iou_loss
from boxwright.models.heads.dense import flatten_level, init_head, make_tower

BOX_WIDTH = 6  # numbers a box
SIDE = 2.0  # strides, of a point's box whose logs are 0
MAX_LOG_SIDE = 6.0  # keeps a side finite
FIRST_LOG_SIDE = (
    0.25  # of the width at the start, less for the height: decides which of the two is the longer
)
GAUSSIAN_LOSSES = {"kld": kld_loss, "gwd": gwd_loss, "prob_iou": prob_iou_loss}


class HeadingBranch(nn.Module):
    """The direction of the front at every location, apart from the box: few pixels tell it.

    Args:
        channels: of the pyramid and the tower.
        depth: convolutions of the tower.
        norm, activation: of the tower.
        priors: anchors a location.
        kernel_size: of the last convolution.
    """

    def __init__(
        self,
        channels: int,
        depth: int,
        norm: str,
        activation: type[nn.Module] = nn.ReLU,
        priors: int = 1,
        kernel_size: int = 3,
    ):
        super().__init__()
        self.tower = make_tower(channels, depth, norm, activation)
        self.direction = nn.Conv2d(channels, 2 * priors, kernel_size, padding=kernel_size // 2)
        init_head(self.direction)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """(B, P, 2) cosine and sine of the heading; levels side by side."""
        return torch.cat([flatten_level(self.direction(self.tower(f)), 2) for f in pyramid], dim=1)


def decode_oriented(
    points: Tensor, steps: Tensor, sides: Tensor, outputs: dict[str, Tensor], long_edge: bool
) -> Tensor:
    """Boxes (B, P, 5) in float32, without headings; angles of [-pi / 2, pi / 2].

    Args:
        points: (P, 2) pixels.
        steps: (P, 1 or 2) pixels, the unit of a centre's distance from its point.
        sides: (P, 1 or 2) pixels, of a box whose logs are 0.
        outputs: `box_numbers` (B, P, 6): distance of the centre, logs of the sides, cosine and sine of twice
            the angle.
        long_edge: the angle is that of the longer side; False: of the third number's.
    """
    numbers = outputs["box_numbers"].float()
    centers = points + numbers[..., :2] * steps
    w, h = (numbers[..., 2:4].clamp(-MAX_LOG_SIDE, MAX_LOG_SIDE).exp() * sides).unbind(-1)
    if long_edge:
        w, h = torch.maximum(w, h), torch.minimum(w, h)
    angle = torch.atan2(numbers[..., 5], numbers[..., 4]) / 2
    return torch.cat([centers, torch.stack([w, h, angle], dim=-1)], dim=-1)


def decode_at_points(outputs: dict[str, Tensor], long_edge: bool) -> Tensor:
    """`decode_oriented` of the outputs `box_numbers`, `points` and `strides`."""
    strides = outputs["strides"][:, None]
    return decode_oriented(outputs["points"], strides, SIDE * strides, outputs, long_edge)


def head_boxes(boxes: Tensor, outputs: dict[str, Tensor], long_edge: bool) -> Tensor:
    """The same rectangles (B, P, 5) with the width along the heading, where the outputs hold `headings` (B,
    P, 2).

    Of the four directions of a rectangle's sides the nearest is taken; without `long_edge`, of the two of its
    width.
    """
    if "headings" not in outputs:
        return boxes
    cx, cy, w, h, angle = boxes.unbind(-1)
    x, y = outputs["headings"].float().unbind(-1)
    along, across = angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x
    if long_edge:
        swap = across.abs() > along.abs()
        w, h = torch.where(swap, h, w), torch.where(swap, w, h)
        angle, along = torch.where(swap, angle + math.pi / 2, angle), torch.where(swap, across, along)
    behind = torch.where(angle > 0, angle - math.pi, angle + math.pi)
    return torch.stack([cx, cy, w, h, torch.where(along < 0, behind, angle)], dim=-1)


def init_oriented(layer: nn.Conv2d) -> None:
    """Let every box start upright, a little wider than high: at no direction at all the angle has no
    gradient.
    """
    assert layer.bias is not None
    with torch.no_grad():
        bias = layer.bias.view(-1, BOX_WIDTH)
        bias[:, 2], bias[:, 3], bias[:, 4] = FIRST_LOG_SIDE, -FIRST_LOG_SIDE, 1.0


def within(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """(B, P, 1) bool: centres of boxes (B, P, 5) within images of sizes (B, 2), width and height."""
    return ((boxes[..., :2] >= 0) & (boxes[..., :2] <= image_sizes[:, None])).all(-1, keepdim=True)


def long_edge(boxes: Tensor) -> Tensor:
    """The same rectangles (..., 5) with the width as the longer side."""
    cx, cy, w, h, angle = boxes.unbind(-1)
    swap = w < h
    sides = torch.where(swap, h, w), torch.where(swap, w, h)
    return torch.stack([cx, cy, *sides, torch.where(swap, angle + math.pi / 2, angle)], dim=-1)


def oriented_losses(
    boxes: Tensor,
    outputs: dict[str, Tensor],
    gt_boxes: Tensor,
    gt_oriented: Tensor,
    share: Tensor,
    recipe: OrientedBoxes,
) -> dict[str, Tensor]:
    """The weighted losses `iou`, `gaussian`, `angle` and, with a heading, `heading` of each prior, times its
    `share`; (B, P) each.

    Boxes without an angle are compared by their hulls and teach no angle. A square has no direction: a box
    teaches its own by how far it is from one.

    Args:
        boxes: (B, P, 5) decoded.
        outputs: `box_numbers` (B, P, 6) that they were decoded from, and with a heading `headings` (B, P, 2).
        gt_boxes: (B, P, 5) the truth of each prior.
        gt_oriented: (B, P) bool, truth that has an angle.
        share: (B, P) how much a prior counts, 0 for background.
        recipe: which losses, and their weights.
    """
    heading, gt_boxes = gt_boxes[..., 4], long_edge(gt_boxes)
    seen = as_seen(boxes, gt_oriented)
    w2, h2 = gt_boxes[..., 2:4].square().unbind(-1)
    length = (w2 - h2) / (w2 + h2).clamp(min=1e-6)  # 0 for a square, 1 for a line
    double = outputs["box_numbers"][..., 4:6].float()
    parts = {
        "iou": rotated_iou_loss(seen, gt_boxes),
        "gaussian": GAUSSIAN_LOSSES[recipe.gaussian](seen, gt_boxes),
        "angle": distance_to_angle(double, 2 * gt_boxes[..., 4]) * length * gt_oriented,
    }
    if recipe.heading:
        parts["heading"] = distance_to_angle(outputs["headings"].float(), heading) * gt_oriented
    weights = recipe.loss_weights.model_dump()
    # Background has whatever box of truth: select, don't multiply.
    return {name: weights[name] * torch.where(share > 0, part * share, 0.0) for name, part in parts.items()}


def mean_by_share(losses: dict[str, Tensor], share: Tensor) -> dict[str, Tensor]:
    """Means, as scalars, of losses (B, P) that have been multiplied by the `share` (B, P) of their priors."""
    total = mean_over_processes(share.sum(), least=1e-6)
    return {name: loss.sum() / total for name, loss in losses.items()}


def distance_to_angle(vectors: Tensor, angle: Tensor) -> Tensor:
    """Squared distance of (..., 2) to the unit vectors of angles (...)."""
    return (vectors - torch.stack([angle.cos(), angle.sin()], dim=-1)).square().sum(-1)
