"""Points and anchors: where predictions start from. Levels are concatenated, finest first."""

from collections.abc import Sequence

import torch
from torch import Tensor


def make_points(
    sizes: list[tuple[int, int]], strides: tuple[int, ...], like: Tensor, offset: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Centres of the cells of every level.

    Args:
        sizes: (height, width) of each level's features.
        strides: pixels a cell.
        like: gives the device.
        offset: of the points from their cells' corners, in cells.

    Returns:
        points: (P, 2) x, y in pixels, row by row.
        point_strides: (P,).
    """
    points, point_strides = [], []
    for (height, width), stride in zip(sizes, strides):
        y = (torch.arange(height, device=like.device, dtype=torch.float32) + offset) * stride
        x = (torch.arange(width, device=like.device, dtype=torch.float32) + offset) * stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack([grid_x, grid_y], dim=-1).view(-1, 2))
        point_strides.append(torch.full((height * width,), float(stride), device=like.device))
    return torch.cat(points), torch.cat(point_strides)


def make_level_sizes(sizes: list[tuple[int, int]], count: int = 1) -> Tensor:
    """(L,) int64 priors of each level, `count` a location; on the CPU, so that reading it never waits."""
    return torch.tensor([height * width * count for height, width in sizes])


def make_base_anchors(
    stride: int, base_scale: float, scales: Sequence[float], ratios: Sequence[float], rounded: bool = False
) -> Tensor:
    """Anchors around the origin, ratio by ratio, scales within; (len(ratios) * len(scales), 4) xyxy.

    Args:
        stride: of the level.
        base_scale: side of the anchor of scale 1 in strides.
        scales: factors on the side.
        ratios: height over width, at equal area.
        rounded: sides before the ratio, and corners, are whole pixels, as torchvision has them.
    """
    root = torch.tensor(ratios).sqrt()
    side = stride * base_scale * torch.tensor(scales)
    if rounded:
        side = side.floor()
    width = (side / root[:, None]).view(-1)
    height = (side * root[:, None]).view(-1)
    anchors = torch.stack([-width, -height, width, height], dim=-1) / 2
    return anchors.round() if rounded else anchors


def make_anchors(
    sizes: list[tuple[int, int]],
    strides: tuple[float, ...],
    base_anchors: list[Tensor],
    offset: float = 0.0,
) -> Tensor:
    """Anchors of every level, (A, 4) xyxy pixels; those of one location stand together.

    Args:
        sizes: (height, width) of each level's features.
        strides: pixels a cell.
        base_anchors: (K, 4) of each level.
        offset: of the centres from the cells' corners, in cells. 0 as RetinaNet's originals have it.
    """
    anchors = []
    for (height, width), stride, base in zip(sizes, strides, base_anchors):
        y = (torch.arange(height, device=base.device, dtype=torch.float32) + offset) * stride
        x = (torch.arange(width, device=base.device, dtype=torch.float32) + offset) * stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centers = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1).view(-1, 1, 4)
        anchors.append((centers + base).view(-1, 4))
    return torch.cat(anchors)
