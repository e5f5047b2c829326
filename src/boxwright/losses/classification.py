"""Losses on class logits, elementwise: nothing is summed here."""

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss, of the shape of `logits`.

    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 5.

    Args:
        logits: (...).
        targets: (...) 0 or 1.
    """
    probability = logits.sigmoid()
    distance = torch.where(targets > 0, 1 - probability, probability)
    balance = torch.where(targets > 0, alpha, 1 - alpha)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return balance * distance.pow(gamma) * cross_entropy


def quality_focal_loss(logits: Tensor, targets: Tensor, beta: float = 2.0) -> Tensor:
    """Cross-entropy against a quality in [0, 1], weighted by how far the score is from it.

    Li et al., Generalized Focal Loss, NeurIPS 2020, equation 4; of the shape of `logits`.
    """
    distance = (targets - logits.sigmoid()).abs()
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * distance.pow(beta)


def varifocal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Cross-entropy against a quality, weighted by it; what should be 0 is weighted as in the focal loss.

    Zhang et al., VarifocalNet, CVPR 2021, equation 2; of the shape of `logits`.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return cross_entropy * torch.where(targets > 0, targets, alpha * logits.sigmoid().pow(gamma))


def soft_binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against a target in [0, 1], of the shape of `logits`."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
