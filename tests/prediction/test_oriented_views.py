"""Oriented boxes through the views of an image, and through the head that predicts them."""

from typing import get_args

import numpy as np
import pytest
import torch

from boxwright.config.experiment import View
from boxwright.config.models import OrientedBoxes
from boxwright.data.transforms import compose, transform_oriented
from boxwright.geometry.torch_rotated import as_hulls, as_seen, rotated_iou
from boxwright.models.detections import Detections
from boxwright.models.oriented import decode_oriented, head_boxes, long_edge, mean_by_share, oriented_losses
from boxwright.prediction.views import from_view, fuse_views, to_view

SIZE = torch.tensor([60.0, 40.0])


def matrix_of(view: View) -> np.ndarray:
    """The (2, 3) matrix of a view of content of 60 x 40."""
    flips = view.removeprefix("transposed").removeprefix("-")
    matrix = np.array([[1.0, 0, 0], [0, 1, 0]])
    if flips in ("horizontal", "both"):
        matrix = compose(matrix, np.array([[-1.0, 0, 60], [0, 1, 0]]))
    if flips in ("vertical", "both"):
        matrix = compose(matrix, np.array([[1.0, 0, 0], [0, -1, 40]]))
    if view.startswith("transposed"):
        matrix = compose(matrix, np.array([[0.0, 1, 0], [1, 0, 0]]))
    return matrix


def detections(boxes: torch.Tensor) -> Detections:
    return Detections(boxes, torch.linspace(0.9, 0.5, len(boxes)), torch.zeros(len(boxes), dtype=torch.long))


