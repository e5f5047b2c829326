"""Crops as vectors without a network: their edges, their colours and their size."""

import math

import cv2
import numpy as np

EDGE_SIDE = 48  # px at which edges are looked at
CELLS = 4  # along a side, of edges and of colour
BINS = 9  # of the direction of an edge
SIZE_WEIGHT = 0.5  # of an octave of a side, where edges have the length 1, and white too


def embed_crops(crops: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), mean colours in Lab, and size.

    Args:
        crops: (N, S, S, 3) uint8, RGB.
        sides: (N, 2) width and height of the boxes, px.

    Returns:
        (N, D) float32, in which distances tell how unlike two crops are.
    """
    small = np.array([cv2.resize(crop, (EDGE_SIDE,) * 2, interpolation=cv2.INTER_AREA) for crop in crops])
    edges = gradients(small.astype(np.float32).mean(axis=3))
    colors = np.array([_colors(crop) for crop in crops])
    octaves = np.log2(np.maximum(sides, 1.0)) * SIZE_WEIGHT
    return np.column_stack([edges, colors, octaves]).astype(np.float32)


def gradients(grey: np.ndarray) -> np.ndarray:
    """(N, D) histograms of the directions of edges in cells, each block of 2 x 2 cells of one length.

    Args:
        grey: (N, S, S), S a multiple of `CELLS`.
    """
    down, right = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(down, right)
    direction = np.arctan2(down, right) / math.pi * BINS  # an edge is the same in black and white
    lower = np.floor(direction)
    count, side = len(grey), grey.shape[1]
    cell = np.arange(side) * CELLS // side
    place = (np.arange(count)[:, None, None] * CELLS + cell[:, None]) * CELLS + cell
    # Each edge counts for the two bins beside its direction.
    histogram = np.zeros(count * CELLS * CELLS * BINS)
    for step, share in ((0, 1 - (direction - lower)), (1, direction - lower)):
        at = place * BINS + (lower.astype(int) + step) % BINS
        histogram += np.bincount(at.ravel(), (strength * share).ravel(), minlength=len(histogram))
    cells = histogram.reshape(count, CELLS, CELLS, BINS)
    blocks = np.concatenate(
        [cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:]], axis=-1
    )
    # A step of a grey value a pixel keeps what is flat from looking like an edge.
    blocks = blocks / (np.linalg.norm(blocks, axis=-1, keepdims=True) + (side / CELLS) ** 2)
    return blocks.reshape(count, -1) / (CELLS - 1)


def _colors(crop: np.ndarray) -> np.ndarray:
    """Mean colours of the cells; white everywhere has the length 1."""
    lab = cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return cv2.resize(lab, (CELLS, CELLS), interpolation=cv2.INTER_AREA).ravel() / (100 * CELLS)
