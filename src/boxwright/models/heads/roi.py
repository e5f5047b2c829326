"""Region heads: what is in each region of an image, and where exactly."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    """RoIAlign of each region from the level of its size, all levels and images in one call.

    He et al., Mask R-CNN, ICCV 2017, section 3; levels by Feature Pyramid Networks, equation 1. Levels lie on
    one sheet, each with its border repeated around it, so that no region has to be sorted by its level, which
    would wait for the device.

    Args:
        strides: of the levels that regions are pooled from, finest first.
        sampling_ratio: samples a place and side; 0: as many as there are cells.
        aligned: cells are shifted by half of one; False: they aren't, as in torchvision's detectors.
    """

    def __init__(self, strides: tuple[int, ...], sampling_ratio: int, aligned: bool):
        super().__init__()
        self.strides, self.sampling_ratio, self.aligned = strides, sampling_ratio, aligned

    def sheet(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The levels on one sheet (B, C, H, W), and (L, 2) the x and y of each one's first cell there."""
        first, *others = (F.pad(level, (1, 1, 1, 1), mode="replicate") for level in pyramid)
        width, corners, y = first.shape[-1], [(1, 1)], 1
        for level in others:
            corners.append((width + 1, y))
            y += level.shape[-2]
        columns = [first]
        if others:
            broad = [F.pad(level, (0, others[0].shape[-1] - level.shape[-1])) for level in others]
            columns.append(torch.cat(broad, dim=-2))
        height = max(column.shape[-2] for column in columns)
        columns = [F.pad(column, (0, 0, 0, height - column.shape[-2])) for column in columns]
        return torch.cat(columns, dim=-1), torch.tensor(corners, dtype=torch.float32)

    def levels(self, area: Tensor, sheet: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Of the level of each region, by its area (B, R), the stride (B, R, 1) and the corner (B, R, 2)."""
        strides = torch.tensor(self.strides, dtype=torch.float32).to(area.device)
        level = torch.log2(area.clamp(min=0).sqrt() / (FINEST * self.strides[0]) + 1e-6).floor()
        level = level.clamp(0, len(self.strides) - 1).long()
        return strides[level][..., None], sheet[1].to(area.device)[level]

    def forward(self, sheet: tuple[Tensor, Tensor], boxes: Tensor) -> Tensor:
        """Features (B, R, C * SIDE * SIDE) of boxes (B, R, 4) xyxy pixels."""
        from torchvision.ops import roi_align  # a second of imports, which a wrong key's message doesn't need

        features = sheet[0]
        stride, corner = self.levels((boxes[..., 2:] - boxes[..., :2]).prod(-1), sheet)
        placed = boxes / stride + corner.repeat(1, 1, 2)
        batch, count = boxes.shape[:2]
        image = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)[:, None, None].expand(
            -1, count, 1
        )
        rows = torch.cat([image, placed], dim=-1).flatten(0, 1)
        pooled = roi_align(features.float(), rows, SIDE, 1.0, self.sampling_ratio, self.aligned)
        return pooled.view(batch, count, -1)


class RotatedRegionPooling(RegionPooling):
    """The same of oriented regions (Ding et al., Learning RoI Transformer, CVPR 2019, section 3.3): samples
    lie along the region's angle and are read by `grid_sample`, so that nothing has to be compiled.
    """

    def forward(self, sheet: tuple[Tensor, Tensor], boxes: Tensor) -> Tensor:
        """Features (B, R, C * SIDE * SIDE) of boxes (B, R, 5) cx, cy, w, h, angle; pixels."""
        features, count = sheet[0].float(), SIDE * self.sampling_ratio
        stride, corner = self.levels(boxes[..., 2] * boxes[..., 3], sheet)
        center, sides = boxes[..., :2] / stride + corner, boxes[..., 2:4] / stride
        steps = (torch.arange(count, device=boxes.device, dtype=boxes.dtype) + 0.5) / count - 0.5
        across, along = torch.meshgrid(steps, steps, indexing="ij")
        x, y = along.flatten() * sides[..., :1], across.flatten() * sides[..., 1:]  # (B, R, S)
        cos, sin = boxes[..., 4:].cos(), boxes[..., 4:].sin()
        points = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1) + center[..., None, :]
        if not self.aligned:
            points = points + 0.5
        extent = points.new_tensor([features.shape[-1], features.shape[-2]])
        sampled = F.grid_sample(features, points / extent * 2 - 1, align_corners=False)  # (B, C, R, S)
        places = sampled.unflatten(-1, (SIDE, self.sampling_ratio, SIDE, self.sampling_ratio))
        return places.mean(dim=(4, 6)).transpose(1, 2).flatten(2)
