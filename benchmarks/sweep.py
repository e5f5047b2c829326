"""The rotation sweep's numbers of README: turned boxes out of a detector of upright ones, beside a direct.

python -m benchmarks.sweep        # about 10 minutes, nearly all of it training

The same network is trained twice on the same synthetic scenes with the same settings: on turned boxes, and on
their upright hulls alone. Both look at the held-out scenes, the second at twelve angles; exact rotated IoU.
"""

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import boxwright
from boxwright.config import check_config
from boxwright.data import formats
from boxwright.data.synthetic import make_scenes
from boxwright.evaluation.evaluate import evaluate
from boxwright.training.demo import SIZE, TRAIN_SCENES, VAL_SCENES

ANGLES = 12


def train(folder: Path, model: str, epochs: int) -> Path:
    """A run of the compact detector, `compact` or `compact_obb`; scenes are made if they aren't there."""
    if (folder / "runs" / model / "evaluation.json").is_file():
        return folder / "runs" / model
    sources = {}
    for part, count, seed in (("train", TRAIN_SCENES, 0), ("val", VAL_SCENES, 1)):
        tables = make_scenes(folder / part, count, SIZE, seed)
        tables = tables if model == "compact_obb" else tables.without_angles()
        formats.write(tables, folder / f"{part}_{model}.parquet")
        sources[part] = {"root": str(folder / f"{part}_{model}.parquet")}
    content = {
        "data": sources,
        "model": {"name": model, "width": 0.5},
        "image_size": list(SIZE),
        "augment": {"flip_vertical": 0.5, "quarter_turn": 0.5},
        "train": {"epochs": epochs, "evaluate_every": epochs, "optimizer": {"lr": 3e-3}},
    }
    return boxwright.train(check_config(content, "benchmark"), name=model, runs=folder / "runs").folder


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
    direct, upright = (train(folder, model, arguments.epochs) for model in ("compact_obb", "compact"))
    truth = formats.read(folder / "val_compact_obb.parquet")
    ways = {
        "trained on turned boxes": lambda: boxwright.predict(folder / "val", direct),
        f"trained on upright ones, {ANGLES} angles": lambda: boxwright.predict(
            folder / "val", upright, sweep=ANGLES
        ),
    }
    table = Table("way", box=None)
    for column in ("AP50", "AP75", "AP", "share of AP50", "images/s"):
        table.add_column(column, justify="right")
    whole = None
    for name, way in ways.items():
        began = time.perf_counter()
        found = way()
        speed = len(truth.images) / (time.perf_counter() - began)
        numbers = evaluate(truth, found).coco
        whole = whole or numbers["AP50"]
        cells = [f"{numbers[key]:.3f}" for key in ("AP50", "AP75", "AP")]
        table.add_row(name, *cells, f"{numbers['AP50'] / whole:.0%}", f"{speed:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
