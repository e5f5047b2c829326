"""A digest of nested state: a flipped bit in a file of weights is found, not trained on."""

import hashlib
from typing import Any

import torch
from torch import Tensor


def state_digest(state: Any) -> str:
    """SHA-256 (hex) of nested dicts, lists, tensors and plain values: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    _update(digest, state)
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        digest.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    elif isinstance(value, dict):
        digest.update(f"dict {len(value)};".encode())
        for key in sorted(value, key=repr):
            digest.update(f"{key!r}:".encode())
            _update(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)};".encode())
        for item in value:
            _update(digest, item)
    else:
        digest.update(f"{value!r};".encode())
