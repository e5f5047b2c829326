"""Where real data, cases with expected numbers and the originals' numbers lie: outside the project."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("BOXWRIGHT_SHARED", Path(__file__).parents[2] / "shared"))


def shared_path(name: str) -> Path:
    """A file or folder of the shared data; the test skips where it is missing."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is missing; BOXWRIGHT_SHARED says where the shared data lies")
    return path


def shared_cases(pattern: str) -> list:
    """One parameter for each path that matches; one that skips, saying so, where none does."""
    found = sorted(SHARED.glob(pattern))
    if not found:
        reason = f"nothing matches {SHARED / pattern}"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(path, id=path.name) for path in found]
