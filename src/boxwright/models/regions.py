"""What a two-stage detector does with its regions, upright or oriented: one class each, of the same methods.

Regions are (..., 4) xyxy or (..., 5) cx, cy, w, h, angle; pixels.
"""

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND, Assignment
from boxwright.assign.max_iou import covered, max_iou_assign
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import clip_boxes
from boxwright.geometry.torch_rotated import as_hulls, as_seen, rotated_iou
from boxwright.losses.box import smooth_l1_loss
from boxwright.models.box_coder import (
    UPRIGHT,
    decode_deltas,
    decode_midpoints,
    decode_rotated_deltas,
    encode_deltas,
    encode_midpoints,
    encode_rotated_deltas,
)
from boxwright.models.oriented import long_edge, within
from boxwright.models.points import rotated_of_points, targets_of_points

IGNORED_SHARE = 0.5  # of a region inside an ignore region, from which it doesn't count


class UprightRegions:
    """Regions as Faster R-CNN has them; a delta has `delta_width` numbers, `start` are those of a proposal
    before anything is learnt.
    """

    oriented = False
    delta_width = 4
    start = (0.0, 0.0, 0.0, 0.0)

    def propose(self, anchors: Tensor, numbers: Tensor, limit: Tensor) -> Tensor:
        """Proposals (B, N, 4) of anchors (B, N, 4), cut to images of `limit` (1, 2), width and height."""
        return clip_boxes(decode_deltas(anchors, numbers), limit)

    def hulls(self, regions: Tensor) -> Tensor:
        """Upright hulls, xyxy."""
        return regions

    def usable(self, regions: Tensor, limit: Tensor) -> Tensor:
        """(B, N) bool: a box that was clipped to nothing is no proposal."""
        return (regions[..., 2:] > regions[..., :2]).all(-1)

    def truth(self, targets: Targets) -> Tensor:
        """(B, G, 4)."""
        return targets.boxes

    def assign(self, regions: Tensor, targets: Targets, least: float) -> Assignment:
        """Each region's (B, R, 4) box by IoU, from `least` on."""
        ignore = targets.ignore if targets.any_ignored else None
        return max_iou_assign(regions, targets.boxes, targets.mask, ignore, least, least, low_quality=False)

    def proposal_loss(
        self, numbers: Tensor, anchors: Tensor, matched_gt: Tensor, targets: Targets, beta: float
    ) -> Tensor:
        """(B, A) smooth L1 of the numbers (B, A, 4) of proposals; of background whatever it is."""
        _, gt_boxes, _ = targets_of_points(matched_gt, targets)
        return smooth_l1_loss(numbers, encode_deltas(anchors, gt_boxes), beta)

    def region_loss(
        self,
        deltas: Tensor,
        regions: Tensor,
        matched_gt: Tensor,
        targets: Targets,
        deviations: Tensor,
        beta: float,
    ) -> Tensor:
        """(B, R) smooth L1 of the deltas (B, R, 4) of regions; of background whatever it is."""
        _, gt_boxes, _ = targets_of_points(matched_gt, targets)
        return smooth_l1_loss(deltas, encode_deltas(regions, gt_boxes) / deviations, beta)

    def refine(self, regions: Tensor, deltas: Tensor, limit: Tensor) -> Tensor:
        """Regions (B, R, 4) moved by deltas, cut to images of `limit` (B or 1, 2)."""
        return clip_boxes(decode_deltas(regions, deltas), limit)

    def inside(self, regions: Tensor, image_sizes: Tensor) -> Tensor:
        """What scores are multiplied by: an upright region was cut to its image."""
        return regions.new_ones(())


