"""Non-maximum suppression of upright boxes on devices that do one thing after another slowly."""

import torch
from torch import Tensor

from boxwright.geometry.torch_boxes import pairwise_iou

PAIRS = 1 << 26  # whose overlaps are held at a time; in float32 a quarter of a gibibyte
PASSES = 8  # between two looks at whether anything still changes, each of which waits for the device


def grouped_nms(boxes: Tensor, scores: Tensor, group: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression within each group, all boxes of all groups at once.

    A box stays unless a better one that stays lies on it. Which ones stay is found by taking that sentence as
    an assignment: from all boxes, each pass strikes those that lie on a better one not struck. After n passes
    the n best of a group are right whatever the others are, so what a pass leaves alone is what greedy
    suppression keeps; real boxes need about ten passes where one after the other needs thousands of steps.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,); of equal ones the first is the better.
        group: (N,) int64, from 0.
        iou_threshold: a box goes when its IoU with a better one is above it.

    Returns:
        Places that stay, best first.
    """
    by_score = scores.argsort(descending=True, stable=True)
    counts = group.bincount()
    # Groups of about one size lie side by side, so that the narrow ones aren't padded to the widest.
    by_size = counts.argsort(descending=True)
    rank = torch.empty_like(by_size)
    rank[by_size] = torch.arange(len(by_size), device=rank.device)
    order = by_score[rank[group[by_score]].argsort(stable=True)]
    sizes: list[int] = counts[by_size].tolist()
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    row = start = 0
    while row < len(sizes) and sizes[row] > 0:
        rows = max(1, PAIRS // sizes[row] ** 2)
        part = sizes[row : row + rows]
        places = order[start : start + sum(part)]
        inside = torch.arange(part[0], device=boxes.device) < counts[by_size[row : row + rows], None]
        table = boxes.new_zeros(*inside.shape, 4)
        table[inside] = boxes[places]
        kept[places] = _stay(table, iou_threshold)[inside]
        row, start = row + rows, start + sum(part)
    return by_score[kept[by_score]]


def _stay(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Which of boxes (G, M, 4), best first, stay in their group, (G, M) bool. Empty boxes touch nothing."""
    on_better = (pairwise_iou(boxes, boxes) > iou_threshold).triu_(1)
    # As numbers, since products of matrices are what the device does best.
    on_better = on_better.to(torch.float16 if boxes.is_cuda else torch.float32)
    kept = on_better.new_ones(len(boxes), 1, boxes.shape[1])
    while True:
        for _ in range(PASSES):
            before, kept = kept, (kept @ on_better == 0).to(kept.dtype)
        if torch.equal(before, kept):
            return kept[:, 0] > 0
