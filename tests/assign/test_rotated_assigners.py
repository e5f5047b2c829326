"""Assigners of oriented boxes: as the upright ones where nothing is oriented, and small cases by hand."""

import numpy as np
import pytest
import torch

from boxwright.assign.atss import atss_assign
from boxwright.assign.fcos import fcos_assign
from boxwright.assign.rotated import (
    is_inside,
    rotated_atss_assign,
    rotated_fcos_assign,
    rotated_task_aligned_assign,
)
from boxwright.models.priors import make_points

SIZES, STRIDES = [(16, 16), (8, 8), (4, 4)], (8, 16, 32)
LEVELS = [h * w for h, w in SIZES]
POINTS, POINT_STRIDES = make_points(SIZES, STRIDES, torch.zeros(1))


def upright(count: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    start, sides = rng.uniform(0, 90, (1, count, 2)), rng.uniform(6, 50, (1, count, 2))
    return torch.tensor(np.concatenate([start, start + sides], axis=2), dtype=torch.float32)


def as_rotated(boxes: torch.Tensor, angle: float = 0.0) -> torch.Tensor:
    sides = boxes[..., 2:] - boxes[..., :2]
    return torch.cat([boxes[..., :2] + sides / 2, sides, torch.full_like(sides[..., :1], angle)], dim=-1)


@pytest.mark.parametrize("seed", range(5))
def test_upright_boxes_are_assigned_as_ever(seed):
    boxes = upright(12, seed)
    mask = torch.arange(12)[None] < 10
    ends = torch.tensor([[-1.0, 32], [32, 64], [64, 1e8]])
    ranges = torch.cat([r.expand(n, 2) for r, n in zip(ends, LEVELS)])
    own = fcos_assign(POINTS, POINT_STRIDES, ranges, boxes, mask)
    assert torch.equal(own, rotated_fcos_assign(POINTS, POINT_STRIDES, ranges, as_rotated(boxes), mask))
    half = POINT_STRIDES[:, None] * 2
    anchors = torch.cat([POINTS - half, POINTS + half], dim=1)
    own = atss_assign(anchors, LEVELS, boxes, mask)
    found = rotated_atss_assign(POINTS, POINT_STRIDES * 4, LEVELS, as_rotated(boxes), mask)
    assert (own == found).float().mean() > 0.995  # an IoU at its threshold may fall either way


def test_a_long_box_has_its_points_along_its_angle():
    box = torch.tensor([[[64.0, 64, 90, 10, np.pi / 4]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    ranges = torch.tensor([[-1.0, 1e8]]).expand(len(POINTS), 2)
    matched = rotated_fcos_assign(POINTS, POINT_STRIDES, ranges, box, mask, radius=0)[0]
    inside = POINTS[matched == 0]
    assert len(inside) >= 8
    assert (inside[:, 0] - inside[:, 1]).abs().max() < 8
    assert rotated_fcos_assign(POINTS, POINT_STRIDES, ranges, box, ~mask).max() == -1


def task_aligned(gt: torch.Tensor, oriented: torch.Tensor, predicted: torch.Tensor, scores: float = 0.5):
    batch, groups, _ = gt.shape
    return rotated_task_aligned_assign(
        torch.full((batch, len(POINTS), 2), scores), predicted, POINTS, POINT_STRIDES, LEVELS, gt, oriented,
        torch.zeros(batch, groups, dtype=torch.long), torch.ones(batch, groups, dtype=torch.bool),
    )  # fmt: skip


def test_points_that_predict_the_box_answer_for_it():
    gt = torch.tensor([[[60.0, 60, 40, 12, 0.6], [100, 30, 20, 20, 0.0]]])
    predicted = gt[:, :1].expand(1, len(POINTS), 5).clone()
    far = (POINTS - 100).abs().sum(1) < 90
    predicted[0, far] = gt[0, 1]
    assigned = task_aligned(gt, torch.ones(1, 2, dtype=torch.bool), predicted)
    first = assigned.matched_gt[0] == 0
    assert first.any()
    assert is_inside(POINTS[first], POINT_STRIDES[first], POINT_STRIDES[0], gt[0, 0]).all()
    assert assigned.quality[0, first].max() == pytest.approx(1, abs=1e-4)
    assert (assigned.quality[assigned.matched_gt < 0] == 0).all()


def test_of_a_box_without_an_angle_the_hull_is_compared():
    oriented = torch.tensor([[[60.0, 60, 40, 12, 0.6]]])
    cos, sin = np.cos(0.6), np.sin(0.6)
    hull = torch.tensor([[[60.0, 60, 40 * cos + 12 * sin, 40 * sin + 12 * cos, 0.0]]])
    predicted = oriented.expand(1, len(POINTS), 5)
    whole, known = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.bool)
    assert task_aligned(hull, known, predicted).quality.max() == pytest.approx(1, abs=1e-4)
    assert task_aligned(hull, whole, predicted).quality.max() < 0.6


def test_a_box_between_the_points_no_box_and_five_hundred():
    tiny = torch.tensor([[[16.0, 16, 2, 2, 0.3]]])  # between four points
    yes = torch.ones(1, 1, dtype=torch.bool)
    assigned = task_aligned(tiny, yes, tiny.expand(1, len(POINTS), 5))
    assert (assigned.matched_gt == 0).sum() >= 1
    none = task_aligned(
        torch.zeros(1, 0, 5), torch.zeros(1, 0, dtype=torch.bool), tiny.expand(1, len(POINTS), 5)
    )
    assert (none.matched_gt == -1).all()
    many = as_rotated(upright(500, 1), 0.5)
    crowd = task_aligned(many, torch.ones(1, 500, dtype=torch.bool), many[:, :1].expand(1, len(POINTS), 5))
    assert torch.isfinite(crowd.quality).all()
    flat = torch.tensor([[[60.0, 60, 0, 0, 0.3]]])
    assert torch.isfinite(task_aligned(flat, yes, flat.expand(1, len(POINTS), 5)).quality).all()
