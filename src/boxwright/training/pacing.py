"""As many epochs as fit into the time that a run may take: steps and judging are timed before it starts."""

import itertools
import time

from accelerate.utils import broadcast_object_list

from boxwright.prediction.detect import detect
from boxwright.progress import console
from boxwright.training.loop import ONE_VIEW, Trainer
from boxwright.training.machine import start

WARM_STEPS, LEAST_STEPS, MOST_STEPS, JUDGED_BATCHES = 5, 5, 100, 4
TRIAL = 0.03  # of the time, for timed steps
SPARE = 0.06  # of the time, for checkpoints, the report, and a machine that becomes slower


def pace(trainer: Trainer, seconds: float) -> None:
    """Let a run that is ready to start take about as long as this, one epoch at least.

    Args:
        trainer: whose epochs are planned; its weights stay as they are.
        seconds: from now until the report is there.
    """
    began = time.monotonic()
    step, judging = _seconds_of_step(trainer, TRIAL * seconds), _seconds_of_judging(trainer)
    left = seconds * (1 - SPARE) - (time.monotonic() - began) - judging * len(trainer.config.views)
    epoch = step * trainer.steps_per_epoch
    # How often it is judged depends on how many epochs there are.
    for _ in range(2):
        judged = -(-trainer.config.train.epochs // trainer.evaluate_every) * judging
        epochs = max(1, int((left - judged) / epoch))
        # One process's clock counts for all.
        trainer.plan(broadcast_object_list([epochs])[0])
    if trainer.accelerator.is_main_process:
        late = "[yellow]not even one epoch fits[/]: " if left - judged < epoch else ""
        console.print(f"{late}{trainer.config.train.epochs} epochs of {epoch:.1f} s each (train.minutes)")


def _seconds_of_step(trainer: Trainer, seconds: float) -> float:
    """The mean of as many steps as take about so long, from all of the run, as images may grow during it.

    Each is taken twice and timed once: the first step of a size also makes what the others find made.
    """
    total = trainer.config.train.epochs * trainer.steps_per_epoch
    with trainer.on_trial():
        steps = itertools.chain.from_iterable(trainer.steps_of(n) for n in itertools.count())

        def take(count: int) -> float:
            spent = 0.0
            for n in range(count):
                trainer.progress.step = total * (2 * n + 1) // (2 * count)
                float(trainer.step(next(steps)).sum())  # waits for the device
                began = time.monotonic()
                float(trainer.step(next(steps)).sum())
                spent += time.monotonic() - began
            return spent / count

        wanted = seconds / take(WARM_STEPS) / 2
        return take(broadcast_object_list([int(min(max(wanted, LEAST_STEPS), MOST_STEPS))])[0])


def _seconds_of_judging(trainer: Trainer) -> float:
    """Of all images, in one view."""
    batches = list(itertools.islice(start(trainer.val_loader), JUDGED_BATCHES))
    model = trainer.detector.eval()
    device, images = trainer.accelerator.device, sum(len(batch.images) for batch in batches)
    for _ in range(2):  # the first warms up
        began = time.monotonic()
        detect(model, batches, device, ONE_VIEW, lambda: trainer.accelerator.autocast())
    trainer.to_training()
    own = len(trainer.val_set) / trainer.accelerator.num_processes
    return (time.monotonic() - began) * own / images
