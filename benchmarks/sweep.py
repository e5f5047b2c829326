"""The rotation sweep's numbers of README: oriented boxes out of a detector of upright ones, beside a direct.

python -m benchmarks.sweep        # about 10 minutes, nearly all of it training

The same network is trained twice on the same synthetic scenes with the same settings: on oriented boxes, and
on their upright hulls alone. Both look at the held-out scenes, the first in eight views too, since a mean of
several looks is a better place whoever takes them, and the second at twelve angles; exact rotated IoU.
"""

import argparse
import time
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

import boxwright
from benchmarks.scenes import train_on_scenes
from boxwright.config.experiment import View
from boxwright.data import formats
from boxwright.evaluation.evaluate import evaluate
from boxwright.training.demo import SIZE, TRAIN_SCENES, VAL_SCENES

ANGLES = 12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/bench-sweep"), help="for scenes and weights"
    )
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    folder = arguments.folder
    scenes = {"train": TRAIN_SCENES, "val": VAL_SCENES}
    direct, upright = (
        train_on_scenes(folder, name, {"name": name, "width": 0.5}, scenes, SIZE, arguments.epochs)
        for name in ("compact_obb", "compact")
    )
    truth = formats.read(folder / "val_compact_obb.parquet")
    views = get_args(View)
    ways = {
        "trained on oriented boxes": (direct, {}),
        f"the same in {len(views)} views": (direct, {"views": views}),
        f"trained on upright ones, {ANGLES} angles": (upright, {"sweep": ANGLES}),
    }
    table = Table("way", box=None)
    for column in ("AP50", "AP75", "AP", "share of AP50", "images/s"):
        table.add_column(column, justify="right")
    whole = None
    for name, (checkpoint, options) in ways.items():
        seconds = []
        for _ in range(2):  # the first of all waits for compiled kernels
            began = time.perf_counter()
            found = boxwright.predict(folder / "val", checkpoint, **options)
            seconds.append(time.perf_counter() - began)
        speed = len(truth.images) / min(seconds)
        numbers = evaluate(truth, found).coco
        whole = whole or numbers["AP50"]
        cells = [f"{numbers[key]:.3f}" for key in ("AP50", "AP75", "AP")]
        table.add_row(name, *cells, f"{numbers['AP50'] / whole:.0%}", f"{speed:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
