"""`boxwright schedule`: what an experiment's learning rate will do, before a night is spent on it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from torch import nn

from boxwright.config import ExperimentConfig, load_config
from boxwright.data.sampling import draws_of
from boxwright.reporting.page import Section, write_page
from boxwright.reporting.plots import line_plot
from boxwright.training.optimization import make_schedule
from boxwright.training.train import load_data
from boxwright.training.weighing import weigh_images

SHOWN = 12  # rows of the table
POINTS = 1000  # of the curve


@dataclass(frozen=True)
class Plan:
    """A run's learning rate, step by step.

    Attributes:
        config: the experiment.
        images: of an epoch.
        together: images of a step, of all processes.
        steps_per_epoch: optimizer steps.
        rates: (steps,) of the group with the greatest rate.
    """

    config: ExperimentConfig
    images: int
    together: int
    steps_per_epoch: int
    rates: np.ndarray

    def rows(self) -> list[dict[str, Any]]:
        """The rate at some steps, those of its first, greatest and last among them."""
        last = len(self.rates) - 1
        places = {0, int(self.rates.argmax()), last, *np.linspace(0, last, SHOWN - 2).astype(int).tolist()}
        return [
            {
                "step": n,
                "epoch": f"{n / self.steps_per_epoch:.2f}",
                "images": (n + 1) * self.together,
                "rate": f"{self.rates[n]:.3g}",
            }
            for n in sorted(places)
        ]

    def write(self, path: str | os.PathLike, title: str) -> None:
        """Write a page with the curve."""
        chosen = np.unique(np.linspace(0, len(self.rates) - 1, POINTS).astype(int))
        curve = {"learning rate": (chosen / self.steps_per_epoch, self.rates[chosen])}
        figures = {
            "Learning rate": Markup(line_plot(curve, "epoch", "")),
            "The same, logarithmic": Markup(line_plot(curve, "epoch", "", log=True)),
        }
        write_page(Path(path), title, self.describe(), [Section("", rows=self.rows(), figures=figures)])

    def describe(self) -> str:
        """The run in a sentence."""
        settings = self.config.train
        paced = " train.minutes will decide how many epochs there are." if settings.minutes else ""
        return (
            f"{settings.schedule.name}, {settings.optimizer.describe(self.together)}:"
            f" {settings.epochs:,} epochs of {self.images:,} images, {self.together:,} a step,"
            f" {len(self.rates):,} steps.{paced}"
        )


def schedule(config: str | os.PathLike, changes: list[str] | None = None, processes: int = 1) -> Plan:
    """What an experiment's learning rate will do.

    Args:
        config: a YAML file.
        changes: `a.b.c=value` on top of it.
        processes: that will train; each has batches of its own.

    Raises:
        ConfigError, DataError: as `train`.

    Example:
        >>> boxwright.schedule("configs/bccd.yaml", ["train.schedule.name=restarts"]).rates.max()
    """
    experiment = load_config(config, changes)
    settings, data = experiment.train, load_data(experiment)
    often, _ = weigh_images(data.train, experiment.data.sampling)
    together = settings.batch_size * processes
    draws = draws_of(data.sizes, experiment.data.sources, settings.epoch_images, together, often)
    batches = max(1, draws.total // processes // settings.batch_size)
    steps_per_epoch = -(-batches // settings.accumulate)
    images_a_step = settings.images_a_step(processes)
    rate = settings.optimizer.rate(images_a_step)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    planned = make_schedule(optimizer, settings.schedule, settings.epochs * steps_per_epoch)
    rates = []
    for _ in range(settings.epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        planned.step()
    return Plan(experiment, draws.total, images_a_step, steps_per_epoch, np.array(rates))
