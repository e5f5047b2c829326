"""Region proposals: where an object of any class could be.

Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, NeurIPS 2015,
section 3.1, on a pyramid (Lin et al., Feature Pyramid Networks, CVPR 2017, section 4.1).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.models.detections import suppress
from boxwright.models.heads.dense import flatten_level
from boxwright.models.regions import OrientedRegions, UprightRegions
from boxwright.models.shapes import is_exporting, size_of


class RPNHead(nn.Module):
    """A convolution of all levels, then whether there is an object and its box, for every anchor.

    Args:
        channels: of the pyramid.
        priors: anchors a location.
        start: numbers of a proposal before anything is learnt.
    """

    def __init__(self, channels: int, priors: int, start: Sequence[float]):
        super().__init__()
        self.box_width = len(start)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, priors, 1)
        self.box = nn.Conv2d(channels, priors * len(start), 1)
        for layer in (self.conv, self.objectness, self.box):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        assert self.box.bias is not None
        with torch.no_grad():
            self.box.bias.copy_(torch.tensor(start).repeat(priors))

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, A) and numbers (B, A, box_width) of boxes, levels side by side."""
        logits, deltas = [], []
        for features in pyramid:
            features = F.relu(self.conv(features), inplace=True)
            logits.append(flatten_level(self.objectness(features), 1)[..., 0])
            deltas.append(flatten_level(self.box(features), self.box_width))
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1)


@torch.no_grad()
def propose(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    level_sizes: list[int],
    limit: Tensor,
    candidates: int,
    count: int,
    iou_threshold: float,
    kind: UprightRegions | OrientedRegions,
) -> tuple[Tensor, Tensor]:
    """The best boxes of each image, thinned out level by level.

    Args:
        logits: (B, A).
        deltas: (B, A, 4 or 6), numbers of boxes.
        anchors: (A, 4) xyxy pixels.
        level_sizes: anchors of each level.
        limit: (1, 2) width and height that boxes are cut to.
        candidates: of each level, before suppression.
        count: of each image, after it.
        iou_threshold: of the suppression, which compares upright hulls.
        kind: of the regions.

    Returns:
        boxes: (B, count, 4 or 5) pixels, best first, zeros where there are fewer.
        mask: (B, count) bool.
    """
    batch = logits.shape[0]
    best, place, level, start = [], [], [], 0
    for n, size in enumerate(level_sizes):
        scores = own = logits[:, start : start + size].float()
        if is_exporting():  # a graph has `candidates` of every level, some of them without a score
            scores = F.pad(scores, (0, candidates), value=-torch.inf)
        values, index = scores.topk(min(candidates, scores.shape[1]), dim=1)
        if is_exporting():
            index = torch.minimum(index, size_of(own)[0].long() - 1)
        best.append(values)
        place.append(index + start)
        level.append(torch.full_like(index, n))
        start = start + size
    scores, index, group = (torch.cat(parts, dim=1) for parts in (best, place, level))  # (B, K)
    numbers = deltas.float().gather(1, index[..., None].expand(-1, -1, deltas.shape[2]))
    boxes = kind.propose(anchors[index], numbers, limit)
    # Numbers that are none make no proposals; the loss has them, and training says so.
    scores = scores.masked_fill(~kind.usable(boxes, limit) | scores.isnan(), -torch.inf)
    boxes = boxes.nan_to_num()
    image = torch.arange(batch, device=scores.device)[:, None].expand_as(group)
    group = group + image * len(level_sizes)
    survivors = suppress(kind.hulls(boxes).flatten(0, 1), scores.flatten(), group.flatten(), iou_threshold)
    return _by_image(boxes, scores, survivors, count)


def _by_image(boxes: Tensor, scores: Tensor, survivors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` survivors of each image, which are places in all images' boxes, best first."""
    batch, each = scores.shape
    image = survivors // each
    own = (torch.arange(batch, device=image.device)[:, None] == image).long()
    rank = (own.cumsum(1) * own).sum(0) - 1  # of each survivor in its image
    kept = (rank < count) & (scores.flatten()[survivors] > -torch.inf)
    # What is left out goes to a place behind the last, which is cut off; a last column says what is there.
    place = torch.where(kept, image * count + rank, batch * count)
    rows = F.pad(boxes.flatten(0, 1)[survivors], (0, 1), value=1.0)
    table = rows.new_zeros(batch * count + 1, rows.shape[1]).index_copy(0, place, rows)
    table = table[:-1].view(batch, count, -1)
    return table[..., :-1], table[..., -1] > 0
