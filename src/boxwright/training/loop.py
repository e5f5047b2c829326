"""The training loop, on Hugging Face Accelerate for devices, precision and processes."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch import Tensor

from boxwright.config import ExperimentConfig
from boxwright.config.experiment import View
from boxwright.config.places import BEST, LAST
from boxwright.data.dataset import DetectionDataset
from boxwright.data.sampling import Draws, EpochSampler
from boxwright.data.statistics import input_statistics
from boxwright.data.targets import Batch
from boxwright.errors import DataError, NonFiniteError
from boxwright.evaluation.evaluate import Evaluation, evaluate
from boxwright.models.checkpoint import save_detector
from boxwright.models.detector import Detector
from boxwright.prediction.detect import detect, to_tables
from boxwright.progress import console
from boxwright.training.display import TrainingDisplay
from boxwright.training.learner import Learner
from boxwright.training.machine import (
    ahead,
    loader_faults,
    make_accelerator,
    make_loader,
    part_at_exit,
    start,
)
from boxwright.training.metrics import MetricsLog, start_trackers
from boxwright.training.norms import draws_that_tell
from boxwright.training.optimization import Plateau
from boxwright.training.preparation import Preparation
from boxwright.training.state import STATE, Progress, load_state, save_state
from boxwright.training.stopping import Stop
from boxwright.training.train import Callback
from boxwright.training.watching import LossWatch

ONE_VIEW: tuple[View, ...] = ("plain",)  # while training; the best weights are judged in all views at the end
EVALUATION_SHARE = 0.05


class Trainer:
    """A model, its data, and where the run stands.

    Args:
        model: a detector.
        config: the experiment.
        folder: of the run.
        train_set, val_set: samples.
        categories: names, for the checkpoints.
        fresh: parameters that start anew, where the others' weights were given.
        resume: go on from the state in the folder; from the start where a run was stopped before its first.
        draws: images of an epoch; None: each once.
        weights: (images,) of the training set, on their gradients; None: all count alike.
        unlabelled: (images,) bool, those whose boxes `train.teacher` finds; None: none.
        callbacks: see `train`.

    Raises:
        DataError: fewer images than processes.
        CheckpointError: the state is damaged or of another model.
    """

    def __init__(
        self,
        model: Detector,
        config: ExperimentConfig,
        folder: Path,
        train_set: DetectionDataset,
        val_set: DetectionDataset,
        categories: list[str],
        resume: bool,
        fresh: Sequence[str] = (),
        draws: Draws | None = None,
        weights: Tensor | None = None,
        unlabelled: Tensor | None = None,
        callbacks: Mapping[str, Callback] | None = None,
    ):
        self.config, self.folder, self.categories = config, folder, categories
        self.callbacks = callbacks or {}
        self.after_epoch: Callable[[], None] = lambda: None  # before it is judged; may plan anew
        self.statistics = input_statistics(train_set.tables, config.image_size)
        settings = config.train
        self.accelerator = make_accelerator(settings, folder)
        device, world, rank = (
            self.accelerator.device,
            self.accelerator.num_processes,
            self.accelerator.process_index,
        )
        if len(train_set) < world:
            raise DataError(f"{len(train_set)} training images for {world} processes.")
        self.sampler = EpochSampler(draws or len(train_set), settings.seed, True, rank, world)
        make = partial(make_loader, model, settings.batch_size, settings.workers, device)
        self.loader = make(train_set, self.sampler)
        val_sampler = EpochSampler(len(val_set), settings.seed, False, rank, world, even=False)
        self.val_loader = make(val_set, val_sampler)
        telling = draws_that_tell(len(train_set), settings.batch_size, settings.seed, rank, world)
        self.judging_images = len(val_set) + world * len(telling)
        self.norms_loader = make(train_set, telling)
        self.val_tables = val_set.tables
        # Counted without the start that a resumed epoch has.
        self.batches = max(1, len(self.sampler) // settings.batch_size)
        self.steps_per_epoch = -(-self.batches // settings.accumulate)

        preparation = Preparation(
            config, model.stride, model.least_side, len(train_set), weights, unlabelled, rank
        )
        self.learner = Learner(model, config, self.accelerator, categories, preparation)
        self.train_set, self.val_set = train_set, val_set
        self.progress = Progress(fresh=list(fresh), images=settings.images_a_step(world))
        self.plan(settings.epochs)
        if resume and (folder / "checkpoints" / STATE).is_file():
            state = folder / "checkpoints" / STATE
            self.progress = load_state(state, self.learner.parts(), self.progress.images)
        self.learner.carry(self.progress.fresh)
        self.best_evaluation: Evaluation | None = None  # None too where the best was found before a resume
        self.stop = Stop(self.accelerator, settings.log_every)
        self.metrics: MetricsLog | None = None
        self.losses = LossWatch(folder, train_set.tables.images["file_name"])
        self.whole = True  # no step is half taken

    def plan(self, epochs: int) -> None:
        """Train for so many epochs: what depends on how many there are, before the first step or later."""
        settings = self.config.train.model_copy(update={"epochs": epochs, "minutes": None})
        self.config = self.config.model_copy(update={"train": settings})
        self.learner.plan(self.steps, self.progress.step)
        self.sampler.ramp = round(self.config.data.sampling.curriculum * epochs)
        self.train_set.mixed_epochs = round((1 - self.config.augment.plain_end) * epochs)
        times, self.judging_share = evaluations_of(epochs, self.sampler.whole, self.judging_images)
        self.evaluate_every: int = settings.evaluate_every or -(-epochs // times)

    @contextmanager
    def on_trial(self) -> Iterator[None]:
        """Steps that are taken here leave weights, optimizer, random numbers and the count as they were."""
        parts, step = self.learner.parts(), self.progress.step
        before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        random, on_gpu = torch.get_rng_state(), torch.cuda.get_rng_state_all()
        self.learner.to_training()
        try:
            yield
        finally:
            for name, part in parts.items():
                part.load_state_dict(before[name])
            self.progress.step = step
            torch.set_rng_state(random)
            torch.cuda.set_rng_state_all(on_gpu)

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            NonFiniteError: a loss is NaN or infinite.
            KeyboardInterrupt: a signal asked to stop; the state was saved.
            DataError: an image can't be read, a loader's worker was killed, or the disk is full; what could
                be saved was saved.
        """
        try:
            with loader_faults():
                self._run()
        except DataError as error:
            raise DataError(f"{error} {self._what_stays()}") from error

    def _what_stays(self) -> str:
        """Save what can be saved of a run that can't go on, and say from where it can."""
        last = "The last checkpoint stays as it was: --resume goes on from there."
        if self.metrics is None or not self.whole:
            return last
        try:
            self._save()
        except (DataError, NonFiniteError) as error:
            return f"{error} {last}"
        return f"Step {self.progress.step} is saved: --resume goes on from there."

    def _run(self) -> None:
        progress = self.progress
        shown = self.accelerator.is_main_process
        if shown and self.config.train.evaluate_every is None:
            console.print(
                f"judged every {self.evaluate_every} epochs, about {self.judging_share:.1%} of the run"
                " (train.evaluate_every)"
            )
        if shown:
            trackers = start_trackers(self.accelerator, self.config, self.folder.name)
            self.metrics = MetricsLog(self.folder, progress.step, trackers)
        try:
            with (
                self.stop.on_signals(),
                TrainingDisplay(self.steps, progress.step, self.steps_per_epoch, shown) as display,
            ):
                while progress.epoch < self.config.train.epochs and not self._has_settled():
                    self._run_epoch(display)
                    self._call("epoch", {"seconds": progress.seconds})
                    self.after_epoch()
                    epochs = self.config.train.epochs
                    display.plan(self.steps)
                    if progress.epoch % self.evaluate_every == 0 or progress.epoch == epochs:
                        self._evaluate(display)
                    if progress.epoch > epochs - self.config.train.keep:
                        self._save_weights(self._judged(), f"epoch-{progress.epoch}.safetensors")
                    self._save()
        finally:
            if self.metrics is not None:
                self.metrics.close()

    def judge(self, model: Detector, views: Sequence[View]) -> Evaluation:
        """Evaluate weights on the validation data in some views; every process gets the result."""
        model = model.to(self.accelerator.device).eval()
        rows = detect(model, start(self.val_loader), self.accelerator.device, views, self.learner.autocast)
        gathered = gather_object(rows) if self.accelerator.num_processes > 1 else rows
        tables = to_tables(gathered, self.val_tables.images, self.categories, self.folder.name)
        return evaluate(self.val_tables, tables)

    def _run_epoch(self, display: TrainingDisplay) -> None:
        settings, progress = self.config.train, self.progress
        self.learner.to_training()
        for batches in self._timed_steps():
            began, self.whole = time.perf_counter(), False
            losses = self.step(batches)
            progress.step, progress.batch = progress.step + 1, progress.batch + len(batches)
            self.whole = True
            progress.seconds += time.perf_counter() - began
            self.losses.add(progress.step, losses, torch.cat([b.indices for b in batches]))
            if progress.step % settings.log_every == 0:
                self._log(display)
            display.advance()
            if settings.checkpoint_every and progress.step % settings.checkpoint_every == 0:
                self._save()
            if self.stop.agreed(progress.step):
                self._save()
                part_at_exit()
                raise KeyboardInterrupt
        progress.epoch, progress.batch = progress.epoch + 1, 0

    def steps_of(self, epoch: int, done: int = 0) -> Iterator[list[Batch]]:
        """The batches of each step of an epoch, after those that are done."""
        size, accumulate = self.config.train.batch_size, self.config.train.accumulate
        self.sampler.set_epoch(epoch, done * size)
        batches = ahead(self.loader, self.batches - done)
        while done < self.batches:
            step = [next(batches) for _ in range(min(accumulate, self.batches - done))]
            done += len(step)
            yield step

    def _timed_steps(self) -> Iterator[list[Batch]]:
        """What is left of this epoch; the time that batches take counts as training."""
        began = time.perf_counter()
        for step in self.steps_of(self.progress.epoch, self.progress.batch):
            waited = time.perf_counter() - began
            self.progress.seconds += waited
            self.progress.waited += waited
            yield step
            began = time.perf_counter()

    def step(self, batches: list[Batch]) -> Tensor:
        """One optimizer step where the run is; gives the mean losses by part, (parts,), not waited for."""
        losses = self.learner.step(batches, self.progress.step)
        self.losses.names = list(losses)
        return torch.stack(list(losses.values()))

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.config.train.epochs * self.steps_per_epoch

    def _log(self, display: TrainingDisplay) -> None:
        """Look at the losses since the last time, and tell them."""
        if not len(self.losses):
            return
        rate, progress = self.learner.rate, self.progress
        mean = self.losses.means(rate)
        images = progress.step * self.config.train.accumulate * self.config.train.batch_size
        numbers = {f"loss/{name}": value for name, value in mean.items()}
        numbers |= {"loss/total": sum(mean.values()), "learning_rate": rate, "seconds": progress.seconds}
        spent = max(progress.seconds, 1e-9)
        numbers["images_per_second"] = images * self.accelerator.num_processes / spent
        numbers["waiting"] = progress.waited / spent
        if self.metrics is not None:
            self.metrics.add(progress.step, progress.epoch, numbers)
        display.show(numbers["loss/total"], rate, numbers["images_per_second"], numbers["waiting"])
        self._call("log", numbers)

    def _evaluate(self, display: TrainingDisplay) -> None:
        self._log(display)
        model = self._judged()
        evaluation = self.judge(model, ONE_VIEW)
        numbers = {name: evaluation.coco[name] for name in ("AP", "AP50", "AP75")}
        if self.metrics is not None:
            row = {f"val/{name}": value for name, value in numbers.items()}
            self.metrics.add(
                self.progress.step, self.progress.epoch, row | {"seconds": self.progress.seconds}
            )
            self._save_weights(model, LAST)
        if isinstance(self.learner.schedule, Plateau):
            self.learner.schedule.report(evaluation.coco["AP"])
        # Of equals the later.
        self.progress.worse += 1
        if (
            evaluation.coco["AP"] >= self.progress.best_ap
            or not (self.folder / "checkpoints" / BEST).is_file()
        ):
            self.progress.best_ap, self.progress.worse = evaluation.coco["AP"], 0
            self.best_evaluation = evaluation
            self._save_weights(model, BEST)
        display.tell(self.progress.epoch, numbers, self.progress.seconds)
        self.accelerator.wait_for_everyone()
        self._call("evaluation", numbers)

    def _call(self, moment: str, numbers: dict[str, float]) -> None:
        if moment in self.callbacks:
            where = {"step": self.progress.step, "epoch": self.progress.epoch}
            self.callbacks[moment](self, where | numbers)

    def _judged(self) -> Detector:
        return self.learner.judged(batch.images for batch in start(self.norms_loader))

    def _has_settled(self) -> bool:
        patience = self.config.train.patience
        if patience is None or self.progress.worse < patience:
            return False
        console.print(
            f"AP has not risen in {self.progress.worse} evaluations: training ends (train.patience)"
        )
        return True

    def _save_weights(self, model: Detector, name: str) -> None:
        if not self.accelerator.is_main_process:
            return
        path = self.folder / "checkpoints" / name
        save_detector(model, self.config, self.categories, path, self.statistics)

    def _save(self) -> None:
        """Write the state, unless a loss since the last check is not finite."""
        if len(self.losses):
            self.losses.check(self.learner.rate)
        if self.metrics is not None:
            self.metrics.save()
            save_state(self.folder / "checkpoints" / STATE, self.progress, self.learner.parts())


def evaluations_of(epochs: int, train_images: int, judged_images: int) -> tuple[int, float]:
    """How often a run is judged, and the share of its time that this takes, as far as can be told before.

    Ten times, or as often as takes under `EVALUATION_SHARE`; an image that is judged is seen forwards alone,
    and takes about a third of one that is learnt.
    """
    cost = judged_images / (3 * max(train_images, 1) * epochs)
    times = min(10, epochs, max(1, int(EVALUATION_SHARE / max(cost, 1e-9))))
    return times, times * cost
