"""Optimizer, learning-rate schedule, and the moving average of weights."""

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)
from torch.optim.swa_utils import AveragedModel

from boxwright.config.training import OptimizerConfig, ScheduleConfig
from boxwright.training.muon import Muon, matrices

TensorList = tuple[Tensor, ...] | list[Tensor]
WARMUP_START = 1e-3  # share of the rate at the first step


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """AdamW, SGD, schedule-free AdamW or Muon.

    Norms, biases and scales are not decayed, early stages of the backbone learn slower.
    """
    depths = _depths(model) if config.layer_decay < 1 else {}
    mixing = matrices(model) if config.name == "muon" else set()
    parts: dict[tuple[int, bool, bool], list[nn.Parameter]] = {(0, True, False): [], (0, False, False): []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = depths.get(parameter, 0), parameter.ndim > 1, parameter in mixing
            parts.setdefault(key, []).append(parameter)
    groups = [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "lr": config.lr * config.layer_decay**depth,
        }
        for (depth, decayed, _), parameters in parts.items()
    ]
    if config.name == "muon":
        return Muon([group | {"matrices": mixed} for group, (_, _, mixed) in zip(groups, parts)])
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True)
    if config.name == "schedule_free":
        from schedulefree import AdamWScheduleFree

        optimizer = AdamWScheduleFree(groups, lr=config.lr, r=config.power)
        optimizer.train()
        return optimizer
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=True)


def own_average(model: nn.Module, optimizer: Optimizer) -> nn.Module:
    """A copy of a model with the weights that schedule-free AdamW averages; training's stay as they are.

    Defazio et al., The Road Less Scheduled, NeurIPS 2024, eq. 1 to 3: training sees y = (1 - beta) z + beta
    x, where z are the fast weights, and x, their mean, is what is judged.
    """
    copied = copy.deepcopy(model)
    beta = {p: group["betas"][0] for group in optimizer.param_groups for p in group["params"]}
    with torch.no_grad():
        for parameter, own in zip(model.parameters(), copied.parameters(), strict=True):
            if "z" in optimizer.state.get(parameter, {}):
                own.lerp_(optimizer.state[parameter]["z"], 1 - 1 / beta[parameter])
    return copied


def _depths(model: nn.Module) -> dict[nn.Parameter, int]:
    """Of the backbone's parameters how many of its stages follow, and one; a stage is a child of its body."""
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        return {}
    stages = list(getattr(backbone, "body", backbone).children())
    return {p: len(stages) - n for n, stage in enumerate(stages) for p in stage.parameters()}


def make_schedule(optimizer: Optimizer, config: ScheduleConfig, steps: int) -> LRScheduler:
    """The learning rate over `steps`, after a linear warm-up over a fifth at most (one_cycle has its own)."""
    if config.name == "plateau":
        return Plateau(optimizer, min(config.warmup_steps, steps // 5), config)
    if config.name == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, rates, total_steps=steps + 1)
    warmup = min(config.warmup_steps, steps // 5)
    rest = max(1, steps - warmup)
    shapes = {
        "cosine": _cosine,
        "restarts": partial(_restarts, config.cycles),
        "polynomial": partial(_polynomial, config.power),
        "cyclic": partial(_triangles, config.cycles),
    }
    if config.name in shapes:
        main: LRScheduler = LambdaLR(optimizer, partial(_share, shapes[config.name], rest, config.final))
    elif config.name == "multistep":
        milestones = [max(0, round(m * steps) - warmup) for m in config.milestones]
        main = MultiStepLR(optimizer, milestones, config.gamma)
    else:
        main = ConstantLR(optimizer, factor=1.0, total_iters=0)
    if warmup == 0:
        return main
    return SequentialLR(optimizer, [LinearLR(optimizer, WARMUP_START, 1.0, warmup), main], [warmup])


class Plateau(LRScheduler):
    """A linear warm-up, then a rate that falls when evaluations get no better, down to a floor.

    Args:
        optimizer: whose rate it is.
        warmup: steps.
        config: gamma on the rate after `patience` evaluations without a better AP; final, its least share.
    """

    def __init__(self, optimizer: Optimizer, warmup: int, config: ScheduleConfig):
        self.warmup, self.gamma, self.patience, self.final = (
            warmup,
            config.gamma,
            config.patience,
            config.final,
        )
        self.factor, self.best, self.worse = 1.0, -1.0, 0
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of this step."""
        done = min(1.0, self.last_epoch / self.warmup) if self.warmup else 1.0
        rise = WARMUP_START + (1 - WARMUP_START) * done
        return [base * rise * self.factor for base in self.base_lrs]

    def report(self, ap: float) -> None:
        """Tell what an evaluation has found."""
        self.worse = 0 if ap > self.best else self.worse + 1
        self.best = max(self.best, ap)
        if self.worse >= self.patience:
            self.factor, self.worse = max(self.final, self.factor * self.gamma), 0


def _share(shape: Callable[[float], float], steps: int, final: float, step: int) -> float:
    """Share of the rate after `step` of `steps`: `shape` goes from 1 to 0, of progress from 0 to 1."""
    return final + (1 - final) * shape(min(step, steps) / steps)


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _restarts(cycles: int, progress: float) -> float:
    """Loshchilov and Hutter, SGDR, ICLR 2017, with equal cycles."""
    return _cosine(progress * cycles % 1.0 if progress < 1 else 1.0)


def _polynomial(power: float, progress: float) -> float:
    return (1 - progress) ** power


def _triangles(cycles: int, progress: float) -> float:
    """Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, from the greatest rate on."""
    return abs(1 - 2 * (progress * cycles % 1.0))


def make_average(model: nn.Module, decay: float, start: int = 0) -> AveragedModel:
    """An exponential moving average of weights and statistics.

    The decay rises to `decay` as (1 + n) / (10 + n), so that early averages are not of random weights; in the
    first `start` steps it is 0.
    """

    @torch.no_grad()
    def average(old: TensorList, new: TensorList, _: Tensor | int) -> None:
        if not old[0].is_floating_point():
            torch._foreach_copy_(old, new)
            return
        seen = int(averaged.n_averaged)  # the processor's, where the one that is given is the device's
        share = 0.0 if seen < start else min(decay, (1 + seen) / (10 + seen))
        torch._foreach_lerp_(old, new, 1 - share)  # in one pass over memory

    averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    return averaged
