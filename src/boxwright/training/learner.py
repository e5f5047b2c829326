"""A detector that learns: what a step does to its weights, and which of them are judged."""

import copy
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from boxwright.config import ExperimentConfig
from boxwright.data.targets import Batch
from boxwright.models.detector import Detector, full_precision, weigh
from boxwright.training.distilling import Distiller
from boxwright.training.freezing import carried_norms, freeze
from boxwright.training.norms import gather_statistics
from boxwright.training.optimization import make_average, make_optimizer, make_schedule, own_average
from boxwright.training.preparation import Preparation


class Learner:
    """A detector and all that changes its weights.

    Args:
        model: a detector.
        config: the experiment.
        accelerator: device, precision and processes.
        categories: names.
        preparation: of the batches.

    Attributes:
        detector: as it is judged and saved.
        model: the same, compiled and shared by processes.
        schedule: of the learning rate; there after the first `plan`.
        average: of the weights, where `train.ema` wants one.
        frozen: modules whose norms keep their statistics.
        carried: parameters that wait for `train.new_first` steps.
    """

    schedule: LRScheduler

    def __init__(
        self,
        model: Detector,
        config: ExperimentConfig,
        accelerator: Accelerator,
        categories: list[str],
        preparation: Preparation,
    ):
        settings = self.settings = config.train
        self.accelerator, self.preparation, self.steps = accelerator, preparation, 0
        self.memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
        model = model.to(memory_format=self.memory_format)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.detector = model
        self.distiller: Distiller | None = None
        if settings.distill is not None:
            self.distiller = Distiller(settings.distill, model, categories, accelerator.device)
        self.frozen = freeze(model, config.model.freeze)
        self.carried: list[nn.Parameter] = []
        prepared = torch.compile(model) if settings.compile else model
        rate = settings.optimizer.rate(settings.images_a_step(accelerator.num_processes))
        optimizer = make_optimizer(model, settings.optimizer.model_copy(update={"lr": rate}))
        self.model, self.optimizer = accelerator.prepare(prepared, optimizer)
        self.average = make_average(model, settings.ema.decay, settings.ema.start) if settings.ema else None

    def plan(self, steps: int, done: int) -> None:
        """Learn in so many steps, some of which are done."""
        self.steps = steps
        if done and self.settings.schedule.name == "plateau":  # which knows of no end
            return
        for group in self.optimizer.param_groups:
            group["lr"] = group.get("initial_lr", group["lr"])
        self.schedule = make_schedule(self.optimizer, self.settings.schedule, steps)
        for _ in range(done):
            self.schedule.step()

    def carry(self, fresh: Sequence[str]) -> None:
        """Tell which parameters started anew, where the others' weights were given; none: all did."""
        self.carried = [p for name, p in self.detector.named_parameters() if fresh and name not in fresh]
        if self.settings.norms == "keep":
            self.frozen += carried_norms(self.detector, fresh)

    def to_training(self) -> None:
        """Training mode, but for what is frozen, whose norms keep their statistics."""
        self.model.train()
        for module in self.frozen:
            module.eval()

    def step(self, batches: list[Batch], done: int) -> dict[str, Tensor]:
        """One optimizer step at the rate of now, after those that are done.

        Returns:
            The mean of each part of the loss, on the device: nothing waits for it.
        """
        means: dict[str, Tensor] = {}
        for n, batch in enumerate(batches):
            # Gradients travel between processes with the last batch only.
            last = n == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                losses = self._losses(batch, done, n)
                self.accelerator.backward(sum(losses.values()) / len(batches))
            for name, loss in losses.items():
                means[name] = means.get(name, 0) + loss.detach() / len(batches)
        if done < self.settings.new_first:
            for parameter in self.carried:
                parameter.grad = None
        if self.settings.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.detector)
        return means

    def _losses(self, batch: Batch, done: int, n: int) -> dict[str, Tensor]:
        """Of the nth batch of a step."""
        share = done / self.steps
        batch = self.preparation.resized(batch.to(self.accelerator.device), done, n, share)
        batch, weights = self.preparation.taught(batch, done, n, share, self.average, self.autocast)
        images = batch.images.contiguous(memory_format=self.memory_format)
        with self.autocast():
            outputs = self.model(images, batch.targets)
        if weights is not None:
            weigh(outputs, weights.to(images.device))
        outputs = full_precision(outputs)
        losses = self.detector.loss(outputs, batch.targets)
        if self.distiller is not None:
            losses |= self.distiller.losses(outputs, images, self.autocast)
        return losses

    def autocast(self) -> AbstractContextManager:
        """The context of the run's precision."""
        return self.accelerator.autocast()

    @property
    def rate(self) -> float:
        """The learning rate of now, of the first group of parameters."""
        return self.optimizer.param_groups[0]["lr"]

    def judged(self, images: Iterable[Tensor]) -> Detector:
        """A copy with the weights that are judged and kept, the average's, where there is one.

        Args:
            images: batches of training, which tell the statistics of its norms; see `training.norms`.
        """
        if self.settings.optimizer.name == "schedule_free":
            model = own_average(self.detector, self.optimizer)
        else:
            model = copy.deepcopy(self.detector if self.average is None else self.average.module)
        assert isinstance(model, Detector)
        device, form = self.accelerator.device, self.memory_format
        moved = (batch.to(device).contiguous(memory_format=form) for batch in images)
        gather_statistics(model, self.detector, moved, self.accelerator)
        return model

    def parts(self) -> dict:
        """What a run goes on from, by name; each has a state dict."""
        parts = {"model": self.detector, "optimizer": self.optimizer, "schedule": self.schedule}
        optional = {"average": self.average, "scaler": self.accelerator.scaler}
        return parts | {name: part for name, part in optional.items() if part is not None}
