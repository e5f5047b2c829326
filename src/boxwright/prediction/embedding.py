"""Crops as vectors by a detector: what its backbone sees of them."""

import os

import numpy as np
import torch

from boxwright.models.checkpoint import load_detector
from boxwright.models.detector import Detector

BATCH = 64
MAPS = 2  # deepest ones


@torch.no_grad()
def embed_crops_by(checkpoint: str | os.PathLike, crops: np.ndarray) -> np.ndarray:
    """Means of the deepest feature maps of a detector's backbone, each scaled to the length 1.

    Args:
        checkpoint: a run folder or a .safetensors file.
        crops: (N, S, S, 3) uint8, RGB.

    Returns:
        (N, D) float32.

    Raises:
        CheckpointError: it can't be read.
    """
    model = load_detector(checkpoint).model
    parts = [_embed(model, crops[n : n + BATCH]) for n in range(0, len(crops), BATCH)]
    return np.concatenate(parts)


def _embed(model: Detector, crops: np.ndarray) -> np.ndarray:
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
    backbone, normalize = model.get_submodule("backbone"), model.get_submodule("normalize")
    maps = backbone(normalize(images))[-MAPS:]
    means = [torch.nn.functional.normalize(m.mean(dim=(2, 3)), dim=1) for m in maps]
    return torch.cat(means, dim=1).numpy()
