"""Boxes of set predictors: what is moved comes back, whichever way a rectangle is spelled."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright.data.targets import Targets
from boxwright.geometry.conventions import corners
from boxwright.geometry.iou import aligned_iou
from boxwright.models.attention import DeformableAttention
from boxwright.models.set_boxes import ORIENTED, UPRIGHT, kind_of

SIDES = st.floats(0.02, 0.5)
ANGLES = st.floats(-math.pi, math.pi)
SCALE = 4.0  # reg_scale


def box(w: float, h: float, angle: float, x: float = 0.4, y: float = 0.5) -> torch.Tensor:
    return torch.tensor([[x, y, w, h, angle]], dtype=torch.float64)


def known(boxes: torch.Tensor) -> torch.Tensor:
    """As truth whose angle is known."""
    return torch.cat([boxes, torch.ones_like(boxes[:, :1])], dim=1)


def spelled(boxes: torch.Tensor, quarters: int) -> torch.Tensor:
    """The same rectangles, turned by quarters."""
    order = [0, 1, 2, 3, 4] if quarters % 2 == 0 else [0, 1, 3, 2, 4]
    turn = torch.tensor([0, 0, 0, 0, quarters * math.pi / 2], dtype=boxes.dtype)
    return boxes[:, order] + turn


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(aligned_iou(a.numpy() * [100, 100, 100, 100, 1], b.numpy() * [100, 100, 100, 100, 1])[0])


@settings(deadline=None)  # the first call loads kernels
@given(w=SIDES, h=SIDES, angle=ANGLES, own=ANGLES, grown=st.floats(0.6, 1.6), moved=st.floats(-0.3, 0.3))
def test_a_box_is_moved_to_the_truth_by_its_shifts(w, h, angle, own, grown, moved):
    wanted = box(w, h, angle)
    start = box(w * grown, h, own, 0.4 + moved * w, 0.5)
    shifts, counts = ORIENTED.shifts(start, known(wanted), SCALE)
    assert iou(ORIENTED.shifted(start, shifts, SCALE), wanted) > 1 - 1e-6
    assert shifts[0, 4].abs() <= SCALE / 2 + 1e-9  # an eighth of a turn
    assert counts[0, :4].tolist() == [1] * 4
    assert counts[0, 4] == pytest.approx(abs(w * w - h * h) / (w * w + h * h), abs=1e-6)


def test_upright_boxes_are_moved_by_their_sides():
    start, wanted = torch.tensor([[0.4, 0.5, 0.2, 0.1]]), torch.tensor([[0.5, 0.4, 0.1, 0.3]])
    shifts, _ = UPRIGHT.shifts(start, wanted, SCALE)
    # Outwards: left from 0.3 to 0.45 and right from 0.5 to 0.55 in quarters of 0.2, top from 0.45 to 0.25 in
    # quarters of 0.1, bottom not at all.
    assert torch.allclose(shifts, torch.tensor([[-3.0, 8.0, 1.0, 0.0]]), atol=1e-5)
    assert torch.allclose(UPRIGHT.shifted(start, shifts, SCALE), wanted)


@settings(deadline=None)
@given(w=SIDES, h=SIDES, angle=ANGLES, other=ANGLES, quarters=st.integers(-3, 3))
def test_the_spelling_of_a_rectangle_costs_nothing(w, h, angle, other, quarters):
    mine, wanted = box(w, h, other, 0.45), known(box(w, 0.8 * h, angle))
    again = known(spelled(box(w, 0.8 * h, angle), quarters))
    for compare in (ORIENTED.costs, ORIENTED.losses):
        for one, two in zip(compare(mine, wanted), compare(mine, again)):
            assert torch.allclose(one, two, atol=1e-6)
    assert all(
        float(part) < 1e-5
        for part in ORIENTED.losses(spelled(box(w, h, angle), quarters), known(box(w, h, angle)))
    )


@settings(deadline=None)
@given(w=SIDES, h=SIDES, angle=ANGLES, other=ANGLES)
def test_overlaps_and_hulls_are_those_of_the_kernels(w, h, angle, other):
    mine, wanted = box(w, h, other, 0.45), box(h, w, angle)
    assert ORIENTED.overlaps(mine, known(wanted))[0] == pytest.approx(iou(mine, wanted), abs=1e-6)
    image = torch.tensor([300.0, 200.0], dtype=torch.float64)
    pixels = mine.numpy() * [300, 300, 300, 300, 1]
    points = corners(pixels)[0]
    expected = np.concatenate([points.min(axis=0), points.max(axis=0)])
    assert np.allclose(ORIENTED.hulls(mine, image)[0], expected, atol=1e-4)
    found, inside = ORIENTED.found(mine[None], image, torch.tensor([[300.0, 200.0]]))
    assert aligned_iou(found[0].numpy(), pixels)[0] > 1 - 1e-6
    assert found[0, 0, 2] >= found[0, 0, 3]
    assert bool(inside[0, 0, 0])


def test_truth_without_an_angle_is_compared_by_hulls():
    turned, upright = box(0.4, 0.2, 0.6), box(0.0, 0.0, 0.0)
    hull = ORIENTED.hulls(turned, torch.ones(2, dtype=torch.float64))
    upright[0, 2:4] = hull[0, 2:] - hull[0, :2]
    wanted = torch.cat([upright, torch.zeros(1, 1, dtype=torch.float64)], dim=1)
    assert ORIENTED.overlaps(turned, wanted)[0] == pytest.approx(1, abs=1e-6)
    assert all(float(part) < 1e-5 for part in ORIENTED.losses(turned, wanted))
    _, counts = ORIENTED.shifts(turned, wanted, SCALE)
    assert not counts.any()  # its sides along the angle aren't known


@pytest.mark.parametrize("kind", [UPRIGHT, ORIENTED])
def test_logits_and_truth_come_back(kind):
    sides = torch.tensor([[[30.0, 20.0, 90.0, 80.0]]])
    rotated = torch.tensor([[[60.0, 50.0, 70.0, 40.0, 0.7]]])
    yes = torch.ones(1, 1, dtype=torch.bool)
    none = torch.full((1, 1, 5, 2), torch.nan)
    targets = Targets(sides, torch.zeros(1, 1, dtype=torch.int64), yes, ~yes, rotated, yes, none, False)
    image = torch.tensor([200.0, 100.0])
    truth = kind.truth(targets, image)
    boxes = kind.from_logits(kind.to_logits(truth))
    assert kind_of(boxes) is kind
    found, _ = kind.found(boxes, image, image[None])
    assert torch.allclose(found, rotated if kind.oriented else sides, atol=1e-2)
    near = torch.zeros(1, dtype=torch.bool)
    assert torch.allclose(kind.noisy(truth, near, 0.0), boxes, atol=1e-4)
    assert not torch.allclose(kind.noisy(truth, near, 1.0), boxes, atol=1e-4)


def test_a_query_reads_along_its_box():
    """Around a box turned by a right angle the places are turned too, in pixels, not in shares."""
    torch.manual_seed(0)
    attention = DeformableAttention(16, 8, (4,))
    torch.nn.init.normal_(attention.offsets.weight)
    queries, image = torch.randn(1, 1, 16), torch.tensor([200.0, 100.0])
    unit = ORIENTED.unit(image)
    turned = torch.tensor([[[0.5, 0.25, 0.2, 0.1, math.pi / 2]]])
    place, _ = attention.sample(queries, ORIENTED.frames(turned, image))
    upright = torch.tensor([[[0.5, 0.25, 0.2, 0.1, 0.0]]])
    plain, _ = attention.sample(queries, ORIENTED.frames(upright, image))
    center = turned[0, 0, :2] * unit
    away, straight = place * image - center, plain * image - center
    assert torch.allclose(away[..., 0], -straight[..., 1], atol=1e-4)
    assert torch.allclose(away[..., 1], straight[..., 0], atol=1e-4)
    shares = upright[..., :4] * (unit / image).repeat(2)
    assert torch.allclose(attention.sample(queries, shares)[0], plain, atol=1e-6)


@pytest.mark.parametrize("numbers", [4, 6])
def test_attention_reads_the_same_with_its_offsets_in_another_order(numbers):
    torch.manual_seed(0)
    attention = DeformableAttention(32, 4, (3, 2))
    torch.nn.init.normal_(attention.offsets.weight, std=0.1)
    torch.nn.init.normal_(attention.weights.weight)
    queries, boxes = torch.rand(2, 7, 32), torch.rand(2, 7, numbers)
    levels = [torch.rand(2 * 4, 8, 6, 5), torch.rand(2 * 4, 8, 3, 2)]
    places, read = attention.sample(queries, boxes)[0], attention(queries, boxes, levels)
    for _ in range(2):  # once more changes nothing
        attention.merge()
        torch.testing.assert_close(attention.sample(queries, boxes)[0], places)
        torch.testing.assert_close(attention(queries, boxes, levels), read)
