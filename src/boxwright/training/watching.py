"""Losses of steps, kept on the device and looked at now and then: the only wait for it."""

from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from boxwright.errors import NonFiniteError
from boxwright.training.state import STATE


class LossWatch:
    """The losses since the last look.

    Args:
        folder: of the run, for what is told.
        file_names: of the training images.

    Attributes:
        names: of the losses' parts.
    """

    def __init__(self, folder: Path, file_names: pl.Series):
        self.folder, self.file_names = folder, file_names
        self.names: list[str] = []
        self._recent: list[tuple[int, Tensor, Tensor]] = []

    def __len__(self) -> int:
        return len(self._recent)

    def add(self, step: int, losses: Tensor, images: Tensor) -> None:
        """Losses (parts,) of a step of these images (B,), not looked at yet."""
        self._recent.append((step, losses, images))

    def check(self, rate: float) -> Tensor:
        """Look at the losses (steps, parts); `rate` is the learning rate of now.

        Raises:
            NonFiniteError: one is NaN or infinite.
        """
        losses = torch.stack([losses for _, losses, _ in self._recent]).cpu()
        finite = losses.isfinite().all(dim=1)
        if not finite.all():
            raise self._error(int(finite.int().argmin()), losses, rate)
        return losses

    def means(self, rate: float) -> dict[str, float]:
        """Of each part, as `check`; the next look is at what comes after."""
        mean = self.check(rate).mean(0)
        self._recent.clear()
        return dict(zip(self.names, mean.tolist()))

    def _error(self, row: int, losses: Tensor, rate: float) -> NonFiniteError:
        step, _, indices = self._recent[row]
        names = [self.file_names[int(i)] for i in indices]
        values = ", ".join(f"{n} {v:g}" for n, v in zip(self.names, losses[row].tolist()))
        state = self.folder / "checkpoints" / STATE
        good = f"The last good checkpoint is {state}." if state.is_file() else "There is no checkpoint yet."
        return NonFiniteError(
            f"step {step}: the loss is not finite ({values}), learning rate {rate:g}, images"
            f" {', '.join(names)}. {good} Try a lower train.optimizer.lr, a longer warm-up or"
            " train.precision=fp32."
        )
