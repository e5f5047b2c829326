"""Losses against torchvision, torch and finite differences."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from boxwright.losses.box import distribution_focal_loss, giou_loss, smooth_l1_loss
from boxwright.losses.classification import focal_loss


def _boxes(count: int) -> torch.Tensor:
    corner = torch.rand(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(count)) * 50
    size = (
        torch.rand(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(count + 1)) * 40 + 1
    )
    return torch.cat([corner, corner + size], dim=1)


def test_focal_loss_agrees_with_torchvision():
    logits = torch.randn(5, 7, dtype=torch.float64) * 4
    targets = (torch.rand(5, 7) > 0.7).double()
    assert torch.allclose(focal_loss(logits, targets), sigmoid_focal_loss(logits, targets))


def test_giou_loss_agrees_with_torchvision():
    a, b = _boxes(60), _boxes(61)[:60]
    assert torch.allclose(giou_loss(a, b), generalized_box_iou_loss(a, b), atol=1e-6)


def test_giou_gradient_agrees_with_finite_differences():
    a, b = _boxes(8).requires_grad_(), _boxes(9)[:8]
    assert torch.autograd.gradcheck(lambda x: giou_loss(x, b), (a,))


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_smooth_l1_agrees_with_torch(beta):
    a, b = torch.randn(9, 4), torch.randn(9, 4)
    assert torch.allclose(
        smooth_l1_loss(a, b, beta), F.smooth_l1_loss(a, b, reduction="none", beta=beta).sum(-1)
    )


def test_distribution_focal_loss_is_cross_entropy_with_a_split_target():
    logits = torch.randn(6, 8, dtype=torch.float64)
    targets = torch.tensor([0.0, 0.25, 3.0, 3.75, 6.5, 6.9], dtype=torch.float64)
    soft = torch.zeros(6, 8, dtype=torch.float64)
    for n, t in enumerate(targets.tolist()):
        soft[n, int(t)], soft[n, int(t) + 1] = 1 - t % 1, t % 1
    expected = F.cross_entropy(logits, soft, reduction="none")
    assert torch.allclose(distribution_focal_loss(logits, targets), expected)


def test_distribution_focal_loss_is_finite_beyond_its_bins():
    assert distribution_focal_loss(torch.zeros(2, 8), torch.tensor([-3.0, 99.0])).isfinite().all()
