"""Ctrl-C and SIGTERM: a run stops after a step, with what it needs to go on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor

from boxwright.progress import console


class Stop:
    """Whether a run was asked to stop.

    Args:
        accelerator: of the run's processes.
        every: steps after which several processes agree.
    """

    def __init__(self, accelerator: Accelerator, every: int):
        self.accelerator, self.every, self.requested = accelerator, every, False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Meanwhile Ctrl-C and SIGTERM ask for a stop; a second one stops at once.

        Signals belong to the main thread; in any other one there is nothing to catch.
        """
        wait = "this step" if self.accelerator.num_processes == 1 else f"{self.every} steps at most"

        def request(number: int, _frame: object) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True
            console.print(f"stopping after {wait}; once more to stop at once without saving")

        try:
            before = {n: signal.signal(n, request) for n in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def agreed(self, step: int) -> bool:
        """Whether to stop after a step.

        All processes must stop after the same one, or one would wait for the others for ever: they agree when
        losses are looked at, which waits for the device anyway.
        """
        if self.accelerator.num_processes == 1:
            return self.requested
        if step % self.every:
            return False
        asked = torch.tensor(float(self.requested), device=self.accelerator.device)
        total = self.accelerator.reduce(asked, "sum")
        assert isinstance(total, Tensor)
        return bool(total > 0)
