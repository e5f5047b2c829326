"""How kernels are compiled: at first use, without the interpreter's lock, cached on disk where possible."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import njit
from numba.core import event

from boxwright.progress import console

PACKAGE = Path(__file__).parents[1]
config: Any = numba.config


class _Notice(event.Listener):
    """Says which file's kernels are being compiled, once each: it takes seconds."""

    def __init__(self) -> None:
        self.told: set[str] = set()
        self.depth = 0

    def on_start(self, event: Any) -> None:
        """Numba begins to compile a function that no cache holds."""
        module = event.data["dispatcher"].py_func.__module__
        self.depth += 1
        if self.depth == 1 and module.startswith("boxwright.") and module not in self.told:
            self.told.add(module)
            console.print(f"[dim]compiling {module}, once after an install: about 5 s[/]")

    def on_end(self, event: Any) -> None:
        """A function is done, perhaps one of those that another calls."""
        self.depth -= 1


event.register("numba:compile", _Notice())


def _digest() -> str:
    """Of every file that may hold kernels: Numba itself looks only at the file of the outermost one, and
    would run the old machine code of what it calls from another."""
    folders = ("auditing", "evaluation", "geometry")
    sources = sorted(path for folder in folders for path in PACKAGE.glob(f"{folder}/*.py"))
    return hashlib.blake2b(b"".join(p.read_bytes() for p in sources), digest_size=8).hexdigest()


_FOLDER = Path(config.CACHE_DIR or PACKAGE / "geometry" / "__pycache__") / f"kernels-{_digest()}"


def kernel(function: Callable) -> Any:
    """Compile `function` with Numba and keep the machine code beside it or in the user's cache folder.

    Where no folder can be written (a read-only container without a home) it is compiled in each process
    anew: slower to start, the same numbers. NUMBA_CACHE_DIR names another folder.
    """
    usual = config.CACHE_DIR
    config.CACHE_DIR = str(_FOLDER)
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # Numba's "no locator available": there is nowhere to write
        return njit(nogil=True)(function)
    finally:
        config.CACHE_DIR = usual
