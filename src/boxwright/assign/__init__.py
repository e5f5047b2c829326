"""Label assigners: which anchor or point answers for which box. One file each.

Each is a function over padded batches: boxes (B, G, 4) xyxy pixels, `gt_mask` (B, G) False where padded or
an ignore region. Each gives `matched_gt` (B, P) int64: the index of the box that a prior answers for, or
`BACKGROUND`.
"""

BACKGROUND = -1
