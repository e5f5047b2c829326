"""Boxes as deltas from anchors.

Girshick et al., Rich Feature Hierarchies, CVPR 2014, appendix C.
"""

import math

import torch
from torch import Tensor

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
