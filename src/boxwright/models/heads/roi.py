"""Region heads: what is in each region of an image, and where exactly."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.models.shapes import size_of

SIDE = 7  # places a side that a region is pooled to
FINEST = 14  # strides: regions of this side and up to twice as large are pooled from the finest level


class RoIHead(nn.Module):
    """Two fully connected layers on a region's features, then its class and box.

    Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017, section 4.2.

    Args:
        channels: of the pyramid.
        num_classes: categories; the background is one more, the last.
        hidden: of the fully connected layers.
        class_agnostic: one box for all classes, in place of one for each.
        box_width: numbers a box.
        heading: whether a region's heading is predicted too.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        hidden: int,
        class_agnostic: bool,
        box_width: int = 4,
        heading: bool = False,
    ):
        super().__init__()
        self.boxes = 1 if class_agnostic else num_classes
        self.fc1 = nn.Linear(channels * SIDE * SIDE, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.cls = nn.Linear(hidden, num_classes + 1)
        self.box = nn.Linear(hidden, self.boxes * box_width)
        self.heading = nn.Linear(hidden, 2) if heading else None
        layers = [(self.cls, 0.01), (self.box, 0.001)] + ([(self.heading, 0.01)] if self.heading else [])
        for layer, deviation in layers:
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Features (B, R, D) to cls_logits (B, R, C + 1), background last, box_deltas (B, R, C or 1,
        box_width), and where it is predicted the cosine and sine of the heading, headings (B, R, 2).
        """
        hidden = F.relu(self.fc1(features), inplace=True)
        hidden = F.relu(self.fc2(hidden), inplace=True)
        outputs = {
            "cls_logits": self.cls(hidden),
            "box_deltas": self.box(hidden).unflatten(-1, (self.boxes, -1)),
        }
        return outputs if self.heading is None else outputs | {"headings": self.heading(hidden)}


class RegionPooling(nn.Module):
    """RoIAlign of each region, upright or oriented, from the level of its size; all images in one call.

    He et al., Mask R-CNN, ICCV 2017, section 3; along a region's angle as Ding et al., Learning RoI
    Transformer, CVPR 2019, section 3.3; levels by Feature Pyramid Networks, equation 1. Each place of a
    region is a weighted sum of the cells around its samples: `embedding_bag` reads whole rows of channels.

    Args:
        strides: of the levels that regions are pooled from, finest first.
        sampling_ratio: samples a place and side.
        aligned: cells are shifted by half of one; False: they aren't, as in torchvision's detectors.
    """

    def __init__(self, strides: tuple[int, ...], sampling_ratio: int, aligned: bool):
        super().__init__()
        self.strides, self.sampling_ratio, self.aligned = strides, sampling_ratio, aligned

    def prepare(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The cells of all levels, (B, N, C), and the height and width of each, (L, 2)."""
        cells = [level.permute(0, 2, 3, 1).flatten(1, 2) for level in pyramid]
        return torch.cat(cells, dim=1).float(), torch.tensor([level.shape[-2:] for level in pyramid])

    def forward(self, prepared: tuple[Tensor, Tensor], boxes: Tensor) -> Tensor:
        """Features (B, R, C * SIDE * SIDE) of boxes (B, R, 4) xyxy or (B, R, 5) cx, cy, w, h, angle."""
        boxes = boxes.nan_to_num()  # of a stage whose loss has the NaN; a NaN is no place
        cells, sizes = prepared[0], prepared[1].to(boxes.device)
        batch, count = cells.shape[:2]
        rotated = as_rotated(boxes)
        level, stride = levels_of(rotated, self.strides)
        if not self.aligned:
            rotated = _at_least_a_cell(rotated, stride)
        samples = sample_places(rotated, stride, self.sampling_ratio)  # (B, R, P, S, 2)
        index, weight = _cells_around(samples - 0.5 * self.aligned, sizes[level].flip(-1))
        first = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]])[level]
        first = first + torch.arange(batch, device=boxes.device)[:, None] * count
        rows = (index + first[..., None, None]).flatten(0, 2)  # (B * R * P, 4 * S)
        pooled = F.embedding_bag(
            rows, cells.flatten(0, 1), mode="sum", per_sample_weights=weight.flatten(0, 2)
        )
        return pooled.view(*boxes.shape[:2], SIDE * SIDE, -1).transpose(2, 3).flatten(2)