def random_boxes(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    columns = [rng.uniform(5, 35, (count, 2)), rng.uniform(4, 20, (count, 2)), rng.uniform(-3, 3, (count, 1))]
    return np.concatenate(columns, axis=1)


@pytest.mark.parametrize("view", get_args(View))
def test_boxes_return_from_every_view_with_their_headings(view):
    image = torch.zeros(1, 3, 64, 64)
    image[0, :, 7, 52] = 1
    seen, sizes = to_view(image, SIZE[None], view)
    y, x = np.unravel_index(int(seen[0, 0].argmax()), seen.shape[2:])
    assert np.allclose(matrix_of(view) @ [52.5, 7.5, 1], [x + 0.5, y + 0.5])
    assert sizes[0].tolist() == ([40, 60] if view.startswith("transposed") else [60, 40])
    boxes = random_boxes(50)
    inside = torch.from_numpy(transform_oriented(boxes, matrix_of(view)))
    home = from_view(detections(inside), SIZE, view).boxes.numpy()
    assert np.allclose(home[:, :4], boxes[:, :4])
    assert np.allclose(np.cos(home[:, 4] - boxes[:, 4]), 1)


def test_views_vote_whatever_the_spelling():
    box = torch.tensor([[30.0, 20, 24, 10, 0.3]])
    spellings = [
        box,
        torch.tensor([[31.0, 20, 10, 24, 0.3 + np.pi / 2 + 0.06]]),
        torch.tensor([[30.0, 21, 26, 10, 0.3 - np.pi - 0.06]]),
        torch.tensor([[29.0, 19, 10, 22, 0.3 - np.pi / 2]]),
    ]
    (fused,) = fuse_views([[detections(b)] for b in spellings], 0.4, 10)
    assert len(fused.boxes) == 1
    assert fused.boxes[0].tolist() == pytest.approx([30, 20, 24, 10, 0.3], abs=1e-4)
    assert fused.scores.tolist() == pytest.approx([0.9])


def outputs_of(boxes: torch.Tensor, swapped: torch.Tensor) -> dict[str, torch.Tensor]:
    """A head's outputs for boxes, from points at their corners, with steps of 8 and sides of 16 px; sides
    stand in either order, the angle is that of the longer.
    """
    long = long_edge(boxes)
    logs, angle = (long[:, 2:4] / 16).log(), 2 * long[:, 4:]
    logs = torch.where(swapped[:, None], logs.flip(1), logs)
    numbers = torch.cat([boxes[:, :2] / 8, logs, 3 * angle.cos(), 3 * angle.sin()], dim=1)
    heading = 0.2 * torch.stack([boxes[:, 4].cos(), boxes[:, 4].sin()], dim=1)
    return {"box_numbers": numbers[None], "headings": heading[None]}


@pytest.mark.parametrize("heading", [False, True])
def test_outputs_of_a_head_give_boxes_of_any_angle(heading):
    boxes = torch.from_numpy(random_boxes(200)).float()
    points, steps, sides = torch.zeros(200, 2), torch.full((200, 1), 8.0), torch.full((200, 1), 16.0)
    outputs = outputs_of(boxes, torch.arange(200) % 2 == 0)
    found = decode_oriented(points, steps, sides, outputs, long_edge=True)
    expected = boxes if heading else long_edge(boxes)
    found = (head_boxes(found, outputs, True) if heading else found)[0]
    assert torch.allclose(found[:, :4], expected[:, :4], atol=1e-4)
    turn = found[:, 4] - expected[:, 4]
    assert torch.allclose((turn if heading else 2 * turn).cos(), torch.ones(200), atol=1e-5)


def test_exchanged_sides_are_no_second_minimum_of_the_loss():
    """From the other spelling of a box, and from any angle, descent ends at the truth."""
    truth = torch.tensor([[50.0, 40, 30, 12, 0.4]]).repeat(64, 1)[None]
    recipe = OrientedBoxes()
    numbers = torch.zeros(1, 64, 6)
    start = 0.4 + torch.linspace(-np.pi / 2, np.pi / 2, 64)
    numbers[0, :, 2:4] = torch.tensor([12 / 16, 30 / 16]).log()
    numbers[0, :, 4], numbers[0, :, 5] = (2 * start).cos(), (2 * start).sin()
    numbers[0, :, :2] = torch.tensor([50 / 8, 40 / 8])
    numbers.requires_grad_()
    optimizer = torch.optim.Adam([numbers], 0.02)
    points, steps, sides = torch.zeros(64, 2), torch.full((64, 1), 8.0), torch.full((64, 1), 16.0)
    mask, share = torch.ones(1, 64, dtype=torch.bool), torch.ones(1, 64)
    for _ in range(300):
        outputs = {"box_numbers": numbers}
        boxes = decode_oriented(points, steps, sides, outputs, long_edge=True)
        optimizer.zero_grad()
        losses = oriented_losses(boxes, outputs, truth, mask, share, recipe)
        sum(mean_by_share(losses, share).values()).backward()
        optimizer.step()
    boxes = decode_oriented(points, steps, sides, {"box_numbers": numbers.detach()}, long_edge=True)
    assert rotated_iou(boxes[0].double(), truth[0].double()).min() > 0.9
    assert (2 * (boxes[0, :, 4] - 0.4)).cos().min() > 0.98


def test_long_edges_and_hulls_are_the_same_rectangles_and_theirs():
    boxes = torch.from_numpy(random_boxes(200))
    long = long_edge(boxes)
    assert (long[:, 2] >= long[:, 3]).all()
    assert torch.allclose(rotated_iou(long, boxes), torch.ones(200, dtype=torch.float64))
    hulls = as_hulls(boxes)
    covered = rotated_iou(boxes, hulls) * (hulls[:, 2] * hulls[:, 3]) / (boxes[:, 2] * boxes[:, 3])
    assert torch.allclose(covered, torch.ones(200, dtype=torch.float64))
    oriented = torch.arange(200) % 2 == 0
    mixed = as_seen(boxes, oriented)
    assert torch.equal(mixed[oriented], boxes[oriented])
    assert torch.equal(mixed[~oriented], hulls[~oriented])


def test_views_vote_on_the_heading():
    votes = [(0.3 + np.pi, 0.9), (0.32, 0.6), (0.28, 0.6)]
    views = [
        [Detections(torch.tensor([[30.0, 20, 24, 10, angle]]), torch.tensor([score]), torch.zeros(1).long())]
        for angle, score in votes
    ]
    (fused,) = fuse_views(views, 0.4, 10)
    assert torch.cos(fused.boxes[0, 4] - 0.3) > 0.999
    assert fused.heading_certainty is None
    (fused,) = fuse_views(views, 0.4, 10, headings=True)
    assert fused.heading_certainty.tolist() == pytest.approx([(0.6 + 0.6 - 0.9) / 2.1])
    across = Detections(
        torch.tensor([[30.0, 20, 10, 24, 0.3 + np.pi / 2]]), torch.tensor([0.6]), torch.zeros(1).long()
    )
    (fused,) = fuse_views([*views[1:], [across]], 0.4, 10, headings=True)
    assert fused.heading_certainty.tolist() == pytest.approx([1.0])