class OrientedRegions:
    """Regions as Oriented R-CNN has them: proposals are parallelograms in an upright box.

    Xie et al., Oriented R-CNN for Object Detection, ICCV 2021; but proposals start upright, not on their
    corner, and for the loss of midpoints see `midpoint_loss`. Boxes whose angle isn't known teach by their
    hulls alone.
    """

    oriented = True
    delta_width = 5
    start = (0.0, 0.0, 0.0, 0.0, UPRIGHT, UPRIGHT)

    def propose(self, anchors: Tensor, numbers: Tensor, limit: Tensor) -> Tensor:
        """Proposals (B, N, 5) of anchors (B, N, 4)."""
        return long_edge(decode_midpoints(anchors, numbers))

    def hulls(self, regions: Tensor) -> Tensor:
        """Upright hulls, xyxy."""
        hulls = as_hulls(regions)
        half = hulls[..., 2:4] / 2
        return torch.cat([hulls[..., :2] - half, hulls[..., :2] + half], dim=-1)

    def usable(self, regions: Tensor, limit: Tensor) -> Tensor:
        """(B, N) bool: a region has sides, and its centre lies in the image."""
        return (regions[..., 2:4] > 0).all(-1) & within(regions, limit)[..., 0]

    def truth(self, targets: Targets) -> Tensor:
        """(B, G, 5)."""
        return targets.rotated

    def assign(self, regions: Tensor, targets: Targets, least: float) -> Assignment:
        """Each region's (B, R, 5) box by rotated IoU, from `least` on."""
        if targets.boxes.shape[1] == 0:
            none = torch.full(regions.shape[:2], BACKGROUND, device=regions.device)
            return Assignment(none, torch.zeros_like(none, dtype=torch.bool))
        seen = as_seen(regions[:, None], targets.oriented[:, :, None])  # (B, G, R, 5)
        iou = rotated_iou(seen, targets.rotated[:, :, None]) * targets.mask[..., None]
        best, matched_gt = iou.max(dim=1)
        positive = best >= least
        ignored = torch.zeros_like(positive)
        if targets.any_ignored:
            hulls = self.hulls(regions)
            ignored = ~positive & covered(hulls, targets.boxes, targets.ignore, IGNORED_SHARE)
        return Assignment(torch.where(positive, matched_gt, BACKGROUND), ignored)

    def proposal_loss(
        self, numbers: Tensor, anchors: Tensor, matched_gt: Tensor, targets: Targets, beta: float
    ) -> Tensor:
        """(B, A) smooth L1 of the numbers (B, A, 6) of proposals; of background whatever it is."""
        gt_boxes, gt_oriented, _ = rotated_of_points(matched_gt, targets)
        hull = smooth_l1_loss(numbers[..., :4], encode_deltas(anchors, self.hulls(gt_boxes)), beta)
        middle = midpoint_loss(numbers[..., 4:], encode_midpoints(gt_boxes), beta)
        return hull + torch.where(gt_oriented, middle, 0.0)

    def region_loss(
        self,
        deltas: Tensor,
        regions: Tensor,
        matched_gt: Tensor,
        targets: Targets,
        deviations: Tensor,
        beta: float,
    ) -> Tensor:
        """(B, R) smooth L1 of the deltas (B, R, 5) of regions; of background whatever it is. Of the truth's
        spellings the nearer one counts: turned by an eighth either way, a box would else be drawn to neither.
        """
        gt_boxes, gt_oriented, _ = rotated_of_points(matched_gt, targets)
        wanted = encode_rotated_deltas(regions, gt_boxes) / deviations
        whole = smooth_l1_loss(deltas[..., None, :], wanted, beta).amin(-1)
        start = self.hulls(regions)
        ours = encode_deltas(start, self.hulls(decode_rotated_deltas(regions, deltas * deviations)))
        theirs = encode_deltas(start, self.hulls(gt_boxes))
        hull = smooth_l1_loss(ours / deviations[:4], theirs / deviations[:4], beta)
        return torch.where(gt_oriented, whole, hull)

    def refine(self, regions: Tensor, deltas: Tensor, limit: Tensor) -> Tensor:
        """Regions (B, R, 5) moved by deltas, the width the longer side."""
        return long_edge(decode_rotated_deltas(regions, deltas))

    def inside(self, regions: Tensor, image_sizes: Tensor) -> Tensor:
        """What scores are multiplied by: whether a region's centre lies in its image, (B, R, 1)."""
        return within(regions, image_sizes)


def midpoint_loss(numbers: Tensor, wanted: Tensor, beta: float) -> Tensor:
    """Smooth L1 of the shifts of midpoints (..., 2), by the shorter of two ways; (...).

    An upright box touches its hull at the upper corners, or as well at the lower ones: a box that is turned a
    little one way has shifts near the ones, turned the other way near the others. Learnt as if they were far
    apart, boxes of both kinds are drawn to the middle between, a square on its corner. So the two are taken
    for one point, and the way through it counts too.
    """
    direct = smooth_l1_loss(numbers, wanted, beta)
    through = []
    for near in (UPRIGHT, -UPRIGHT):
        upright = torch.full_like(numbers, near)
        through.append(smooth_l1_loss(numbers, upright, beta) + smooth_l1_loss(-upright, wanted, beta))
    return torch.minimum(direct, torch.minimum(*through))
