"""Oriented regions: what is coded comes back, and what is pooled lies where it should."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from boxwright.data.targets import Targets
from boxwright.geometry.conventions import corners
from boxwright.geometry.iou import aligned_iou
from boxwright.models.box_coder import (
    decode_midpoints,
    decode_rotated_deltas,
    encode_deltas,
    encode_midpoints,
    encode_rotated_deltas,
)
from boxwright.models.heads.roi import SIDE, RegionPooling, RotatedRegionPooling
from boxwright.models.regions import OrientedRegions

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
    deltas = encode_rotated_deltas(region, box)
    assert deltas[0, 4].abs() <= math.pi / 4 + 1e-9
    assert iou(decode_rotated_deltas(region, deltas), box)[0] > 1 - 1e-6


def pyramid(generator: torch.Generator) -> list[torch.Tensor]:
    return [torch.rand(2, 3, 32 // 2**n, 32 // 2**n, generator=generator) for n in range(4)]


def test_regions_without_a_turn_are_pooled_as_torchvision_pools_them():
    generator = torch.Generator().manual_seed(0)
    maps = pyramid(generator)
    pooling = RotatedRegionPooling((4, 8, 16, 32), 2, True)
    corner = torch.rand(2, 6, 2, generator=generator) * 60 + 20
    side = torch.rand(2, 6, 2, generator=generator) * 40 + 8  # all on the finest level
    boxes = torch.cat([corner, corner + side], dim=-1).clamp(max=127)
    side = boxes[..., 2:] - boxes[..., :2]
    rotated = torch.cat([boxes[..., :2] + side / 2, side, torch.zeros(2, 6, 1)], dim=-1)
    found = pooling(pooling.sheet(maps), rotated)
    expected = roi_align(maps[0], list(boxes), SIDE, 1 / 4, 2, True)
    assert torch.allclose(found.flatten(0, 1), expected.flatten(1), atol=1e-5)
    upright = RegionPooling((4, 8, 16, 32), 2, True)
    assert torch.allclose(found, upright(upright.sheet(maps), boxes), atol=1e-5)


def test_a_quarter_turn_of_the_image_and_the_region_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    maps = pyramid(generator)
    pooling = RotatedRegionPooling((4, 8, 16, 32), 2, True)
    box = torch.tensor([[[50.0, 70.0, 40.0, 12.0, 0.4]]])
    # Turned clockwise on the screen, x becomes 128 - y.
    turned = torch.tensor([[[128 - 70.0, 50.0, 40.0, 12.0, 0.4 + math.pi / 2]]])
    first = pooling(pooling.sheet([m[:1] for m in maps]), box)
    second = pooling(pooling.sheet([m[:1].rot90(-1, (2, 3)) for m in maps]), turned)
    assert torch.allclose(first, second, atol=1e-4)


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
