"""Losses on oriented boxes, against matrices written out, finite differences and degenerate boxes."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from boxwright.losses.rotated import gwd_loss, kld_loss, prob_iou_loss, rotated_iou_loss

LOSSES = {"iou": rotated_iou_loss, "gwd": gwd_loss, "kld": kld_loss, "prob_iou": prob_iou_loss}
ODD = {
    "identical": ([50.0, 40, 30, 12, 0.4], [50.0, 40, 30, 12, 0.4]),
    "identical squares": ([50.0, 40, 20, 20, 0.0], [50.0, 40, 20, 20, 0.7]),
    "disjoint": ([50.0, 40, 30, 12, 0.4], [900.0, 800, 30, 12, 1.4]),
    "far apart": ([0.0, 0, 2, 2, 0.0], [1e5, 1e5, 3, 1, 2.0]),
    "a sliver": ([50.0, 40, 400, 0.02, 0.4], [50.0, 40, 30, 12, 0.4]),
    "truth is a sliver": ([50.0, 40, 30, 12, 0.4], [50.0, 40, 400, 0.02, 0.4]),
    "no area": ([50.0, 40, 0, 0, 0.4], [50.0, 40, 30, 12, 0.4]),
    "truth has no area": ([50.0, 40, 30, 12, 0.4], [50.0, 40, 0, 0, 0.4]),
    "neither has": ([50.0, 40, 0, 0, 0.0], [50.0, 40, 0, 0, 0.0]),
    "inside each other": ([50.0, 40, 300, 120, 0.4], [50.0, 40, 3, 1, 0.4]),
}


def boxes(count: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    columns = [
        rng.uniform(40, 60, (count, 2)),
        rng.uniform(8, 50, (count, 2)),
        rng.uniform(-4, 4, (count, 1)),
    ]
    return torch.tensor(np.concatenate(columns, axis=1))


def gaussian(box: np.ndarray, divisor: float) -> tuple[np.ndarray, np.ndarray]:
    turn = np.array([[np.cos(box[4]), -np.sin(box[4])], [np.sin(box[4]), np.cos(box[4])]])
    return box[:2], turn @ np.diag(box[2:4] ** 2 / divisor) @ turn.T


def by_matrices(name: str, a: np.ndarray, b: np.ndarray) -> float:
    """The papers' formulas as they stand there."""
    (m, s), (n, t) = (gaussian(box, 12.0 if name == "prob_iou" else 4.0) for box in (a, b))
    if name == "kld":
        inverse = np.linalg.inv(t)
        spread = np.trace(inverse @ s) + np.log(np.linalg.det(t) / np.linalg.det(s))
        return 1 - 1 / (1 + np.log1p(((m - n) @ inverse @ (m - n) + spread) / 2 - 1))
    if name == "gwd":
        root = sqrtm(s)
        squared = ((m - n) ** 2).sum() + np.trace(s + t - 2 * sqrtm(root @ t @ root)).real
        return 1 - 1 / (1 + np.log1p(squared / (b[2] * b[3])))
    mean = (s + t) / 2
    far = (m - n) @ np.linalg.inv(mean) @ (m - n) / 8
    unlike = np.log(np.linalg.det(mean) / np.sqrt(np.linalg.det(s) * np.linalg.det(t))) / 2
    return np.sqrt(1 - np.exp(-far - unlike))


@pytest.mark.parametrize("name", ["gwd", "kld", "prob_iou"])
def test_the_losses_are_those_of_the_papers(name):
    a, b = boxes(200, 0), boxes(200, 1)
    expected = [by_matrices(name, x, y) for x, y in zip(a.numpy(), b.numpy())]
    assert np.allclose(LOSSES[name](a, b).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    a, b = boxes(60, 2), boxes(60, 3)
    assert torch.autograd.gradcheck(
        lambda box: LOSSES[name](box, b), a.requires_grad_(), eps=1e-6, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_finite_on_odd_boxes(name, case, kind):
    a, b = (torch.tensor([box], dtype=kind) for box in ODD[case])
    a.requires_grad_()
    loss = LOSSES[name](a, b)
    loss.sum().backward()
    assert 0 <= loss.item() <= 1 + 1e-6
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_every_spelling_of_a_rectangle_costs_the_same(name):
    a, b = boxes(50, 4), boxes(50, 5)
    quarter = torch.stack([a[:, 0], a[:, 1], a[:, 3], a[:, 2], a[:, 4] + np.pi / 2], dim=1)
    half = a + torch.tensor([0.0, 0, 0, 0, np.pi], dtype=a.dtype)
    for other in (quarter, half):
        assert torch.allclose(LOSSES[name](a, b), LOSSES[name](other, b), atol=1e-9)
    nothing = LOSSES[name](b, b)
    assert nothing.abs().max() < 2e-3
