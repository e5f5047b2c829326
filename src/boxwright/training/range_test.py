"""`boxwright lr-find`: the loss while the learning rate rises from nothing to far too much.

Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3, repeated over seeds.
"""

import copy
import itertools

import numpy as np
import torch

from boxwright.training.loop import Trainer

DIVERGED = 4.0  # times the least loss so far, and the test is over


def probe(trainer: Trainer, rates: np.ndarray) -> np.ndarray:
    """The loss of a step at each rate, one after the other; then weights, optimizer and all are as before.

    Args:
        trainer: ready to train.
        rates: (S,) rising, of the group with the greatest rate; the others keep their shares of it.

    Returns:
        (S,), NaN after the loss has diverged.
    """
    parts = trainer.parts()
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    random, losses = torch.get_rng_state(), np.full(len(rates), np.nan)
    groups = trainer.optimizer.param_groups
    greatest = max(group["initial_lr"] for group in groups)
    trainer.to_training()
    steps = itertools.chain.from_iterable(
        trainer.steps_of(n) for n in itertools.count(trainer.progress.epoch)
    )
    try:
        for n, (rate, batches) in enumerate(zip(rates, steps)):
            for group in groups:
                group["lr"] = float(rate) * group["initial_lr"] / greatest
            losses[n] = float(trainer.step(batches).sum())
            if not np.isfinite(losses[n]) or losses[n] > DIVERGED * np.nanmin(losses):
                break
    finally:
        for name, part in parts.items():
            part.load_state_dict(before[name])
        torch.set_rng_state(random)
    return losses