class SheetPooling(nn.Module):
    """The same by torchvision's RoIAlign, for ONNX, which has an operator of it, and for regions with as many
    samples as there are cells. Oriented regions are read by `grid_sample`.

    Levels lie below each other on one sheet, each with its border repeated around it, so that no region has
    to be sorted by its level, which would wait for the device. Upright regions must lie in the image.

    Args:
        strides: of the levels that regions are pooled from, finest first.
        sampling_ratio: samples a place and side; 0: as many as there are cells.
        aligned: cells are shifted by half of one; False: they aren't, as in torchvision's detectors.
    """

    def __init__(self, strides: tuple[int, ...], sampling_ratio: int, aligned: bool):
        super().__init__()
        self.strides, self.sampling_ratio, self.aligned = strides, sampling_ratio, aligned

    def prepare(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The levels on one sheet (B, C, H, W), and of each (L, 4) x and y of its first cell there, width and
        height.
        """
        width = pyramid[0].shape[-1]
        rows = [F.pad(level, (1, 1, 1, 1), mode="replicate") for level in pyramid]
        rows = [F.pad(row, (0, width - level.shape[-1])) for row, level in zip(rows, pyramid)]
        sizes = torch.stack([size_of(level) for level in pyramid])
        below = sizes[:, 1] + 2
        corners = torch.stack([torch.ones_like(below), below.cumsum(0) - below + 1], dim=1)
        return torch.cat(rows, dim=-2).float(), torch.cat([corners, sizes], dim=1)

    def forward(self, prepared: tuple[Tensor, Tensor], boxes: Tensor) -> Tensor:
        """Features (B, R, C * SIDE * SIDE) of boxes (B, R, 4) xyxy or (B, R, 5) cx, cy, w, h, angle."""
        boxes = boxes.nan_to_num()  # as above
        sheet, placed = prepared[0], prepared[1].to(boxes.device)
        level, stride = levels_of(as_rotated(boxes), self.strides)
        if boxes.shape[-1] == 5:
            return self._along_angles(sheet, placed[level], boxes, stride)
        from torchvision.ops import roi_align  # a second of imports, which a wrong key's message doesn't need

        on_sheet = boxes / stride + placed[level][..., :2].repeat(1, 1, 2)
        batch, count = boxes.shape[:2]
        image = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)[:, None, None].expand(
            -1, count, 1
        )
        rows = torch.cat([image, on_sheet], dim=-1).flatten(0, 1)
        pooled = roi_align(sheet, rows, SIDE, 1.0, self.sampling_ratio, self.aligned)
        return pooled.view(batch, count, -1)

    def _along_angles(self, sheet: Tensor, placed: Tensor, boxes: Tensor, stride: Tensor) -> Tensor:
        boxes = boxes if self.aligned else _at_least_a_cell(boxes, stride)
        places = sample_places(boxes, stride, self.sampling_ratio) + 0.5 * (not self.aligned)
        size = placed[:, :, None, None, 2:]
        # Beyond the margin nothing is read; within it, the border.
        inside = ((places >= -0.5) & (places <= size + 0.5)).all(-1)  # (B, R, P, S)
        on_sheet = torch.minimum(places.clamp(min=-0.5), size + 0.5) + placed[:, :, None, None, :2]
        extent = size_of(sheet)
        sampled = F.grid_sample(sheet, (on_sheet / extent * 2 - 1).flatten(2, 3), align_corners=False)
        pooled = (sampled.unflatten(3, inside.shape[2:]) * inside[:, None]).mean(dim=4)  # (B, C, R, P)
        return pooled.transpose(1, 2).flatten(2)


def as_rotated(boxes: Tensor) -> Tensor:
    """Upright boxes (..., 4) xyxy as (..., 5) cx, cy, w, h, angle; oriented ones as they are."""
    if boxes.shape[-1] == 5:
        return boxes
    sides = boxes[..., 2:] - boxes[..., :2]
    return torch.cat([boxes[..., :2] + sides / 2, sides, torch.zeros_like(sides[..., :1])], dim=-1)


def levels_of(boxes: Tensor, strides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The level of each box (B, R, 5) by its area, (B, R) int64, and its stride, (B, R, 1)."""
    side = boxes[..., 2:4].prod(-1).clamp(min=0).sqrt()
    level = torch.log2(side / (FINEST * strides[0]) + 1e-6).floor().clamp(0, len(strides) - 1).long()
    return level, torch.tensor(strides, dtype=boxes.dtype).to(boxes.device)[level][..., None]


def sample_places(boxes: Tensor, stride: Tensor, ratio: int) -> Tensor:
    """Where boxes (B, R, 5) are read, in cells of levels of `stride` (B, R, 1): x and y of the `ratio` x
    `ratio` samples of each of SIDE x SIDE places, row by row, (B, R, SIDE * SIDE, ratio * ratio, 2).
    """
    center, sides = boxes[..., :2] / stride, boxes[..., 2:4] / stride
    count = SIDE * ratio
    steps = (torch.arange(count, device=boxes.device, dtype=boxes.dtype) + 0.5) / count - 0.5
    steps = steps.view(SIDE, ratio)
    across, along = steps[:, None, :, None], steps[None, :, None, :]  # rows, columns
    x = (along * sides[..., 0, None, None, None, None]).expand(-1, -1, SIDE, -1, ratio, -1)
    y = (across * sides[..., 1, None, None, None, None]).expand(-1, -1, -1, SIDE, -1, ratio)
    cos, sin = (f(boxes[..., 4])[..., None, None, None, None] for f in (torch.cos, torch.sin))
    places = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
    return places.flatten(4, 5).flatten(2, 3) + center[..., None, None, :]


def _at_least_a_cell(boxes: Tensor, stride: Tensor) -> Tensor:
    """Boxes (B, R, 5) no side of which is shorter than a cell, for all that their first corner stays: so has
    RoIAlign it where cells aren't shifted.
    """
    sides = torch.maximum(boxes[..., 2:4], stride)
    x, y = ((sides - boxes[..., 2:4]) / 2).unbind(-1)
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    center = boxes[..., :2] + torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
    return torch.cat([center, sides, boxes[..., 4:]], dim=-1)


def _cells_around(places: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The four cells around each of the samples (B, R, P, S, 2) of a place, and how much of the place's mean
    each is, both (B, R, P, 4 * S). Cells are counted row by row in levels of `sizes` (B, R, 2), width first.

    A sample beyond the border by up to a cell reads the border, one farther nothing, as RoIAlign has it.
    """
    last = (sizes - 1)[:, :, None, None].to(places.dtype)
    inside = ((places >= -1) & (places <= last + 1)).all(-1)
    places = torch.minimum(places.clamp(min=0), last)
    low = places.floor()
    share = places - low
    low, high = low.long(), torch.minimum(low + 1, last).long()
    width = sizes[:, :, None, None, 0]
    index, weight = [], []
    for y, down in ((low[..., 1], 1 - share[..., 1]), (high[..., 1], share[..., 1])):
        for x, right in ((low[..., 0], 1 - share[..., 0]), (high[..., 0], share[..., 0])):
            index.append(y * width + x)
            weight.append(down * right * inside)
    return torch.cat(index, dim=-1), torch.cat(weight, dim=-1) / places.shape[3]
