"""Standard output into a pipe whose reader may leave, as in `boxwright evaluate ... | head -1`."""

import os
import sys
from collections.abc import Callable
from typing import Any, TextIO


class LeavingReader:
    """A text stream that drops its output once the reader has gone: the command goes on, and writes its
    files.

    Args:
        stream: standard output or standard error.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """As the stream's own."""
        self._attempt(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        """As the stream's own."""
        self._attempt(self.stream.flush)

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except BrokenPipeError:
            # What is still buffered goes there too: the interpreter flushes it when it ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def tolerate_leaving_readers() -> None:
    """Let standard output and error outlive their readers."""
    sys.stdout, sys.stderr = (LeavingReader(stream) for stream in (sys.stdout, sys.stderr))
