"""Losses against torchvision, torch and finite differences."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from boxwright.losses.box import (
    balanced_l1_loss,
    ciou_loss,
    diou_loss,
    distribution_focal_loss,
    giou_loss,
    smooth_l1_loss,
)
from boxwright.losses.classification import focal_loss
from boxwright.losses.distribution import expected


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


IOU_LOSSES = {
    giou_loss: generalized_box_iou_loss,
    diou_loss: distance_box_iou_loss,
    ciou_loss: complete_box_iou_loss,
}


@pytest.mark.parametrize("ours", IOU_LOSSES)
def test_iou_losses_and_their_gradients_agree_with_torchvision(ours):
    a, b = _boxes(60), _boxes(61)[:60]
    slopes = []
    for loss in (ours, IOU_LOSSES[ours]):
        boxes = a.clone().requires_grad_()
        values = loss(boxes, b)
        values.sum().backward()
        slopes.append((values.detach(), boxes.grad))
    for found, wanted in zip(*slopes):
        assert torch.allclose(found, wanted, atol=1e-6)


# CIoU's trade-off has no gradient on purpose, so its slope isn't that of its values.
@pytest.mark.parametrize("loss", [giou_loss, diou_loss])
def test_gradients_agree_with_finite_differences(loss):
    a, b = _boxes(8).requires_grad_(), _boxes(9)[:8]
    assert torch.autograd.gradcheck(lambda x: loss(x, b), (a,))


@pytest.mark.parametrize("loss", IOU_LOSSES)
def test_iou_losses_are_finite_on_boxes_without_area(loss):
    boxes = torch.tensor([[5.0, 5, 5, 5], [0, 0, 9, 0], [1, 1, 4, 4]], requires_grad=True)
    truth = torch.tensor([[5.0, 5, 5, 5], [3, 3, 3, 8], [1, 1, 4, 4]])
    loss(boxes, truth).sum().backward()
    assert boxes.grad.isfinite().all()


def test_balanced_l1_has_the_slope_of_its_paper_and_no_jump():
    """Equation 7: alpha ln(b |x| + 1) below 1, gamma above, with alpha ln(b + 1) = gamma."""
    x = torch.linspace(-3, 3, 61, dtype=torch.float64).requires_grad_()
    loss = balanced_l1_loss(x[:, None], torch.zeros(61, 1, dtype=torch.float64))
    loss.sum().backward()
    b = torch.tensor(1.5 / 0.5).exp().double() - 1
    size = x.detach().abs()
    expected = torch.where(size < 1, 0.5 * (b * size + 1).log(), 1.5) * x.detach().sign()
    assert torch.allclose(x.grad, expected)
    assert loss[30] < 1e-12
    edge = torch.tensor([[1 - 1e-9], [1 + 1e-9]], dtype=torch.float64)
    below, above = balanced_l1_loss(edge, torch.zeros_like(edge))
    assert abs(below - above) < 1e-8


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


def test_a_mean_of_values_is_that_of_their_probabilities():
    generator = torch.Generator().manual_seed(0)
    logits, values = torch.randn(2, 5, 4, 17, generator=generator).double(), torch.arange(17.0).double()
    probability = logits.exp() / logits.exp().sum(-1, keepdim=True)
    torch.testing.assert_close(expected(logits, values), (probability * values).sum(-1))
