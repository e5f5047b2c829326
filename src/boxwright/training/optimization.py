"""Optimizer, learning-rate schedule, and the moving average of weights."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)
from torch.optim.swa_utils import AveragedModel

from boxwright.config.experiment import OptimizerConfig, ScheduleConfig

TensorList = tuple[Tensor, ...] | list[Tensor]
WARMUP_START = 1e-3  # share of the rate at the first step


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """AdamW or SGD; norms, biases and scales are not decayed."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True)
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=True)


def make_schedule(optimizer: Optimizer, config: ScheduleConfig, steps: int) -> LRScheduler:
    """The learning rate over `steps`, after a linear warm-up over a fifth at most (one_cycle has its own)."""
    if config.name == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, rates, total_steps=steps + 1)
    warmup = min(config.warmup_steps, steps // 5)
    rest = max(1, steps - warmup)
    if config.name == "cosine":
        least = optimizer.param_groups[0]["lr"] * config.final
        main: LRScheduler = CosineAnnealingLR(optimizer, rest, eta_min=least)
    elif config.name == "multistep":
        milestones = [max(0, round(m * steps) - warmup) for m in config.milestones]
        main = MultiStepLR(optimizer, milestones, config.gamma)
    else:
        main = ConstantLR(optimizer, factor=1.0, total_iters=0)
    if warmup == 0:
        return main
    return SequentialLR(optimizer, [LinearLR(optimizer, WARMUP_START, 1.0, warmup), main], [warmup])


def make_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and statistics.

    The decay rises to `decay` as (1 + n) / (10 + n), so that early averages are not of random weights.
    """

    @torch.no_grad()
    def average(averaged: TensorList, current: TensorList, count: Tensor | int) -> None:
        if not averaged[0].is_floating_point():
            torch._foreach_copy_(averaged, current)
            return
        weight = 1 - torch.as_tensor((1 + count) / (10 + count)).clamp(max=decay)
        change = torch._foreach_sub(current, averaged)
        torch._foreach_mul_(change, weight.to(averaged[0].dtype))
        torch._foreach_add_(averaged, change)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
