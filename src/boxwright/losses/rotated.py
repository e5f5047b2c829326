"""Losses on oriented boxes (..., 5) cx, cy, w, h, angle, one value a box: nothing is summed here.

The probabilistic ones take a box for a Gaussian and compare Gaussians: smooth where the IoU has no gradient
(disjoint boxes), and the same for all spellings of a rectangle. A Gaussian's deviations along the box's sides
are w and h times a factor that cancels in the comparison but for ProbIoU's and the distances' weights.
"""

import torch
from torch import Tensor

from boxwright.geometry.torch_rotated import rotated_iou

LEAST_SIDE = 1e-2  # px: thinner boxes have no Gaussian
EPS = 1e-6


def rotated_iou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - IoU of the rectangles; (...)."""
    return 1 - rotated_iou(boxes, gt_boxes)


def gwd_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """Gaussian Wasserstein distance d, as 1 - 1 / (1 + log(1 + d^2 / wh)), w and h the truth's sides; (...).

    Yang et al., Rethinking Rotated Object Detection with Gaussian Wasserstein Distance Loss, ICML 2021,
    equations 3 to 8; there d is in pixels, which makes a loss of size.
    """
    p, t = _Gaussian(boxes), _Gaussian(gt_boxes)
    roots = p.area * t.area / 16  # of the product of the determinants
    cross = (_product_trace(p, t) + 2 * roots).clamp(min=EPS).sqrt()
    distance = _gap(p, t).square().sum(-1) + p.trace + t.trace - 2 * cross
    return 1 - 1 / (1 + torch.log1p(distance.clamp(min=0) / t.area))


def kld_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the boxes from the truth, as 1 - 1 / (1 + log(1 + d)); (...).

    Yang et al., Learning High-Precision Bounding Box for Rotated Object Detection via Kullback-Leibler
    Divergence, NeurIPS 2021, equations 3 and 11.
    """
    p, t = _Gaussian(boxes), _Gaussian(gt_boxes)
    along = _turn(_gap(p, t), t)
    mahalanobis = along[..., 0].square() / t.along + along[..., 1].square() / t.across
    spread = _inverse_product_trace(p, t)
    divergence = (mahalanobis + spread + 2 * torch.log(t.area / p.area)) / 2 - 1
    return 1 - 1 / (1 + torch.log1p(divergence.clamp(min=0)))


def prob_iou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """Hellinger distance of boxes as uniform densities' Gaussians, in [0, 1]; (...).

    Llerena et al., Gaussian Bounding Boxes and Probabilistic Intersection-over-Union, 2021, equations 8-13.
    """
    p, t = _Gaussian(boxes, 12.0), _Gaussian(gt_boxes, 12.0)
    a, b, c = ((x + y) / 2 for x, y in zip(p.matrix, t.matrix))
    determinant = (a * b - c.square()).clamp(min=EPS * EPS)
    dx, dy = _gap(p, t).unbind(-1)
    far = (b * dx.square() + a * dy.square() - 2 * c * dx * dy) / determinant / 8
    unlike = torch.log(determinant / (p.area * t.area / 144).clamp(min=EPS * EPS)) / 2
    return (1 - torch.exp(-(far + unlike).clamp(min=0, max=100))).clamp(min=EPS).sqrt()


class _Gaussian:
    """Of boxes: variances along and across the angle, w^2 / `divisor` and h^2 / `divisor`."""

    def __init__(self, boxes: Tensor, divisor: float = 4.0):
        boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
        sides = boxes[..., 2:4].clamp(min=LEAST_SIDE)
        self.center, self.area = boxes[..., :2], sides.prod(-1)
        self.along, self.across = (sides.square() / divisor).unbind(-1)
        self.cos, self.sin = boxes[..., 4].cos(), boxes[..., 4].sin()
        self.trace = self.along + self.across

    @property
    def matrix(self) -> tuple[Tensor, Tensor, Tensor]:
        """The covariance's xx, yy and xy."""
        cc, ss, cs = self.cos.square(), self.sin.square(), self.cos * self.sin
        xx, yy = self.along * cc + self.across * ss, self.along * ss + self.across * cc
        return xx, yy, (self.along - self.across) * cs


def _gap(p: _Gaussian, t: _Gaussian) -> Tensor:
    return p.center - t.center


def _turn(vectors: Tensor, t: _Gaussian) -> Tensor:
    """Vectors (..., 2) along and across the angle of `t`."""
    x, y = vectors.unbind(-1)
    return torch.stack([t.cos * x + t.sin * y, t.cos * y - t.sin * x], dim=-1)


def _product_trace(p: _Gaussian, t: _Gaussian) -> Tensor:
    """Trace of the product of both covariances."""
    same = (p.cos * t.cos + p.sin * t.sin).square()
    return same * (p.along * t.along + p.across * t.across) + (1 - same) * (
        p.along * t.across + p.across * t.along
    )


def _inverse_product_trace(p: _Gaussian, t: _Gaussian) -> Tensor:
    """Trace of the inverse of the covariance of `t` times that of `p`."""
    same = (p.cos * t.cos + p.sin * t.sin).square()
    return same * (p.along / t.along + p.across / t.across) + (1 - same) * (
        p.along / t.across + p.across / t.along
    )
