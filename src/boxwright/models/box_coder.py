"""Boxes as deltas from anchors.

Girshick et al., Rich Feature Hierarchies, CVPR 2014, appendix C. Oriented boxes, (..., 5) cx, cy, w, h and
angle, as Xie et al., Oriented R-CNN for Object Detection, ICCV 2021, section 3, have them.
"""

import math

import torch
from torch import Tensor

from boxwright.geometry.torch_rotated import place_in_boxes

MAX_LOG_SCALE = math.log(1000 / 16)  # no box grows to more than 62.5 anchors, as the originals have it


def encode_deltas(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Shifts in anchor sizes and logs of relative sizes, (..., 4), of xyxy boxes (..., 4).

    A side without length counts as a millionth of a pixel, so that deltas are finite.
    """
    anchor_size = (anchors[..., 2:] - anchors[..., :2]).clamp(min=1e-6)
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-6)
    shift = (boxes[..., :2] + boxes[..., 2:] - anchors[..., :2] - anchors[..., 2:]) / 2
    return torch.cat([shift / anchor_size, (size / anchor_size).log()], dim=-1)


def decode_deltas(anchors: Tensor, deltas: Tensor) -> Tensor:
    """The inverse of `encode_deltas`: xyxy boxes (..., 4)."""
    anchor_size = anchors[..., 2:] - anchors[..., :2]
    center = (anchors[..., :2] + anchors[..., 2:]) / 2 + deltas[..., :2] * anchor_size
    half = deltas[..., 2:].clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp() * anchor_size / 2
    return torch.cat([center - half, center + half], dim=-1)


MIDPOINT_DEVIATION = 0.5  # that shifts of midpoints are divided by
UPRIGHT = -0.5 / MIDPOINT_DEVIATION  # both shifts of an upright box; the same without the sign are one too
LEAST = 1e-6  # px, what a side without length counts as


def encode_midpoints(boxes: Tensor) -> Tensor:
    """Where an oriented box (..., 5) touches the top and the right side of its upright hull: shifts (..., 2)
    from the sides' midpoints in those sides' lengths. An upright box touches at its upper corners.
    """
    w, h, angle = _in_first_quarter(boxes)
    cos, sin = angle.cos(), angle.sin()
    width, height = w * cos + h * sin, w * sin + h * cos
    top, right = (h * sin - w * cos) / 2, (w * sin - h * cos) / 2
    shifts = torch.stack([top / width.clamp(min=LEAST), right / height.clamp(min=LEAST)], dim=-1)
    return shifts / MIDPOINT_DEVIATION


def decode_midpoints(anchors: Tensor, numbers: Tensor) -> Tensor:
    """Oriented boxes (..., 5) from anchors (..., 4) xyxy: of six numbers four are deltas of the upright hull,
    two the shifts of `encode_midpoints`. The parallelogram's shorter diagonal is made as long as the other.
    """
    hull = decode_deltas(anchors, numbers[..., :4])
    size, center = hull[..., 2:] - hull[..., :2], (hull[..., :2] + hull[..., 2:]) / 2
    shift = (numbers[..., 4:6] * MIDPOINT_DEVIATION).clamp(-0.5, 0.5) * size
    # Half diagonals, to the points on the top and on the right side.
    top = torch.stack([shift[..., 0], -size[..., 1] / 2], dim=-1)
    right = torch.stack([size[..., 0] / 2, shift[..., 1]], dim=-1)
    lengths = [d.norm(dim=-1, keepdim=True).clamp(min=LEAST) for d in (top, right)]
    longer = torch.maximum(*lengths)
    top, right = (d * longer / length for d, length in zip((top, right), lengths))
    along, across = right - top, right + top
    angle = torch.atan2(along[..., 1], along[..., 0])
    return torch.cat(
        [center, along.norm(dim=-1, keepdim=True), across.norm(dim=-1, keepdim=True), angle[..., None]],
        dim=-1,
    )


def encode_rotated_deltas(regions: Tensor, boxes: Tensor) -> Tensor:
    """Shifts along and across a region's angle in its sides, logs of relative sides and the turn, (..., 2,
    5), of boxes (..., 5): each in the spelling nearest to the region's, turned by an eighth at most, and in
    the nearest one on the other side.
    """
    sides = regions[..., 2:4].clamp(min=LEAST)
    own, turn = spelled_near(boxes, regions[..., 4])
    own = torch.stack([own, own.flip(-1)], dim=-2).clamp(min=LEAST)  # (..., 2, 2)
    quarter = torch.where(turn > 0, -1, 1).to(turn.dtype) * (math.pi / 2)
    shift = (place_in_boxes(boxes[..., :2], regions) / sides)[..., None, :].expand_as(own)
    turns = torch.stack([turn, turn + quarter], dim=-1)[..., None]
    return torch.cat([shift, (own / sides[..., None, :]).log(), turns], dim=-1)


def decode_rotated_deltas(regions: Tensor, deltas: Tensor) -> Tensor:
    """Boxes (..., 5) of deltas (..., 5), the inverse of `encode_rotated_deltas`."""
    center = regions[..., :2] + turned(deltas[..., :2] * regions[..., 2:4], regions[..., 4])
    sides = deltas[..., 2:4].clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp() * regions[..., 2:4]
    return torch.cat([center, sides, regions[..., 4:] + deltas[..., 4:]], dim=-1)


def spelled_near(boxes: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height (..., 2) of boxes (..., 5), and their turn (...) from an angle (...), each in the
    spelling in which it is an eighth at most.
    """
    turn = boxes[..., 4] - angle
    quarters = (turn / (math.pi / 2)).round()
    swapped = (quarters % 2 == 1)[..., None]
    sides = torch.where(swapped, boxes[..., [3, 2]], boxes[..., 2:4])
    return sides, turn - quarters * (math.pi / 2)


def turned(vectors: Tensor, angle: Tensor) -> Tensor:
    """Vectors (..., 2) turned by an angle (...)."""
    x, y = vectors.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def _in_first_quarter(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sides and angle of the same rectangles (..., 5), the angle in [0, pi / 2)."""
    w, h, angle = boxes[..., 2:].unbind(-1)
    quarters = (angle / (math.pi / 2)).floor()
    swapped = quarters % 2 == 1
    return torch.where(swapped, h, w), torch.where(swapped, w, h), angle - quarters * (math.pi / 2)
