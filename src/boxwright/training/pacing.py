"""As many epochs as fit into the time that a run may take: steps and judging are timed before it starts.

So a run is one of so many epochs, which another can repeat. Where the machine turns out to be much faster or
slower than it was then, as other work ends or begins beside, they are planned anew.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader

from boxwright.data.targets import Batch
from boxwright.prediction.detect import detect
from boxwright.progress import console
from boxwright.training.loop import ONE_VIEW, Trainer
from boxwright.training.machine import start
from boxwright.training.run_folder import write_config

WARM_STEPS, LEAST_STEPS, MOST_STEPS, JUDGED_BATCHES = 5, 5, 100, 4
TRIAL = 0.03  # of the time, for timed steps
SPARE = 0.04  # of the time, for checkpoints, the report, and a machine that becomes a little slower
LOOKED_AT = 0.03  # of the time, in which epochs tell how fast the machine is
LOOKS = 3  # the last ones, whose median counts: other work during one of them changes nothing
TOLERATED = 0.04  # of the time, by which a run may end earlier or later than it should


@dataclass
class Pace:
    """What a run of so long is planned by.

    Attributes:
        trainer: whose epochs are planned.
        end: of the run, on the monotonic clock, but for what is spare.
        seconds: that it may take.
        costs: (K,) seconds of a step, at as many places from the run's start to its end.
        judging: seconds that it takes in one view.
        gathering: seconds that the statistics of norms take, before weights are judged for the first time.
    """

    trainer: Trainer
    end: float
    seconds: float
    costs: np.ndarray
    judging: float
    gathering: float
    _epoch: int = field(default=0, init=False)  # the last look
    _seconds: float = field(default=0.0, init=False)
    _looks: deque[float] = field(default_factory=partial(deque, maxlen=LOOKS), init=False)

    def plan(self) -> None:
        """Before the first step."""
        trainer = self.trainer
        left, epochs = self.end - time.monotonic(), trainer.config.train.epochs
        # How often it is judged depends on how many epochs there are.
        for _ in range(2):
            epochs = max(1, self._fitting(left))
            # One process's clock counts for all.
            trainer.plan(broadcast_object_list([epochs])[0])
        if trainer.accelerator.is_main_process:
            write_config(trainer.folder, trainer.config)
            epoch = self._training(0, epochs, epochs) / epochs
            short = self._training(0, 1, 1) > left - self._judging(0, 1)
            late = "[yellow]not even one epoch fits[/]: " if short else ""
            console.print(f"{late}{trainer.config.train.epochs} epochs of {epoch:.1f} s each (train.minutes)")

    def adjust(self) -> None:
        """After an epoch: plan anew where it would end much too early or too late."""
        trainer = self.trainer
        old = trainer.config.train.epochs
        new = broadcast_object_list([self._epochs_now()])[0]
        if new == old:
            return
        trainer.plan(new)
        if trainer.accelerator.is_main_process:
            write_config(trainer.folder, trainer.config)
            how = "slower" if new < old else "faster"
            console.print(f"{new} epochs in place of {old}: the machine is {how} than it was (train.minutes)")

    def _epochs_now(self) -> int:
        trainer = self.trainer
        done, epochs = trainer.progress.epoch, trainer.config.train.epochs
        spent = trainer.progress.seconds - self._seconds
        if spent < LOOKED_AT * self.seconds and done < epochs:
            return epochs
        self._looks.append(spent / self._training(self._epoch, done, epochs))
        slower = float(np.median(self._looks))
        self._epoch, self._seconds = done, trainer.progress.seconds
        left = self.end - time.monotonic()
        needed = slower * self._training(done, epochs, epochs) + self._judging(done, epochs)
        if abs(left - needed) <= TOLERATED * self.seconds:
            return epochs
        return max(done, self._fitting(left, done, slower))

    def _fitting(self, left: float, done: int = 0, slower: float = 1.0) -> int:
        """How many epochs there can be, `done` among them, where a step takes so many times its cost."""
        low, high = done, done + 1
        while self._fits(left, done, slower, high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(left, done, slower, middle) else (low, middle)
        return low

    def _fits(self, left: float, done: int, slower: float, epochs: int) -> bool:
        needed = slower * self._training(done, epochs, epochs) + self._judging(done, epochs)
        return needed <= left

    def _training(self, first: int, last: int, epochs: int) -> float:
        """Of the epochs from `first` to `last` of a run of so many."""
        places = (np.arange(len(self.costs)) + 0.5) / len(self.costs)
        looked_at = np.linspace(first / epochs, last / epochs, 2 * len(self.costs) + 1)
        step = np.interp(looked_at, places, self.costs).mean()
        return float((last - first) * self.trainer.steps_per_epoch * step)

    def _judging(self, done: int, epochs: int) -> float:
        """While epochs are trained, and of the best weights at the end."""
        every = self.trainer.evaluate_every
        times = -(-epochs // every) - done // every
        return self.judging * (times + len(self.trainer.config.views)) + self.gathering * times


def pace(trainer: Trainer, seconds: float) -> None:
    """Let a run that is ready to start take about as long as this, one epoch at least.

    Args:
        trainer: whose epochs are planned; its weights stay as they are.
        seconds: from now until the report is there.
    """
    end = time.monotonic() + seconds * (1 - SPARE)
    costs = _seconds_of_steps(trainer, TRIAL * seconds)
    pace = Pace(trainer, end, seconds, costs, _seconds_of_judging(trainer), _seconds_of_gathering(trainer))
    pace.plan()
    trainer.after_epoch = pace.adjust


def _seconds_of_steps(trainer: Trainer, seconds: float) -> np.ndarray:
    """(K,) of as many steps as take about so long, from all of the run, as images may grow during it.

    Each is taken twice and timed once: the first step of a size also makes what the others find made.
    """
    total = trainer.config.train.epochs * trainer.steps_per_epoch
    with trainer.on_trial():
        steps = itertools.chain.from_iterable(trainer.steps_of(n) for n in itertools.count())

        def take(count: int) -> np.ndarray:
            spent = np.zeros(count)
            for n in range(count):
                trainer.progress.step = total * (2 * n + 1) // (2 * count)
                float(trainer.step(next(steps)).sum())  # waits for the device
                began = time.monotonic()
                float(trainer.step(next(steps)).sum())
                spent[n] = time.monotonic() - began
            return spent

        wanted = seconds / take(WARM_STEPS).mean() / 2
        return take(broadcast_object_list([int(min(max(wanted, LEAST_STEPS), MOST_STEPS))])[0])


def _seconds_of_judging(trainer: Trainer) -> float:
    """Of all images, in one view."""
    model, device = trainer.learner.detector.eval(), trainer.accelerator.device
    autocast = trainer.learner.autocast
    seconds = _seconds_of(trainer.val_loader, lambda some: detect(model, some, device, ONE_VIEW, autocast))
    trainer.learner.to_training()
    return seconds


def _seconds_of_gathering(trainer: Trainer) -> float:
    """Of the statistics of norms, which are of images as they are trained."""
    return _seconds_of(trainer.norms_loader, lambda some: trainer.learner.judged(b.images for b in some))


def _seconds_of(loader: DataLoader, work: Callable[[list[Batch]], object]) -> float:
    """Of work with all batches of this process, by that with a few."""
    batches = list(itertools.islice(start(loader), JUDGED_BATCHES))
    began = time.monotonic()
    for _ in range(2):  # the first warms up
        began = time.monotonic()
        work(batches)
    return (time.monotonic() - began) * len(loader) / max(len(batches), 1)
