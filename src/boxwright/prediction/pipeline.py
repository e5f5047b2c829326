"""Work on batches while the next ones are made and the last ones are written, its results in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from types import TracebackType
from typing import TypeVar, cast

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], device: torch.device
) -> Iterator[tuple[Item, Result]]:
    """Each item with what `work` makes of it, as `map` would give them.

    Items are drawn while others are worked on. On a processor two are at a time, each by half of the threads:
    a network leaves cores waiting for each other after every layer, and does so less with fewer. A single
    item gets them all.

    Args:
        work: releases the interpreter for most of its time, as networks do.
        items: made in the calling thread.
        device: that the work is done by.
    """
    items = iter(items)
    start = list(islice(items, 2))
    if len(start) < 2:
        yield from ((item, work(item)) for item in start)
        return
    threads = torch.get_num_threads()
    workers = 2 if device.type == "cpu" and threads > 1 else 1
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,))
    waiting = deque()
    try:
        for item in chain(start, items):
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > workers:
                done, result = waiting.popleft()
                yield done, result.result()
        yield from ((item, result.result()) for item, result in waiting)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what threads to come start with


def ahead(items: Iterable[Item], most: int = 2) -> Generator[Item, None, None]:
    """The items, drawn by a thread of their own that is at most so many ahead."""
    drawn, end = iter(items), object()
    pool = ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(next, drawn, end) for _ in range(most))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, drawn, end))
            yield cast(Item, item)
    finally:
        pool.shutdown(cancel_futures=True)


class Behind:
    """Calls done in order by a thread of their own, at most so many waiting; what one raises is raised by the
    next, or at the end."""

    def __init__(self, most: int = 2):
        self._pool, self._most = ThreadPoolExecutor(1), most
        self._waiting: deque[Future] = deque()

    def do(self, work: Callable[..., None], *arguments: object) -> None:
        while len(self._waiting) >= self._most:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(work, *arguments))

    def __enter__(self) -> "Behind":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if kind is None:
            for done in self._waiting:
                done.result()
