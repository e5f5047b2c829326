"""What a set predictor does with its boxes, upright or oriented: one class each, of the same methods.

Upright boxes are (..., 4) cx, cy, w, h in shares of the input's width and height. Oriented ones are (..., 5),
the last the angle, all in shares of the longer of both, so that a turned box keeps its right angles. Their
logits are those of shares; an angle stands as it is.
"""

import math

import torch
from torch import Tensor

from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import aligned_iou, clip_boxes, generalized_iou
from boxwright.geometry.torch_rotated import as_hulls, as_seen, place_in_boxes, rotated_iou
from boxwright.losses.rotated import kld_loss
from boxwright.models.attention import inverse_sigmoid
from boxwright.models.box_coder import spelled_near, turned
from boxwright.models.oriented import FIRST_LOG_SIDE, long_edge, within

PIXELS = 1000.0  # that a share counts as where lengths are compared with a least one
LEAST_SIDE = 1e-5  # shares
TURN = math.pi / 8  # of a noisy query, at most, where its sides move by half of the box


def to_corners(boxes: Tensor) -> Tensor:
    """cx, cy, w, h (..., 4) to x1, y1, x2, y2."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def to_centers(boxes: Tensor) -> Tensor:
    """x1, y1, x2, y2 (..., 4) to cx, cy, w, h."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)


