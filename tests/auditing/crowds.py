"""Labels without pictures, and what a detector might find: all from a seed."""

import math

import numpy as np
import polars as pl

from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame

CELL, COLUMNS, ROWS = 100, 6, 5  # px of an object's own ground, so that none overlaps another


def labels(images: int = 40, oriented: bool = False, seed: int = 0, classes: int = 3) -> Tables:
    """An object in most cells of each image."""
    rng = np.random.default_rng(seed)
    names = [f"{n:03d}.png" for n in range(images)]
    sizes = {"width": [CELL * COLUMNS] * images, "height": [CELL * ROWS] * images}
    table = frame(IMAGE_SCHEMA, {"image_id": range(images), "file_name": names} | sizes)
    cells = np.argwhere(rng.random((images, ROWS, COLUMNS)) < 0.8)
    side = rng.uniform(20, 60, (len(cells), 2))
    corner = cells[:, ::-1][:, :2] * CELL + (CELL - side) * rng.uniform(0.3, 0.7, (len(cells), 2))
    columns = {
        "image_id": cells[:, 0],
        "category_id": rng.integers(0, classes, len(cells)).astype(np.int32),
        "x": corner[:, 0],
        "y": corner[:, 1],
        "w": side[:, 0],
        "h": side[:, 1],
        "area": side.prod(axis=1),
        "source": ["crowd"] * len(cells),
    }
    if oriented:
        columns["angle"] = rng.uniform(-math.pi, math.pi, len(cells))
    categories = {"category_id": range(classes), "name": list("abcdefgh"[:classes])}
    return Tables(table, frame(BOX_SCHEMA, columns), frame(CATEGORY_SCHEMA, categories))


def detections(truth: Tables, seed: int = 0, jitter: float = 0.03, miss: float = 0.01) -> Tables:
    """Most objects with a good score, a little off, and some that aren't there with a low one."""
    rng, boxes, count = np.random.default_rng(seed), truth.boxes, len(truth.boxes)
    off = rng.normal(0, jitter, (4, count))
    w, h = boxes["w"].to_numpy(), boxes["h"].to_numpy()
    moved = {
        "x": boxes["x"].to_numpy() + off[0] * w,
        "y": boxes["y"].to_numpy() + off[1] * h,
        "w": w * np.exp(off[2]),
        "h": h * np.exp(off[3]),
        "score": rng.beta(8, 2, count),
        "angle": (boxes["angle"] + rng.normal(0, 0.03, count)).to_numpy(),
    }
    found = boxes.with_columns(pl.Series(n, v, dtype=pl.Float64, nan_to_null=True) for n, v in moved.items())
    found = found.filter(rng.random(count) >= miss)
    false = boxes[rng.choice(count, count // 5)]
    corner = rng.random((len(false), 2)) * [CELL * (COLUMNS - 1), CELL * (ROWS - 1)]
    false = false.with_columns(
        x=pl.Series(corner[:, 0]), y=pl.Series(corner[:, 1]), score=pl.Series(rng.beta(1, 8, len(false)))
    )
    return truth.with_boxes(pl.concat([found, false]))
