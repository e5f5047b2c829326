"""Files of weights from where they lie to the disk: the hub, an address, a path. Checked by their digests."""

import hashlib
import re
from pathlib import Path
from urllib.parse import urlparse

from boxwright.data.formats.files import sha256_of
from boxwright.errors import CheckpointError

HUB = "hf://"
DEFAULT_FILE = "model.safetensors"
DIGEST = re.compile(r"[0-9a-f]{64}")  # SHA-256, by which the hub names what it keeps
BLOCK = 1 << 20


def fetch(place: str) -> Path:
    """The file of a place, fetched where it isn't here yet.

    Args:
        place: `hf://owner/repo` (its model.safetensors), `hf://owner/repo/file`, an address, or a path.

    Raises:
        CheckpointError: it can't be had, or isn't what its digest says.
    """
    if place.startswith(HUB):
        return _from_hub(place)
    if urlparse(place).scheme in ("http", "https"):
        return _from_address(place)
    path = Path(place).expanduser()
    if not path.exists():
        raise CheckpointError(
            f"{place}: no such file, and no name of the zoo (boxwright zoo), hf://owner/repo or address."
        )
    return path


def config_beside(place: str) -> Path | None:
    """The config.json of a repository on the hub, which names its classes; None where there is none."""
    from huggingface_hub.errors import EntryNotFoundError

    owner, repo, _ = _parts(place)
    try:
        return _from_hub(f"{HUB}{owner}/{repo}/config.json")
    except CheckpointError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return None
        raise


def _parts(place: str) -> tuple[str, str, str]:
    owner, _, rest = place.removeprefix(HUB).partition("/")
    repo, _, file = rest.partition("/")
    if not owner or not repo:
        raise CheckpointError(f"{place}: expected hf://owner/repo or hf://owner/repo/file.")
    return owner, repo, file or DEFAULT_FILE


def _from_hub(place: str) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    owner, repo, file = _parts(place)
    at = f"{constants.ENDPOINT}/{owner}/{repo}/resolve/main/{file}"
    try:
        path = Path(hf_hub_download(f"{owner}/{repo}", file))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(_out_of_reach(place, at, f"the hub can't be reached ({error})")) from error
    except GatedRepoError as error:
        raise CheckpointError(f"{place}: its owner wants your consent first, at {at}.") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{place}: the hub has no repository {owner}/{repo}, or not for you."
        ) from error
    except EntryNotFoundError as error:
        raise CheckpointError(f"{place}: {owner}/{repo} has no file {file}.") from error
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise CheckpointError(_out_of_reach(place, at, str(error))) from error
    # Large files are kept under their SHA-256.
    kept = path.resolve().name
    if DIGEST.fullmatch(kept) and sha256_of(path) != kept:
        raise CheckpointError(
            f"{place}: {path} is damaged: its SHA-256 isn't {kept}. Delete it, then try again."
        )
    return path


def _from_address(place: str) -> Path:
    import torch

    name = Path(urlparse(place).path).name
    if not name:
        raise CheckpointError(f"{place}: no file name at its end.")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    wanted = re.search(r"-([0-9a-f]{8,})\.", name)  # as PyTorch names its files
    if wanted is None:  # two addresses may end alike
        folder = folder / hashlib.sha256(place.encode()).hexdigest()[:16]
    path = folder / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(place, str(path), wanted and wanted[1])
        except (OSError, RuntimeError) as error:
            raise CheckpointError(_out_of_reach(place, place, str(error), path)) from error
    elif wanted and not sha256_of(path).startswith(wanted[1]):
        raise CheckpointError(
            f"{place}: {path} is damaged: its SHA-256 doesn't begin with {wanted[1]}. Delete it, then try"
            " again."
        )
    return path


def _out_of_reach(place: str, address: str, why: str, path: Path | None = None) -> str:
    way_out = f"save it as {path} and try again" if path else "name the saved file as model.weights"
    return f"{place}: {' '.join(why.split())[:300]}. Fetch {address} by other means, and {way_out}."
