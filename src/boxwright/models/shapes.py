"""Shapes as a graph of images of any size has them, in which a plain number would be that of one image."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.data.transforms import PAD_VALUE

_STATE = local()


@contextmanager
def exporting() -> Iterator[None]:
    """A graph is made by this thread: detectors take the operators that other runtimes have."""
    _STATE.exporting = True
    try:
        yield
    finally:
        _STATE.exporting = False


@torch.compiler.assume_constant_result
def is_exporting() -> bool:
    """Whether this thread makes a graph for another runtime."""
    return getattr(_STATE, "exporting", False)


def size_of(maps: Tensor) -> Tensor:
    """(2,) float32 width and height of maps (..., H, W)."""
    if not is_exporting():
        return maps.new_tensor(maps.shape[:-3:-1], dtype=torch.float32)
    if torch.onnx.is_in_onnx_export():
        return torch._shape_as_tensor(maps)[[-1, -2]].float()
    return torch.stack([torch.scalar_tensor(side, dtype=torch.float32) for side in maps.shape[:-3:-1]])


def at_most(count: int, size: int) -> int:
    """`count`, or `size` of a tensor where that is less."""
    if not is_exporting():
        return min(count, size)
    if torch.onnx.is_in_onnx_export():  # there sizes are tensors, and what takes a number takes one of them
        return cast(int, torch.minimum(torch.tensor(count), torch.as_tensor(size)))
    return cast(Any, torch).sym_min(count, size)


def padded_up(images: Tensor, stride: int, least: int) -> Tensor:
    """Images (B, 3, H, W) padded on the right and below to multiples of `stride`, from `least` on; in a graph
    by as much as those want that it is given.
    """
    sides = images.shape[-2:]
    wanted = [-at_most(-least, -side) if least else side for side in sides]
    # Rounded up without a minus sign: ONNX divides towards 0.
    height, width = ((side + stride - 1) // stride * stride for side in wanted)
    whole = F.pad(images, (0, width - sides[1], 0, height - sides[0]), value=PAD_VALUE)
    # What is padded by a tensor has channels of no known number there, until they are taken by theirs.
    return whole.index_select(1, torch.arange(3)) if torch.onnx.is_in_onnx_export() else whole
