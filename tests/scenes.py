"""Small inputs that tests make: tables, images, experiments."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from boxwright.config import ExperimentConfig, check_config
from boxwright.data import formats
from boxwright.data.builder import TableBuilder
from boxwright.data.tables import Tables
from boxwright.geometry.conventions import corners

# Boxes: image, category, x, y, w, h.
ROWS = [(0, 0, 10, 12, 20, 16), (0, 1, 40.5, 8.25, 12.5, 30), (1, 0, 5, 5, 50, 40), (1, 1, 30, 20, 8, 8)]


def small_tables(folder: Path, scores: list[float] | None = None) -> Tables:
    """Three images of 96 x 64, the last without boxes, and four boxes of two classes."""
    builder = TableBuilder("small")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for n in range(3):
        path = folder / "images" / f"{n:03d}.png"
        if not path.exists():
            noise = np.random.default_rng(n).integers(0, 255, (64, 96, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
        builder.image(path.name, str(path), 96, 64)
    for name in ("cat", "dog"):
        builder.category(name)
    for n, (image, category, *xywh) in enumerate(ROWS):
        score = scores[n] if scores else None
        builder.box(("row", n), image, category, tuple(xywh), score=score)
    return builder.build()


def square_tables(folder: Path, images: int = 8, size: int = 64, seed: int = 0) -> Tables:
    """Images of a bright square (class 0) and a dark one (class 1) on noise: learnt in no time."""
    builder = TableBuilder("squares")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("bright", "dark"):
        builder.category(name)
    for n in range(images):
        rng = np.random.default_rng([seed, n])
        pixels = rng.integers(90, 140, (size, size, 3), dtype=np.uint8)
        path = folder / f"{n:03d}.png"
        image_id = builder.image(path.name, str(path), size, size)
        for category, value in ((0, 250), (1, 10)):
            side = int(rng.integers(size // 4, size // 2 - 2))
            x = int(rng.integers(0, size // 2 - side)) + category * (size // 2)
            y = int(rng.integers(0, size - side))
            pixels[y : y + side, x : x + side] = value
            builder.box(("square", n), image_id, category, (x, y, side, side))
        Image.fromarray(pixels).save(path)
    return builder.build()


# Landmarks of a drawn face in shares of its box, how far each may lie off, and their colours.
FACE = np.array([[0.28, 0.3], [0.72, 0.3], [0.5, 0.52], [0.3, 0.78], [0.7, 0.78]])
OFF = 0.12
FACE_COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255))


def face_tables(folder: Path, images: int = 8, size: int = 64, seed: int = 0) -> Tables:
    """Images of one pale face on noise, whose landmarks are dots of five colours."""
    builder = TableBuilder("faces")
    folder.mkdir(parents=True, exist_ok=True)
    builder.category("face")
    for n in range(images):
        rng = np.random.default_rng([seed, n])
        pixels = rng.integers(90, 140, (size, size, 3), dtype=np.uint8)
        path = folder / f"{n:03d}.png"
        image_id = builder.image(path.name, str(path), size, size)
        side = int(rng.integers(size // 2, size * 3 // 4))
        x, y = (int(v) for v in rng.integers(0, size - side, 2))
        pixels[y : y + side, x : x + side] = 230
        points = (FACE + rng.uniform(-OFF, OFF, FACE.shape)) * side + [x, y]
        for point, color in zip(points, FACE_COLORS):
            cv2.circle(pixels, tuple(np.rint(point - 0.5).astype(int).tolist()), side // 12, color, -1)
        landmarks = points.reshape(-1).tolist()
        builder.box(("face", n), image_id, 0, (x, y, side, side), landmarks=landmarks)
        Image.fromarray(pixels).save(path)
    return builder.build()


def oriented_tables(
    folder: Path, images: int = 3, size: int = 96, scores: bool = False, headings: bool = False
) -> Tables:
    """Images of two oriented bars on noise, bright (class 0) and dark (class 1); a spot marks the front."""
    builder = TableBuilder("bars", "radians", headings)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("bright", "dark"):
        builder.category(name)
    for n in range(images):
        rng = np.random.default_rng([7, n])
        pixels = rng.integers(90, 140, (size, size, 3), dtype=np.uint8)
        path = folder / f"{n:03d}.png"
        image_id = builder.image(path.name, str(path), size, size)
        for category, value in ((0, 250), (1, 10)):
            length, width = rng.uniform(0.25, 0.42) * size, rng.uniform(0.1, 0.16) * size
            x, y = size * (0.25 + 0.5 * category), rng.uniform(0.25, 0.75) * size
            angle = rng.uniform(-np.pi, np.pi)
            box = np.array([x, y, length, width, angle])
            cv2.fillPoly(pixels, [np.rint(corners(box[None])[0] - 0.5).astype(np.int32)], (value,) * 3)
            front = (int(x + np.cos(angle) * length / 3), int(y + np.sin(angle) * length / 3))
            cv2.circle(pixels, front, int(width / 3), (128, 128, 128), -1)
            score = float(rng.uniform()) if scores else None
            builder.box(("bar", 2 * n + category), image_id, category, tuple(box.tolist()), score=score)
        Image.fromarray(pixels).save(path)
    return builder.build()


def square_experiment(folder: Path, **train: object) -> ExperimentConfig:
    """A small compact detector on the squares; `train` replaces settings."""
    formats.write(square_tables(folder / "images"), folder / "truth.parquet")
    source = {"root": str(folder / "truth.parquet"), "format": "parquet"}
    settings = {"epochs": 3, "batch_size": 2, "evaluate_every": 3, "precision": "fp32", "log_every": 2}
    content = {
        "data": {"train": source, "val": source},
        # Few steps make no score worth a threshold: the best five boxes are kept whatever they score.
        "model": {
            "name": "compact",
            "width": 0.25,
            "selection": {"score_threshold": 0.0, "max_detections": 5},
        },
        "image_size": [64, 64],
        "train": settings | train,
    }
    return check_config(content, "test")
