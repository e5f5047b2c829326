"""`boxwright demo`: synthetic aerial scenes, from nothing to a report in a few minutes."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from boxwright.config import check_config
from boxwright.config.experiment import View
from boxwright.data import formats
from boxwright.data.synthetic import make_scenes
from boxwright.progress import console, progress_bar
from boxwright.training.run_folder import CONFIG
from boxwright.training.train import train

TRAIN_SCENES, VAL_SCENES = 280, 80
if TYPE_CHECKING:
    from boxwright.training.run import Run

SIZE = (320, 256)
EPOCHS = 24


def demo(runs: str | os.PathLike = "runs", data: str | os.PathLike = "demo-data", seed: int = 0) -> "Run":
    """Make scenes, train the compact detector on their oriented boxes with headings, judge it on others.

    Args:
        runs: folder of run folders; the run is `demo`, and takes the place of an earlier one.
        data: folder for scenes and truth.
        seed: same seed, same scenes and weights.
    """
    folder = Path(data)
    for part, count, part_seed in (("train", TRAIN_SCENES, 2 * seed), ("val", VAL_SCENES, 2 * seed + 1)):
        with progress_bar(f"draw {part} scenes", count) as tell:
            tables = make_scenes(folder / part, count, SIZE, part_seed, tell)
        formats.write(tables, folder / f"{part}.parquet")
        console.print(f"{count} {part} scenes with {len(tables.boxes):,} vehicles: {folder / part}")
    source = {
        part: {"root": str(folder / f"{part}.parquet"), "format": "parquet"} for part in ("train", "val")
    }
    content = {
        "data": source,
        "model": {"name": "compact_obb", "width": 0.5, "heading": True, "loss_weights": {"cls": 2.0}},
        "image_size": list(SIZE),
        "augment": {"flip_vertical": 0.5, "quarter_turn": 0.5},
        "views": list(get_args(View)),
        # Long vehicles are told apart last: many small steps, and a class that counts twice.
        "train": {
            "epochs": EPOCHS,
            "batch_size": 4,
            "seed": seed,
            "optimizer": {"lr": 3e-3},
        },
    }
    config = check_config(content, "demo")
    if (Path(runs) / "demo" / CONFIG).is_file():
        shutil.rmtree(Path(runs) / "demo")
    return train(config, name="demo", runs=runs)
