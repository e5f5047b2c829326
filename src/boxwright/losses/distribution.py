"""Sides that are distributions: their means, and losses on shifts over steps that are finer near zero.

Peng et al., D-FINE, ICLR 2025, sections 4.1 and 4.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 5.0


def expected(logits: Tensor, values: Tensor) -> Tensor:
    """Means of values (K,) by the softmax of logits (..., K), as (...).

    By a product of two matrices: onnxruntime takes that of a matrix and a vector place by place, seven times
    as slow.
    """
    return (logits.softmax(-1) @ values[:, None]).squeeze(-1)


def side_weights(bins: int, up: float, reg_scale: float) -> Tensor:
    """The shift that each of `bins` + 1 steps stands for, ascending; D-FINE, equation 3.

    Args:
        bins: even.
        up: greatest shift but for the outermost steps', in halves of the box.
        reg_scale: of shifts; the larger, the more they bend.
    """
    most = abs(up * reg_scale)
    root = (most + 1) ** (2 / (bins - 2))
    right = [root**n - 1 for n in range(1, bins // 2)]
    return torch.tensor([-2 * most, *(-shift for shift in reversed(right)), 0.0, *right, 2 * most])


def fine_grained_loss(logits: Tensor, shifts: Tensor, steps: Tensor) -> Tensor:
    """Cross-entropy with the two steps around each shift, weighted by nearness; D-FINE, equation 5.

    Args:
        logits: (..., bins + 1).
        shifts: (...), cut at the outermost steps.
        steps: (bins + 1,), see `side_weights`.

    Returns:
        (...).
    """
    shifts = shifts.detach().clamp(steps[0], steps[-1])
    left = (torch.searchsorted(steps, shifts.contiguous(), right=True) - 1).clamp(0, len(steps) - 2)
    nearness = (shifts - steps[left]) / (steps[left + 1] - steps[left])  # to the right one
    log_probability = logits.log_softmax(-1)
    at_left, at_right = (log_probability.gather(-1, place[..., None])[..., 0] for place in (left, left + 1))
    return -((1 - nearness) * at_left + nearness * at_right)


def decoupled_distillation_loss(
    logits: Tensor, teacher: Tensor, importance: Tensor, positive: Tensor
) -> Tensor:
    """Divergence from the last layer's distributions, matched predictions and others apart; D-FINE, eq. 6.

    Args:
        logits: (B, L, Q, 4, bins + 1).
        teacher: (B, 1, Q, 4, bins + 1), without gradient.
        importance: (B, L, Q) of each prediction.
        positive: (B, L, Q) bool.

    Returns:
        The sum over layers.
    """
    wanted = (teacher.detach() / TEMPERATURE).softmax(-1)
    divergence = F.kl_div((logits / TEMPERATURE).log_softmax(-1), wanted.expand_as(logits), reduction="none")
    each = divergence.sum((-1, -2)) * importance.detach() * TEMPERATURE**2 / 4  # (B, L, Q), the mean of sides
    total, shares = torch.zeros_like(each[0, :, 0]), torch.zeros_like(each[0, :, 0])
    for mask in (positive, ~positive):
        count = mask.float().sum((0, 2))  # (L,)
        mean = (each * mask).sum((0, 2)) / count.clamp(min=1)
        total, shares = total + mean * count.sqrt(), shares + count.sqrt()
    return (total / shares.clamp(min=1e-6)).sum()
