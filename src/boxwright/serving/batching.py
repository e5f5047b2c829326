"""Requests of many clients put together, so that the network sees batches."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, Full, Queue
from threading import Thread
from typing import Any

from boxwright.serving.limits import BusyError


class Batcher:
    """A thread that works on what was submitted, in batches.

    Args:
        work: items to results, one each.
        most: items of a batch.
        wait: seconds that the first of a batch waits for others, at most.
        queue: items that may wait; more are refused.
    """

    def __init__(self, work: Callable[[Sequence[Any]], Sequence[Any]], most: int, wait: float, queue: int):
        self._work, self._most, self._wait = work, most, wait
        self._waiting: Queue[tuple[Any, Future] | None] = Queue(queue)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        self.batches = self.items = 0

    def submit(self, item: Any) -> Future:
        """The result that is to come.

        Raises:
            BusyError: as many are waiting as may.
        """
        future: Future = Future()
        try:
            self._waiting.put_nowait((item, future))
        except Full as error:
            raise BusyError from error
        return future

    @property
    def waiting(self) -> int:
        return self._waiting.qsize()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def full(self) -> bool:
        return self._waiting.full()

    def close(self) -> None:
        """Finish what waits, then end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            batch, last = self._next()
            # Who has given up meanwhile costs nothing.
            batch = [(item, future) for item, future in batch if future.set_running_or_notify_cancel()]
            if not batch:
                continue
            self.batches, self.items = self.batches + 1, self.items + len(batch)
            try:
                results = self._work([item for item, _ in batch])
            except Exception as error:  # told to everyone of the batch; the thread goes on
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    future.set_result(result)

    def _next(self) -> tuple[list[tuple[Any, Future]], bool]:
        """The next batch, and whether it is the last one."""
        first = self._waiting.get()
        if first is None:
            return [], True
        batch, until = [first], time.monotonic() + self._wait
        while len(batch) < self._most:
            try:
                item = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False
