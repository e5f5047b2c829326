"""Requests of many clients put together, so that the network sees batches."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, Full, Queue
from threading import Thread
from typing import Any

from boxwright.serving.limits import BusyError


class Batcher:
    """Threads that work on what was submitted, in batches.

    Args:
        work: items to results, one each.
        most: items of a batch.
        wait: seconds that the first of a batch waits for others, at most.
        queue: items that may wait; more are refused.
        workers: threads, each with a batch of its own.
        prepare: called in each of them first.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Any]], Sequence[Any]],
        most: int,
        wait: float,
        queue: int,
        workers: int = 1,
        prepare: Callable[[], None] = lambda: None,
    ):
        self._work, self._most, self._wait = work, most, wait
        self._waiting: Queue[tuple[Any, Future] | None] = Queue(queue)
        self._threads = [Thread(target=self._run, args=(prepare,), daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

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
        return any(thread.is_alive() for thread in self._threads)

    @property
    def full(self) -> bool:
        return self._waiting.full()

    def close(self) -> None:
        """Finish what waits, then end."""
        self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, prepare: Callable[[], None]) -> None:
        prepare()
        last = False
        while not last:
            batch, last = self._next()
            # Who has given up meanwhile costs nothing.
            batch = [(item, future) for item, future in batch if future.set_running_or_notify_cancel()]
            if not batch:
                continue
            try:
                results = self._work([item for item, _ in batch])
            except Exception as error:  # told to everyone of the batch; the thread goes on
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    future.set_result(result)
        self._waiting.put(None)  # the others end too

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
