"""Every error a user can meet, and the faults a data set can have.

A `BoxwrightError` ends a command with one message and no traceback. A `Fault` doesn't: readers collect
them, so that a data set is reported whole.
"""

import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal


class BoxwrightError(Exception):
    """A mistake the user can mend. The message says where, what was found, what was expected."""


class DataError(BoxwrightError):
    """A file that can't be used at all."""


class ConfigError(BoxwrightError):
    """A wrong key or value in an experiment or in an option."""


class CheckpointError(BoxwrightError):
    """A checkpoint that is missing, damaged, or made for something else."""


class ExportError(BoxwrightError):
    """An exported file isn't as good as what it was made of."""


class NonFiniteError(BoxwrightError):
    """Training met NaN or infinity."""


class MissingExtraError(BoxwrightError):
    """A part of boxwright that was not installed is needed."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a data set.

    Attributes:
        code: the kind, `zero-size` for one; counted by it.
        severity: `error` must be corrected, `warning` should be checked.
        place: file and line or record.
        message: what was found and what was expected.
        dropped: the record is not in the tables.
    """

    code: str
    severity: Literal["error", "warning"]
    place: str
    message: str
    dropped: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (" Left out." if self.dropped else "")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the known name most like `name`, and all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (f"Did you mean '{close[0]}'? " if close else "") + f"Known: {', '.join(known)}."


def import_extra(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra brings it.

    Raises:
        MissingExtraError: it isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is not installed. Install it with: pip install 'boxwright[{extra}]'"
        ) from error
