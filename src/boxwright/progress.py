"""Progress on long work: a bar in a terminal, nothing elsewhere."""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
WAITING = 0.1  # share of a training's time without data, from which on a person should know
# Of several processes only the first speaks.
console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of `total` items; gives the function that moves it on by a number of items."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def live_figures(what: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
    """A bar of `total` items, or of nobody knows how many; gives the function that moves it on by a number of
    items, with the figures to be shown."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=total, figures="")
        yield lambda count, figures: progress.update(task, advance=count, figures=figures)


def track(what: str, items: Collection[T]) -> Iterator[T]:
    """The items, with a bar that moves on after each."""
    with progress_bar(what, len(items)) as advance:
        for item in items:
            yield item
            advance(1)
