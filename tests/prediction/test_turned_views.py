"""Turned boxes through the views of an image, and through the head that says them."""

from typing import get_args

import numpy as np
import pytest
import torch

from boxwright.config.experiment import View
from boxwright.data.transforms import compose, transform_turned
from boxwright.geometry.torch_rotated import as_hulls, as_seen, rotated_iou
from boxwright.models.detections import Detections
from boxwright.models.oriented import decode_turned, long_edge
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
def test_boxes_come_home_from_every_view_with_their_fronts(view):
    image = torch.zeros(1, 3, 64, 64)
    image[0, :, 7, 52] = 1
    seen, sizes = to_view(image, SIZE[None], view)
    y, x = np.unravel_index(int(seen[0, 0].argmax()), seen.shape[2:])
    assert np.allclose(matrix_of(view) @ [52.5, 7.5, 1], [x + 0.5, y + 0.5])
    assert sizes[0].tolist() == ([40, 60] if view.startswith("transposed") else [60, 40])
    boxes = random_boxes(50)
    inside = torch.from_numpy(transform_turned(boxes, matrix_of(view)))
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


def numbers_of(boxes: torch.Tensor, heading: bool) -> torch.Tensor:
    """What a head says of boxes, from points at their corners, with steps of 8 and sides of 16 px."""
    way, logs = boxes[:, :2] / 8, (boxes[:, 2:4] / 16).log()
    angle = boxes[:, 4:]
    front = [angle.cos(), angle.sin()] if heading else []
    return torch.cat([way, logs, 3 * (2 * angle).cos(), 3 * (2 * angle).sin(), *front], dim=1)


@pytest.mark.parametrize("heading", [False, True])
def test_what_a_head_says_is_a_box_of_any_angle(heading):
    boxes = torch.from_numpy(random_boxes(200)).float()
    points, steps, sides = torch.zeros(200, 2), torch.full((200, 1), 8.0), torch.full((200, 1), 16.0)
    found = decode_turned(points, steps, sides, numbers_of(boxes, heading)[None])[0]
    assert torch.allclose(found[:, :4], boxes[:, :4], atol=1e-4)
    turn = found[:, 4] - boxes[:, 4]
    assert torch.allclose((turn if heading else 2 * turn).cos(), torch.ones(200), atol=1e-5)


def test_long_edges_and_hulls_are_the_same_rectangles_and_theirs():
    boxes = torch.from_numpy(random_boxes(200))
    long = long_edge(boxes)
    assert (long[:, 2] >= long[:, 3]).all()
    assert torch.allclose(rotated_iou(long, boxes), torch.ones(200, dtype=torch.float64))
    hulls = as_hulls(boxes)
    covered = rotated_iou(boxes, hulls) * (hulls[:, 2] * hulls[:, 3]) / (boxes[:, 2] * boxes[:, 3])
    assert torch.allclose(covered, torch.ones(200, dtype=torch.float64))
    turned = torch.arange(200) % 2 == 0
    mixed = as_seen(boxes, turned)
    assert torch.equal(mixed[turned], boxes[turned])
    assert torch.equal(mixed[~turned], hulls[~turned])


def test_views_vote_on_the_front():
    looks = [(0.3 + np.pi, 0.9), (0.32, 0.6), (0.28, 0.6)]
    views = [
        [Detections(torch.tensor([[30.0, 20, 24, 10, angle]]), torch.tensor([score]), torch.zeros(1).long())]
        for angle, score in looks
    ]
    (fused,) = fuse_views(views, 0.4, 10)
    assert torch.cos(fused.boxes[0, 4] - 0.3) > 0.999
