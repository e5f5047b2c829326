"""Where the weights of a run lie: found without torch, so that a wrong path is told at once."""

import os
from pathlib import Path

from boxwright.errors import CheckpointError

BEST, LAST = "best.safetensors", "last.safetensors"


def find_checkpoint(place: str | os.PathLike) -> Path:
    """The weights of a run folder (the best, else the last) or of a file.

    Raises:
        CheckpointError: there are none.
    """
    path = Path(place)
    if path.is_file():
        return path
    for name in (BEST, LAST):
        if (path / "checkpoints" / name).is_file():
            return path / "checkpoints" / name
    raise CheckpointError(f"{path}: no weights there; expected a run folder or a .safetensors file.")
