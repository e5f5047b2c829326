"""Label assigners: which anchor or point is assigned to which box. One file each.

Each is a function over padded batches: boxes (B, G, 4) xyxy pixels, `gt_mask` (B, G) False where padded or
an ignore region. Each gives `matched_gt` (B, P) int64: the index of the box that a prior is assigned to, or
`BACKGROUND`.
"""

from typing import NamedTuple

from torch import Tensor

BACKGROUND = -1


class Assignment(NamedTuple):
    """Of an assigner that knows priors which count neither way."""

    matched_gt: Tensor  # (B, A) int64, -1 for background and for ignored
    ignored: Tensor  # (B, A) bool: neither positive nor negative
