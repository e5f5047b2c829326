"""Muon: steps of matrices are made orthogonal; all else is AdamW's."""

import math
from collections.abc import Iterable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Newton and Schulz's iteration, which has five steps
ROUNDS = 5
RMS = 0.2  # of a step's entries, as AdamW's have: one rate fits both
LEAST_OUTPUTS = 9  # of a matrix; what has fewer is a detector's last layer


def matrices(model: nn.Module) -> set[Tensor]:
    """Weights of linear layers and of convolutions that mix channels, but for those of a few outputs."""
    mixing = [m for m in model.modules() if isinstance(m, nn.Linear) or _mixes(m)]
    return {m.weight for m in mixing if len(m.weight) >= LEAST_OUTPUTS}


def _mixes(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return isinstance(module, nn.Conv2d) and module.groups == 1


class Muon(Optimizer):
    """Muon for matrices (a convolution's rows are its outputs), AdamW for the rest.

    Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024; the scale of steps and the
    decay are of Liu et al., Muon is Scalable for LLM Training, 2025, section 2.2.

    Args:
        groups: parameters with `lr`, `weight_decay` and `matrices`, whether they are; see `matrices`.
        momentum: of matrices.
        betas, eps: of AdamW.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        super().__init__(groups, {"lr": 1e-3, "momentum": momentum, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move all parameters that have a gradient."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            (self._step_matrices if group["matrices"] else self._step_others)(moved, group)

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        alike: dict[tuple[int, ...], list[Tensor]] = {}
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            alike.setdefault((len(parameter), parameter[0].numel()), []).append(parameter)
        for (rows, columns), own in alike.items():  # one product for all of a shape
            gradients = [p.grad for p in own if p.grad is not None]
            means = [self.state[p]["momentum"] for p in own]
            torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, means, group["momentum"])  # Nesterov's
            steps = orthogonal(torch.stack([a.flatten(1) for a in ahead]))
            torch._foreach_mul_(own, 1 - group["lr"] * group["weight_decay"])
            scale = -group["lr"] * RMS * math.sqrt(max(rows, columns))
            torch._foreach_add_(own, [s.view_as(p) for s, p in zip(steps, own)], alpha=scale)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                # On the device, so that no step waits for it; torch would leave a "step" where it was loaded.
                state["count"] = torch.zeros((), device=parameter.device)
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        means, squares, steps = ([self.state[p][n] for p in parameters] for n in ("mean", "square", "count"))
        adamw(
            parameters, gradients, means, squares, [], steps, fused=True, amsgrad=False, maximize=False,
            beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"], eps=group["eps"],
            weight_decay=group["weight_decay"],
        )  # fmt: skip


def orthogonal(given: Tensor) -> Tensor:
    """The nearest matrices (N, R, C) whose singular values are all about 1, from 0.7 to 1.2.

    The iteration is a polynomial of X times X, so it goes on in the products of rows, which are small beside
    a convolution's nine columns an input: X enters twice instead of ten times.
    """
    tall = given.shape[-2] > given.shape[-1]
    wide = given.mT if tall else given
    wide = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    product = wide @ wide.mT
    whole = factor = _factor(product)
    for _ in range(ROUNDS - 1):
        product = factor @ (product @ factor)
        factor = _factor(product)
        whole = factor @ whole
    found = whole @ wide
    return found.mT if tall else found


def _factor(product: Tensor) -> Tensor:
    """What a round multiplies the matrices by, whose rows have these products (N, R, R)."""
    a, b, c = COEFFICIENTS
    factor = torch.baddbmm(product, product, product, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor
