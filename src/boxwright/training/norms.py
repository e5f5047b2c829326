"""Statistics of batch norms for weights that are judged: gathered anew, by these weights.

A mean of weights has never run, and the statistics of those that were trained don't fit it: Izmailov et al.,
Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018, section 3.2. The moving averages
of training are of small images too, where images grow.
"""

from collections.abc import Iterable
from contextlib import nullcontext

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

LEAST, MOST = 64, 512  # images that tell: fewer tell nothing, and training's statistics stay
AFTER = 1 << 30  # an epoch that no run reaches


def draws_that_tell(
    images: int, batch_size: int, seed: int, rank: int = 0, world: int = 1
) -> list[tuple[int, int]]:
    """Epoch and place of the training images that are looked at: whole batches, as many in each process.

    Always with the same changes: of after the last epoch.
    """
    telling = np.random.default_rng(seed).permutation(images)[: MOST if images >= LEAST else 0]
    own = telling[rank : len(telling) // world * world : world].tolist()
    return [(AFTER, n) for n in own[: max(len(own) // batch_size * batch_size, batch_size)]]


@torch.no_grad()
def gather_statistics(
    model: nn.Module, like: nn.Module, images: Iterable[Tensor], accelerator: Accelerator | None = None
) -> None:
    """Replace the running statistics of a model by the mean of those of batches, of all processes.

    Args:
        model: is changed in place, and in eval mode afterwards.
        like: the same as it is trained: norms that are in eval mode there keep their statistics.
        images: batches (B, 3, H, W) on the device; none: all norms keep theirs.
        accelerator: precision and processes; None: full, one.
    """
    pairs = zip(model.modules(), like.modules(), strict=True)
    norms = [norm for norm, own in pairs if isinstance(norm, _BatchNorm) and own.training]
    model.eval()
    before = [(norm.momentum, {k: v.clone() for k, v in norm.state_dict().items()}) for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    for batch in images if norms else ():
        with nullcontext() if accelerator is None else accelerator.autocast():
            model(batch)
    for norm, (momentum, state) in zip(norms, before):
        norm.eval()
        norm.momentum = momentum
        if not norm.num_batches_tracked:  # which has a part in training alone
            norm.load_state_dict(state)
    if accelerator is not None and accelerator.num_processes > 1 and norms:
        _share(norms, accelerator)


def _share(norms: list[_BatchNorm], accelerator: Accelerator) -> None:
    """Give every process the mean of all processes' statistics."""
    own = [t for norm in norms for t in (norm.running_mean, norm.running_var) if t is not None]
    mean = accelerator.reduce(torch.cat(own), "mean")
    assert isinstance(mean, Tensor)
    for statistic, shared in zip(own, mean.split([len(t) for t in own])):
        statistic.copy_(shared)
