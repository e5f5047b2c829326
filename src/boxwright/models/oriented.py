"""What detectors of turned boxes share: the numbers of a box, and the losses on them.

A location says where the centre is, the logs of both sides, and the direction of the width as cosine and sine
of twice its angle: half a turn, which changes no rectangle, changes no number either, so nothing jumps. With
`heading` two numbers more tell which end is the front.
"""

import math

import torch
from torch import Tensor, nn

from boxwright.config.models import TurnedBoxes
from boxwright.geometry.torch_rotated import as_seen
from boxwright.losses.normalizer import mean_over_processes
from boxwright.losses.rotated import gwd_loss, kld_loss, prob_iou_loss, rotated_iou_loss

BOX_WIDTH = 6  # numbers a box; two more with a heading
SIDE = 2.0  # strides, of a point's box whose logs are 0
MAX_LOG_SIDE = 6.0  # keeps a side finite
GAUSSIAN_LOSSES = {"kld": kld_loss, "gwd": gwd_loss, "prob_iou": prob_iou_loss}


def decode_turned(points: Tensor, steps: Tensor, sides: Tensor, numbers: Tensor) -> Tensor:
    """Boxes (B, P, 5) in float32 of what a head says of them.

    Args:
        points: (P, 2) pixels.
        steps: (P, 1 or 2) pixels, the unit of a centre's way from its point.
        sides: (P, 1 or 2) pixels, of a box whose logs are 0.
        numbers: (B, P, 6 or 8): way of the centre, logs of the sides, cosine and sine of twice the angle;
            cosine and sine of the heading.
    """
    numbers = numbers.float()
    centers = points + numbers[..., :2] * steps
    sides = numbers[..., 2:4].clamp(-MAX_LOG_SIDE, MAX_LOG_SIDE).exp() * sides
    angle = torch.atan2(numbers[..., 5], numbers[..., 4]) / 2
    if numbers.shape[-1] > BOX_WIDTH:
        ahead = angle.cos() * numbers[..., 6] + angle.sin() * numbers[..., 7] >= 0
        angle = torch.where(ahead, angle, angle - math.pi * angle.sign())
    return torch.cat([centers, sides, angle[..., None]], dim=-1)


def decode_at_points(outputs: dict[str, Tensor]) -> Tensor:
    """`decode_turned` of the outputs `box_numbers`, `points` and `strides`."""
    strides = outputs["strides"][:, None]
    return decode_turned(outputs["points"], strides, SIDE * strides, outputs["box_numbers"])


def init_turned(layer: nn.Conv2d, width: int) -> None:
    """Let every box start upright: at no direction at all the angle has no gradient."""
    assert layer.bias is not None
    with torch.no_grad():
        layer.bias.view(-1, width)[:, 4] = 1.0


def within(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """(B, P, 1) bool: centres of boxes (B, P, 5) within images of sizes (B, 2), width and height."""
    return ((boxes[..., :2] >= 0) & (boxes[..., :2] <= image_sizes[:, None])).all(-1, keepdim=True)


def long_edge(boxes: Tensor) -> Tensor:
    """The same rectangles (..., 5) with the width as the longer side."""
    cx, cy, w, h, angle = boxes.unbind(-1)
    swap = w < h
    sides = torch.where(swap, h, w), torch.where(swap, w, h)
    return torch.stack([cx, cy, *sides, torch.where(swap, angle + math.pi / 2, angle)], dim=-1)


def turned_losses(
    boxes: Tensor, numbers: Tensor, gt_boxes: Tensor, gt_turned: Tensor, share: Tensor, recipe: TurnedBoxes
) -> dict[str, Tensor]:
    """The weighted losses `iou`, `gaussian` and `angle`, with a heading `front`: means over priors by their
    `share`; scalars.

    Boxes without an angle are compared by their hulls and teach no angle. A square has no direction: a box
    teaches its own by how far it is from one.

    Args:
        boxes: (B, P, 5) decoded.
        numbers: (B, P, 6 or 8) that they were decoded from.
        gt_boxes: (B, P, 5) the truth of each prior.
        gt_turned: (B, P) bool, truth that has an angle.
        share: (B, P) how much a prior counts, 0 for background.
        recipe: which losses, and their weights.
    """
    gt_boxes = gt_boxes if recipe.heading else long_edge(gt_boxes)
    seen = as_seen(boxes, gt_turned)
    w2, h2 = gt_boxes[..., 2:4].square().unbind(-1)
    length = (w2 - h2).abs() / (w2 + h2).clamp(min=1e-6)  # 0 for a square, 1 for a line
    angle, numbers = gt_boxes[..., 4], numbers.float()
    double = torch.stack([(2 * angle).cos(), (2 * angle).sin()], dim=-1)
    parts = {
        "iou": rotated_iou_loss(seen, gt_boxes),
        "gaussian": GAUSSIAN_LOSSES[recipe.gaussian](seen, gt_boxes),
        "angle": (numbers[..., 4:6] - double).square().sum(-1) * length * gt_turned,
    }
    if recipe.heading:
        front = torch.stack([angle.cos(), angle.sin()], dim=-1)
        parts["front"] = (numbers[..., 6:8] - front).square().sum(-1) * gt_turned
    weights, total = recipe.loss_weights.model_dump(), mean_over_processes(share.sum(), least=1e-6)
    # Background has whatever box of truth: select, don't multiply.
    return {
        name: weights[name] * torch.where(share > 0, part * share, 0.0).sum() / total
        for name, part in parts.items()
    }