class UprightSets:
    """Boxes as DETR has them.

    Attributes:
        oriented: they have angles.
        sides: numbers of a box that a layer refines.
        places: numbers that a place of the image predicts, and what they start at.
        positions: numbers that tell a query where it is.
    """

    oriented = False
    sides, positions = 4, 4
    places = (0.0, 0.0, 0.0, 0.0)

    def unit(self, image_size: Tensor) -> Tensor:
        """(2,) pixels that shares are of; `image_size` (2,) is width and height of the input."""
        return image_size

    def truth(self, targets: Targets, image_size: Tensor) -> Tensor:
        """(B, G, 4) of the targets; of oriented boxes (B, G, 6), the last whether the angle is known."""
        return to_centers(targets.boxes) / image_size.repeat(2)

    def from_logits(self, logits: Tensor) -> Tensor:
        """Boxes of logits (..., 4)."""
        return logits.sigmoid()

    def to_logits(self, boxes: Tensor) -> Tensor:
        """The inverse of `from_logits`."""
        return inverse_sigmoid(boxes)

    def at_place(self, numbers: Tensor, place_logits: Tensor) -> Tensor:
        """Logits of the boxes that places (N, 4) predict by numbers (B, N, `places`)."""
        return numbers + place_logits

    def position(self, boxes: Tensor) -> Tensor:
        """(..., `positions`) what tells where a query's box is."""
        return boxes

    def frames(self, boxes: Tensor, image_size: Tensor) -> Tensor:
        """Boxes (..., 4), or frames (..., 6) of turned ones, that `DeformableAttention` reads around."""
        return boxes

    def noisy(self, boxes: Tensor, is_far: Tensor, noise: float) -> Tensor:
        """Truth (B, D, 4) whose sides are moved by up to `noise` of its halves, or twice that if `is_far`."""
        sign = torch.randint_like(boxes, 0, 2) * 2 - 1
        part = torch.rand_like(boxes) + is_far[:, None].to(boxes.dtype)
        reach = boxes[..., 2:].repeat(1, 1, 2) / 2 * noise
        return to_centers((to_corners(boxes) + sign * part * reach).clamp(0, 1))

    def costs(self, boxes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """L1 distance of boxes from truth, which broadcast, and how unlike they are, from 0 to 2."""
        return (boxes - wanted).abs().sum(-1), 1 - generalized_iou(to_corners(boxes), to_corners(wanted))

    def losses(self, boxes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """The same, to be learnt from."""
        return self.costs(boxes, wanted)

    def overlaps(self, boxes: Tensor, wanted: Tensor) -> Tensor:
        """(...) IoU of boxes with their truth."""
        return aligned_iou(to_corners(boxes), to_corners(wanted))

    def hulls(self, boxes: Tensor, image_size: Tensor) -> Tensor:
        """Upright hulls, xyxy pixels."""
        return to_corners(boxes) * image_size.repeat(2)

    def found(self, boxes: Tensor, image_size: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, Q, 4 or 5) in pixels, as detections have them, and what their scores are multiplied by,
        within images of `sizes` (B, 2).
        """
        return clip_boxes(self.hulls(boxes, image_size), sizes), boxes.new_ones(())

    def shifted(self, boxes: Tensor, shifts: Tensor, reg_scale: float) -> Tensor:
        """Boxes (..., 4) whose left, top, right and bottom are moved outwards by shifts (..., 4).

        D-FINE, equation 2: a shift of `reg_scale` is the box's own side.
        """
        center, unit = boxes[..., :2], boxes[..., 2:] / reg_scale
        half = reg_scale / 2
        corners = [center - (half + shifts[..., :2]) * unit, center + (half + shifts[..., 2:]) * unit]
        return to_centers(torch.cat(corners, dim=-1))

    def shifts(self, boxes: Tensor, wanted: Tensor, reg_scale: float) -> tuple[Tensor, Tensor]:
        """The inverse of `shifted`: what moves boxes (..., 4) to the truth (..., 4); (..., 4), and how much
        each counts.
        """
        center, unit = boxes[..., :2], boxes[..., 2:] / reg_scale + 1e-16
        half = wanted[..., 2:] / 2
        low, high = (center - wanted[..., :2] + half) / unit, (wanted[..., :2] + half - center) / unit
        return torch.cat([low, high], dim=-1) - reg_scale / 2, boxes.new_ones(())


class OrientedSets:
    """Boxes with angles. Truth is spelled as the box that is compared with it is, so that it is turned by an
    eighth at most; truth whose angle isn't known is compared with upright hulls.

    In place of the GIoU stand the IoU and the divergence of Gaussians (Yang et al., NeurIPS 2021). Angles are
    refined by a distribution beside those of the sides, which are counted along the first box's axes.
    """

    oriented = True
    sides, positions = 5, 6
    # The direction of twice the angle; a little wider than high, so that the width becomes the longer side.
    places = (0.0, 0.0, FIRST_LOG_SIDE, -FIRST_LOG_SIDE, 1.0, 0.0)

    def unit(self, image_size: Tensor) -> Tensor:
        """As `UprightSets` has it, here and below; (2,) the longer side twice."""
        return image_size.max().expand(2)

    def truth(self, targets: Targets, image_size: Tensor) -> Tensor:
        shares = targets.rotated[..., :4] / self.unit(image_size).repeat(2)
        known = targets.oriented[..., None].to(shares.dtype)
        return torch.cat([shares, targets.rotated[..., 4:], known], dim=-1)

    def from_logits(self, logits: Tensor) -> Tensor:
        return torch.cat([logits[..., :4].sigmoid(), logits[..., 4:]], dim=-1)

    def to_logits(self, boxes: Tensor) -> Tensor:
        return torch.cat([inverse_sigmoid(boxes[..., :4]), boxes[..., 4:5]], dim=-1)

    def at_place(self, numbers: Tensor, place_logits: Tensor) -> Tensor:
        angle = torch.atan2(numbers[..., 5:], numbers[..., 4:5]) / 2
        return torch.cat([numbers[..., :4] + place_logits, angle], dim=-1)

    def position(self, boxes: Tensor) -> Tensor:
        double = 2 * boxes[..., 4:]
        return torch.cat([boxes[..., :4], double.cos(), double.sin()], dim=-1)

    def frames(self, boxes: Tensor, image_size: Tensor) -> Tensor:
        w, h, angle = boxes[..., 2:3], boxes[..., 3:4], boxes[..., 4:5]
        cos, sin = angle.cos(), angle.sin()
        frames = torch.cat([boxes[..., :2], w * cos, w * sin, -h * sin, h * cos], dim=-1)
        return frames * (self.unit(image_size) / image_size).repeat(3)

    def noisy(self, boxes: Tensor, is_far: Tensor, noise: float) -> Tensor:
        sign = torch.randint_like(boxes[..., :5], 0, 2) * 2 - 1
        moved = noise * sign * (torch.rand_like(sign) + is_far[:, None].to(boxes.dtype))
        size = boxes[..., 2:4]
        low, high = size * (moved[..., :2] - 1) / 2, size * (moved[..., 2:4] + 1) / 2
        center = boxes[..., :2] + turned((low + high) / 2, boxes[..., 4])
        angle = boxes[..., 4:5] + TURN * moved[..., 4:]
        return torch.cat([torch.cat([center, (high - low).abs()], dim=-1).clamp(0, 1), angle], dim=-1)

    def costs(self, boxes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        l1, _, divergence = self._compared(boxes, wanted)
        return l1, 2 * divergence

    def losses(self, boxes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        l1, seen, divergence = self._compared(boxes, wanted)
        return l1, 1 - rotated_iou(seen, wanted[..., :5]) + divergence

    def _compared(self, boxes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """L1 distance, boxes as the truth knows them, and the divergence of Gaussians. A turn counts as the
        way that it takes the middles of the sides.
        """
        seen = as_seen(boxes, wanted[..., 5] > 0)
        sides, turn = spelled_near(wanted[..., :5], seen[..., 4])
        l1 = (seen[..., :2] - wanted[..., :2]).abs().sum(-1) + (seen[..., 2:4] - sides).abs().sum(-1)
        divergence = kld_loss(_enlarged(seen), _enlarged(wanted))
        return l1 + turn.abs() * sides.mean(-1), seen, divergence

    def overlaps(self, boxes: Tensor, wanted: Tensor) -> Tensor:
        return rotated_iou(as_seen(boxes, wanted[..., 5] > 0), wanted[..., :5])

    def hulls(self, boxes: Tensor, image_size: Tensor) -> Tensor:
        return to_corners(as_hulls(boxes)[..., :4]) * self.unit(image_size).repeat(2)

    def found(self, boxes: Tensor, image_size: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        pixels = torch.cat([boxes[..., :4] * self.unit(image_size).repeat(2), boxes[..., 4:]], dim=-1)
        return long_edge(pixels), within(pixels, sizes)

    def shifted(self, boxes: Tensor, shifts: Tensor, reg_scale: float) -> Tensor:
        unit, half = boxes[..., 2:4] / reg_scale, reg_scale / 2
        low, high = (half + shifts[..., :2]) * unit, (half + shifts[..., 2:4]) * unit
        center = boxes[..., :2] + turned((high - low) / 2, boxes[..., 4])
        angle = boxes[..., 4:] + shifts[..., 4:] * (math.pi / 2 / reg_scale)
        return torch.cat([center, (low + high).clamp(min=LEAST_SIDE), angle], dim=-1)

    def shifts(self, boxes: Tensor, wanted: Tensor, reg_scale: float) -> tuple[Tensor, Tensor]:
        """A square has no direction to be learnt."""
        unit = boxes[..., 2:4] / reg_scale + 1e-16
        sides, turn = spelled_near(wanted[..., :5], boxes[..., 4])
        along = place_in_boxes(wanted[..., :2], boxes)
        low, high = (sides / 2 - along) / unit, (sides / 2 + along) / unit
        shifts = torch.cat([low, high], dim=-1) - reg_scale / 2
        w2, h2 = wanted[..., 2:4].square().unbind(-1)
        length = ((w2 - h2) / (w2 + h2).clamp(min=1e-12)).abs()
        counts = torch.stack([torch.ones_like(length)] * 4 + [length], dim=-1) * wanted[..., 5:]
        angle = turn[..., None] * (reg_scale / (math.pi / 2))
        return torch.cat([shifts, angle], dim=-1), counts


def _enlarged(boxes: Tensor) -> Tensor:
    """Boxes (..., 5) with lengths in thousandths."""
    return torch.cat([boxes[..., :4] * PIXELS, boxes[..., 4:5]], dim=-1)


UPRIGHT, ORIENTED = UprightSets(), OrientedSets()


def kind_of(boxes: Tensor) -> UprightSets | OrientedSets:
    """What deals with boxes (..., 4 or 5)."""
    return ORIENTED if boxes.shape[-1] == 5 else UPRIGHT
