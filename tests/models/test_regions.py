"""Oriented regions: what is coded comes back, and what is pooled lies where it should."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from boxwright.data.targets import Targets
from boxwright.geometry.conventions import corners
from boxwright.geometry.iou import aligned_iou
from boxwright.losses.box import smooth_l1_loss
from boxwright.models.box_coder import (
    decode_midpoints,
    decode_rotated_deltas,
    encode_deltas,
    encode_midpoints,
    encode_rotated_deltas,
)
from boxwright.models.deformable import ModulatedConv
from boxwright.models.heads.roi import SIDE, RegionPooling, SheetPooling, as_rotated, levels_of
from boxwright.models.regions import OrientedRegions, midpoint_loss
from tests.models.test_detectors import make, targets

SIZES = st.floats(2, 60)
ANGLES = st.floats(-math.pi, math.pi)


def iou(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """IoU of the rectangles, by the kernels that shapely was the oracle of."""
    return aligned_iou(a.double().numpy(), b.double().numpy())


@settings(deadline=None)  # the first call loads kernels
@given(SIZES, SIZES, ANGLES)
def test_a_rectangle_comes_back_from_its_hull_and_two_midpoints(w, h, angle):
    box = torch.tensor([[30.0, 40.0, w, h, angle]], dtype=torch.float64)
    points = corners(box.numpy())[0]
    hull = torch.tensor([[*points.min(0), *points.max(0)]])
    anchor = torch.tensor([[10.0, 20, 60, 60]], dtype=torch.float64)
    numbers = torch.cat([encode_deltas(anchor, hull), encode_midpoints(box)], dim=1)
    assert iou(decode_midpoints(anchor, numbers), box)[0] > 1 - 1e-6


def test_an_upright_box_is_one_point_whichever_corners_it_touches():
    sizes = torch.tensor([40.0, 20.0]).expand(5, 2)
    angles = torch.tensor([0.0, 0.01, -0.01, math.pi / 2 - 0.01, math.pi / 2 + 0.01])
    shifts = encode_midpoints(torch.cat([torch.zeros(5, 2), sizes, angles[:, None]], dim=1))
    loss = midpoint_loss(shifts[:, None], shifts[None], 0.0)  # (5, 5)
    assert torch.allclose(loss, loss.T, atol=1e-6)
    assert (loss[:3, :3] < 0.1).all()
    assert smooth_l1_loss(shifts[1], shifts[2]) > 3.8  # by the straight way
    assert (loss[3:, 3:] < 0.1).all()
    # Far from the corners the straight way is the shorter one.
    turned = torch.tensor([[0.2, -0.1], [-0.3, 0.2]])
    assert torch.equal(
        midpoint_loss(turned, turned.flip(0), 0.1), smooth_l1_loss(turned, turned.flip(0), 0.1)
    )


def test_midpoints_are_those_of_the_paper():
    # A square on its corner touches all four midpoints.
    diamond = torch.tensor([[0.0, 0, 10, 10, math.pi / 4]])
    assert encode_midpoints(diamond).abs().max() < 1e-5
    # The topmost and the rightmost corner, found by looking for them.
    box = torch.tensor([[3.0, 4, 20, 8, 0.3]])
    points = corners(box.numpy())[0]
    low, high = points.min(0), points.max(0)
    top, right = points[points[:, 1].argmin()], points[points[:, 0].argmax()]
    wanted = [(top[0] - 3) / (high - low)[0] / 0.5, (right[1] - 4) / (high - low)[1] / 0.5]
    assert np.allclose(encode_midpoints(box)[0].numpy(), wanted, atol=1e-5)


@settings(deadline=None)  # the first call loads kernels
@given(SIZES, SIZES, ANGLES, SIZES, SIZES, ANGLES)
def test_a_box_comes_back_from_a_regions_deltas(w, h, angle, w2, h2, angle2):
    region = torch.tensor([[30.0, 40.0, w, h, angle]], dtype=torch.float64)
    box = torch.tensor([[33.0, 38.0, w2, h2, angle2]], dtype=torch.float64)
    near, far = encode_rotated_deltas(region, box)[0]
    assert near[4].abs() <= math.pi / 4 + 1e-9
    assert math.pi / 4 - 1e-9 <= far[4].abs() <= math.pi / 2 + 1e-9
    for deltas in (near, far):
        assert iou(decode_rotated_deltas(region, deltas[None]), box)[0] > 1 - 1e-6


def test_a_region_on_its_corner_learns_one_of_two_turns():
    """The mean of both is as wrong as nothing learnt; either one costs nothing."""
    region = torch.tensor([[[30.0, 40.0, 20.0, 20.0, math.pi / 4]]])
    box = torch.tensor([[[30.0, 40.0, 28.0, 14.0, 0.01]]])
    both = encode_rotated_deltas(region, box)[0, 0]
    truth = targets([[(0, 0, 1, 1)]])
    truth = replace(truth, rotated=box, oriented=torch.ones_like(truth.mask))
    matched = torch.zeros(1, 1, dtype=torch.int64)
    ones = torch.ones(5)

    def loss(deltas: torch.Tensor) -> float:
        return float(OrientedRegions().region_loss(deltas[None, None], region, matched, truth, ones, 0.0))

    assert loss(both[0]) < 1e-5
    assert loss(both[1]) < 1e-5
    assert loss(both.mean(0)) > 1


def pyramid(generator: torch.Generator) -> list[torch.Tensor]:
    return [torch.rand(2, 3, 32 // 2**n, 32 // 2**n, generator=generator) for n in range(4)]


def boxes_on(generator: torch.Generator, count: int = 40) -> torch.Tensor:
    """(2, count, 4) of all levels, some of which leave the image of 128 x 128."""
    corner = torch.rand(2, count, 2, generator=generator) * 140 - 20
    return torch.cat([corner, corner + torch.rand(2, count, 2, generator=generator) * 120 + 1], dim=-1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_upright_regions_are_pooled_as_torchvision_pools_them(aligned, ratio):
    generator = torch.Generator().manual_seed(0)
    maps, boxes = pyramid(generator), boxes_on(generator)
    pooling = RegionPooling((4, 8, 16, 32), ratio, aligned)
    found = pooling(pooling.prepare(maps), boxes)
    level, _ = levels_of(as_rotated(boxes), (4, 8, 16, 32))
    assert set(level.flatten().tolist()) == {0, 1}
    for n in (0, 1):
        expected = roi_align(maps[n], list(boxes), SIDE, 1 / (4 * 2**n), ratio, aligned).view(2, 40, -1)
        assert torch.allclose(found[level == n], expected[level == n], atol=1e-5)
    sheet, inside = SheetPooling((4, 8, 16, 32), ratio, aligned), boxes.clamp(0, 128)
    found = pooling(pooling.prepare(maps), inside)
    assert torch.allclose(found, sheet(sheet.prepare(maps), inside), atol=1e-5)


def test_gradients_of_pooling_are_torchvisions():
    generator = torch.Generator().manual_seed(2)
    maps, boxes = pyramid(generator), boxes_on(generator).clamp(0, 128)
    gradients = []
    for kind in (RegionPooling, SheetPooling):
        own = [m.clone().requires_grad_() for m in maps]
        pooling = kind((4, 8, 16, 32), 2, True)
        pooled = pooling(pooling.prepare(own), boxes)
        direction = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(3))
        gradients.append(torch.autograd.grad((pooled * direction).sum(), own[:2]))
    for a, b in zip(*gradients):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("kind", [RegionPooling, SheetPooling])
def test_a_quarter_turn_of_the_image_and_the_region_changes_nothing(kind):
    generator = torch.Generator().manual_seed(1)
    maps = pyramid(generator)
    pooling = kind((4, 8, 16, 32), 2, True)
    box = torch.tensor([[[50.0, 70.0, 40.0, 12.0, 0.4]]])
    # Turned clockwise on the screen, x becomes 128 - y.
    turned = torch.tensor([[[128 - 70.0, 50.0, 40.0, 12.0, 0.4 + math.pi / 2]]])
    first = pooling(pooling.prepare([m[:1] for m in maps]), box)
    second = pooling(pooling.prepare([m[:1].rot90(-1, (2, 3)) for m in maps]), turned)
    assert torch.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("aligned", [True, False])
def test_both_ways_to_pool_oriented_regions_agree_beyond_the_image_too(aligned):
    generator = torch.Generator().manual_seed(4)
    maps, boxes = pyramid(generator), as_rotated(boxes_on(generator))
    boxes[..., 4] = torch.rand(2, 40, generator=generator) * 6 - 3
    ways = [kind((4, 8, 16, 32), 2, aligned) for kind in (RegionPooling, SheetPooling)]
    first, second = (way(way.prepare(maps), boxes) for way in ways)
    assert torch.allclose(first, second, atol=1e-4)
    assert (first == 0).any()


def oriented_truth(angle: float, known: bool) -> Targets:
    rotated = torch.tensor([[[32.0, 32, 30, 10, angle]]])
    hull = OrientedRegions().hulls(rotated)
    mask = torch.ones(1, 1, dtype=torch.bool)
    plain = Targets.upright(hull, torch.zeros(1, 1, dtype=torch.long), mask, ~mask, any_ignored=False)
    if known:
        return Targets(hull, plain.labels, mask, ~mask, rotated, mask, plain.landmarks, any_ignored=False)
    return plain


def test_a_box_without_an_angle_teaches_its_hull_alone():
    kind, matched = OrientedRegions(), torch.zeros(1, 2, dtype=torch.long)
    # Two regions of one hull: the truth itself, and its mirror image.
    regions = torch.tensor([[[32.0, 32, 30, 10, 0.5], [32.0, 32, 30, 10, -0.5]]])
    deviations = torch.tensor([0.1, 0.1, 0.2, 0.2, 0.1])
    still = torch.zeros(1, 2, 5)
    known, unknown = (
        kind.region_loss(still, regions, matched, oriented_truth(0.5, k), deviations, 0.0)[0]
        for k in (True, False)
    )
    assert known[0] < 1e-4 < 1 < known[1]
    assert unknown.max() < 1e-4
    assigned = [kind.assign(regions, oriented_truth(0.5, k), 0.7).matched_gt[0] for k in (True, False)]
    assert assigned[0].tolist() == [0, -1]
    assert assigned[1].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["cascade_rcnn", "faster_rcnn_obb"])
def test_a_stage_that_gives_no_numbers_ends_in_a_loss_that_is_none(name):
    model, truth = make(name), targets([[[8, 8, 40, 40]]])
    with torch.no_grad():
        for parameter in model.roi_heads.parameters():
            parameter.fill_(torch.nan)
    losses = model.loss(model(torch.rand(1, 3, 64, 64) * 255, truth), truth)
    assert torch.isnan(sum(losses.values()))


def test_a_deformable_convolution_without_offsets_says_so():
    conv = ModulatedConv(8, 1)
    with torch.no_grad():
        conv.offset.bias.fill_(torch.nan)
        assert torch.isnan(conv(torch.rand(1, 8, 4, 4))).all()
