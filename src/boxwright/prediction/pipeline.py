"""Work on batches while the next ones are made, its results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

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
