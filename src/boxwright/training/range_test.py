"""`boxwright lr-find`: the loss while the learning rate rises from nothing to far too much.

Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3, repeated over seeds.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from markupsafe import Markup

from boxwright.config import ExperimentConfig, load_config
from boxwright.errors import ConfigError, DataError
from boxwright.models.checkpoint import load_detector
from boxwright.progress import progress_bar
from boxwright.reporting.page import Section, write_page
from boxwright.reporting.plots import line_plot
from boxwright.training.loop import Trainer
from boxwright.training.machine import loader_faults
from boxwright.training.run import make_trainer
from boxwright.training.run_folder import CONFIG
from boxwright.training.state import STATE
from boxwright.training.train import load_data

DIVERGED = 4.0  # times the least mean of some steps, and the test is over
FEW = 0.1  # of all steps, in such a mean
WIDTH = 0.05  # deviation of the smoothing, of all steps
START = 0.2  # first part of the steps, whose mean is the loss before anything was learnt
RISEN = 0.1  # of the descent, by which a loss that has risen again is no longer stable
HALF = 0.5  # of the descent, whose rate is recommended


@dataclass(frozen=True)
class RangeTest:
    """Losses at rising learning rates, and the rates to read from them.

    Attributes:
        optimizer: its name.
        images: of a step.
        scaled: whether the experiment changes its rate with them (train.optimizer.lr_batch).
        rates: (S,) of each length, rising.
        losses: (seeds, S) of each length, NaN after a loss has diverged.
    """

    optimizer: str
    images: int
    scaled: bool
    rates: list[np.ndarray]
    losses: list[np.ndarray]

    @property
    def recommended(self) -> float:
        """By the longest test: a short one has to climb faster, and gets as far at greater rates alone."""
        return max(self.rows(), key=lambda row: row["steps"])["recommended"]

    def rows(self) -> list[dict[str, Any]]:
        """Of each length the rates that the mean of all seeds gives, and the recommended ones of each."""
        rows = []
        for rates, losses in zip(self.rates, self.losses):
            row = {"steps": len(rates)} | read_rates(rates, mean_curve(losses))
            alone = [read_rates(rates, own)["recommended"] for own in losses]
            rows.append(row | {"of single seeds": f"{min(alone):.2g} to {max(alone):.2g}"})
        return rows

    def shown(self) -> list[dict[str, Any]]:
        """The rows as one reads them."""
        return [
            {name: f"{value:.2g}" if isinstance(value, float) else value for name, value in row.items()}
            for row in self.rows()
        ]

    def write(self, path: str | os.PathLike, title: str) -> None:
        """Write a page with the curves: the mean, the seeds around it, and where the rates stand."""
        figures = {}
        for rates, losses, row in zip(self.rates, self.losses, self.rows()):
            mean = smooth(mean_curve(losses))
            each = np.stack([smooth(own) for own in losses])
            known = np.isfinite(each).any(axis=0) & np.isfinite(mean)
            low, high = (f(np.where(np.isnan(each), mean, each), axis=0) for f in (np.min, np.max))
            x, y = rates[known], mean[known]
            named = ("steepest", "stable", "recommended")
            marks = {name: (row[name], float(np.interp(row[name], x, y))) for name in named}
            series: dict = {"mean": (x, y), "lowest": (x, low[known]), "highest": (x, high[known])}
            series |= {name: ([rate], [loss]) for name, (rate, loss) in marks.items()}
            plot = line_plot(series, "learning rate", "loss", log=True, log_x=True, marks=marks)
            figures[f"{len(rates)} steps, {len(losses)} seeds"] = Markup(plot)
        text = f"{self.optimizer}: {self.recommended:.2g} is recommended, the rate of half the descent."
        write_page(Path(path), title, text, [Section("", rows=self.shown(), figures=figures)])


def lr_find(
    experiment: str | os.PathLike,
    changes: list[str] | None = None,
    steps: Sequence[int] = (100,),
    seeds: int = 3,
    low: float = 1e-6,
    high: float = 1.0,
) -> RangeTest:
    """Find a learning rate by trying all of them.

    Each test is a training of its own, whose rate rises from `low` to `high` with every step; nothing of it
    is kept.

    Args:
        experiment: a YAML file, for the weights that it starts from; a checkpoint, to train on from it; or
            the folder of a run that was stopped, to go on with its optimizer's state.
        changes: `a.b.c=value` on top of a YAML file, such as train.optimizer.name=sgd or train.accumulate=4.
        steps: lengths of the tests.
        seeds: tests of each length, with other orders of the images, and other weights where they are random.
        low, high: rates.

    Raises:
        ConfigError: rates or lengths that can't be meant.
        DataError, CheckpointError: as `train`.

    Example:
        >>> boxwright.lr_find("configs/bccd.yaml", ["train.optimizer.name=sgd"]).recommended
    """
    if not 0 < low < high:
        raise ConfigError(f"rates from {low:g} to {high:g}, expected two that rise from above 0.")
    if seeds < 1 or not steps or min(steps) < 20:
        raise ConfigError(f"{seeds} seeds of {list(steps)} steps, expected at least one of 20 steps.")
    config, folder = _open(Path(experiment), changes)
    data = load_data(config)
    rates = [np.geomspace(low, high, count) for count in steps]
    losses = [np.full((seeds, count), np.nan) for count in steps]
    with TemporaryDirectory() as empty, progress_bar("lr-find", seeds * sum(steps)) as tell:
        for seed, n in itertools.product(range(seeds), range(len(steps))):
            train = config.train.model_copy(update={"seed": config.train.seed + seed})
            own = config.model_copy(update={"train": train})
            trainer = make_trainer(own, data, folder or Path(empty), folder is not None)
            with loader_faults():
                losses[n][seed] = probe(trainer, rates[n], tell)
    if any(np.isnan(own[:, int(START * own.shape[1])]).any() for own in losses):
        raise DataError(f"the loss is no number even at rates near {low:g}; see `boxwright data check`.")
    images, optimizer = config.train.images_a_step(1), config.train.optimizer
    return RangeTest(optimizer.name, images, optimizer.lr_batch is not None, rates, losses)


def _open(experiment: Path, changes: list[str] | None) -> tuple[ExperimentConfig, Path | None]:
    """The config of a test, and the folder of a run to go on with."""
    if experiment.suffix in (".yaml", ".yml"):
        config, folder = load_config(experiment, changes), None
    elif changes:
        raise ConfigError("--set changes a YAML file; a run has its own config.")
    elif (experiment / "checkpoints" / STATE).is_file():
        config, folder = load_config(experiment / CONFIG), experiment
    else:
        config, folder = load_detector(experiment).config, None
        weights = {"weights": str(experiment), "weights_from": None}
        config = config.model_copy(update={"model": config.model.model_copy(update=weights)})
    # No time goes into judging, and into decoding images that the test won't see.
    quiet = config.train.model_copy(update={"cache_gib": 0.0, "evaluate_every": 1})
    return config.model_copy(update={"train": quiet}), folder


def probe(
    trainer: Trainer, rates: np.ndarray, tell: Callable[[int], None] = lambda count: None
) -> np.ndarray:
    """The loss of a step at each rate, one after the other; then weights, optimizer and all are as before.

    Args:
        trainer: ready to train.
        rates: (S,) rising, of the group with the greatest rate; the others keep their shares of it.
        tell: called with the number of steps that are done.

    Returns:
        (S,), NaN after the loss has diverged.
    """
    with trainer.on_trial():
        return _probe(trainer, rates, tell)


def _probe(trainer: Trainer, rates: np.ndarray, tell: Callable[[int], None]) -> np.ndarray:
    losses = np.full(len(rates), np.nan)
    groups = trainer.learner.optimizer.param_groups
    greatest = max(group["initial_lr"] for group in groups)
    epochs = itertools.count(trainer.progress.epoch)
    steps = itertools.chain.from_iterable(trainer.steps_of(n) for n in epochs)
    n = -1
    try:
        for n, (rate, batches) in enumerate(zip(rates, steps)):
            for group in groups:
                group["lr"] = float(rate) * group["initial_lr"] / greatest
            loss = float(trainer.step(batches).sum())
            tell(1)
            if not np.isfinite(loss):
                break
            losses[n] = loss
            few = max(1, int(FEW * len(rates)))
            means = np.convolve(losses[: n + 1], np.full(few, 1 / few), "valid")
            if n + 1 >= few and means[-1] > DIVERGED * means.min():
                losses[n + 1 - few : n + 1] = np.nan
                break
    finally:
        tell(len(rates) - n - 1)
    return losses


def mean_curve(losses: np.ndarray) -> np.ndarray:
    """(S,) geometric mean of the seeds (seeds, S), as far as none has diverged."""
    return np.exp(np.log(losses).mean(axis=0))


def smooth(losses: np.ndarray) -> np.ndarray:
    """Losses (S,) under a Gaussian, over the steps that have one; NaN at the others.

    Their logarithms are averaged: of a few images a loss may be many times another's.
    """
    width = max(1.0, WIDTH * len(losses))
    reach = np.arange(-int(3 * width), int(3 * width) + 1)
    kernel, known = np.exp(-0.5 * (reach / width) ** 2), np.isfinite(losses)
    total = np.convolve(np.log(np.where(known, losses, 1.0)), kernel, "same")
    return np.where(known, np.exp(total / np.maximum(np.convolve(known, kernel, "same"), 1e-12)), np.nan)


def read_rates(rates: np.ndarray, losses: np.ndarray) -> dict[str, float]:
    """What a curve says of the rate.

    Args:
        rates: (S,) rising evenly in their logarithm.
        losses: (S,), NaN from where they have diverged.

    Returns:
        steepest: where the smoothed loss falls fastest; tenth: a tenth of the rate of the least loss; stable:
        the last rate before it has risen by a tenth of its descent; recommended: the rate at which half of
        the descent is done, which is steadier than the others. All of the loss's logarithm.
    """
    curve = np.log(smooth(losses))
    curve = curve[: np.flatnonzero(np.isfinite(curve))[-1] + 1]
    lowest = int(np.argmin(curve))
    begun = float(np.log(losses[: max(1, int(START * len(losses)))]).mean())
    descent = max(begun - curve[lowest], 0.0)
    fall = np.gradient(curve)[: lowest + 1]
    risen = np.flatnonzero(curve[lowest:] > curve[lowest] + RISEN * descent)
    stable = lowest + int(risen[0]) - 1 if len(risen) else len(curve) - 1
    above = np.flatnonzero(curve[: lowest + 1] > begun - HALF * descent)
    half = min(int(above[-1]) + 1 if len(above) else 0, lowest)
    return {
        "steepest": float(rates[int(np.argmin(fall))]),
        "tenth": float(rates[lowest]) / 10,
        "stable": float(rates[max(stable, lowest)]),
        "recommended": float(rates[half]),
    }
