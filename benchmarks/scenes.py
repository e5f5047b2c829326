"""Detectors that benchmarks train on synthetic scenes."""

from pathlib import Path
from typing import Any

import boxwright
from boxwright.config import check_config
from boxwright.data import formats
from boxwright.data.synthetic import make_scenes


def train_on_scenes(
    folder: Path, name: str, model: dict[str, Any], scenes: dict[str, int], size: tuple[int, int], epochs: int
) -> Path:
    """A run's folder; one that is there is taken as it is.

    Args:
        folder: for scenes, their truth `PART_NAME.parquet` and the run.
        name: of the run.
        model: as in a config; upright ones get upright truth.
        scenes: how many of `train` and `val`.
        size: of scenes, pixels.
        epochs: of training.
    """
    if (folder / "runs" / name / "evaluation.json").is_file():
        return folder / "runs" / name
    sources = {}
    for seed, (part, count) in enumerate(scenes.items()):
        tables = make_scenes(folder / part, count, size, seed)
        tables = tables if model["name"].endswith("_obb") else tables.without_angles()
        truth = folder / f"{part}_{name}.parquet"
        formats.write(tables, truth)
        sources[part] = {"root": str(truth)}
    content = {
        "data": sources,
        "model": model,
        "image_size": list(size),
        "augment": {"flip_vertical": 0.5, "quarter_turn": 0.5},
        "train": {"epochs": epochs, "evaluate_every": epochs, "optimizer": {"lr": 3e-3}},
    }
    return boxwright.train(check_config(content, "benchmark"), name=name, runs=folder / "runs").folder
