"""All that a run needs to go on as if it had never stopped."""

import io
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from boxwright.data.formats.files import write_atomic
from boxwright.errors import CheckpointError
from boxwright.models.digest import state_digest

STATE = "state.pt"


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: optimizer steps done.
        epoch: epochs done.
        batch: batches done within the epoch.
        best_ap: of the evaluations so far.
        worse: evaluations since the best.
        seconds: spent training.
        waited: seconds of them in which no batch was ready.
        fresh: parameters that started anew where weights were given for the others; none: all did.
        images: of a step, of all processes; 0: not told, in older states.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_ap: float = -1.0
    worse: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    fresh: list[str] = field(default_factory=list)
    images: int = 0


def save_state(path: Path, progress: Progress, parts: dict[str, Any]) -> None:
    """Write the state dicts of `parts`, the progress and torch's random state, atomically."""
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"progress": asdict(progress), "rng": torch.get_rng_state()}
    buffer = io.BytesIO()
    torch.save(state | {"digest": state_digest(state)}, buffer)
    write_atomic(path, buffer.getvalue())


def load_state(path: Path, parts: dict[str, Any], images: int) -> Progress:
    """Put a saved state into `parts`, of a run whose steps have so many images.

    Raises:
        CheckpointError: the file is missing, damaged, of another model, or of steps of other images: which of
            an epoch's were seen, how many steps are left and the rate would all be other than it says.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # Those from before 0.2 have none.
        if "digest" in state and state.pop("digest") != state_digest(state):
            raise CheckpointError(
                f"{path}: damaged: its contents don't match their digest; can't go on from it."
            )
        progress = Progress(**state["progress"])
        if progress.images not in (0, images):
            raise CheckpointError(
                f"{path}: its steps have {progress.images} images, this run's {images} (train.batch_size x"
                " train.accumulate x processes): start it as it was started, or a new run from its weights"
                " (model.weights)."
            )
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        progress.images = images
        return progress
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path}: can't go on from it: {error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: holds more than weights; refused: {error}") from error
