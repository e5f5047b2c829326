"""What choosing images to review is worth: boxes looked at until a detector has 95 % of its AP with all.

python -m benchmarks.loop bccd

An oracle reviews what `boxwright loop` chooses, and beside it images drawn at random, round by round from the
same first draw. Each round trains from random weights for as many steps, whatever was reviewed, and is judged
in one view by a quarter of the training images that none of them learns from; the last row is trained on all.
Rounds that are there already are not trained again.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

import boxwright
from boxwright.config import ExperimentConfig, check_config, load_config
from boxwright.data import formats
from boxwright.data.sources import load_parts
from boxwright.labeling.loop import NEXT, read_account, run_round
from boxwright.labeling.store import Change, Store

SETS = {"bccd": "bccd.yaml", "hituav": "hituav_obb.yaml"}
WAYS = ("loop", "random")
ENOUGH, EPOCH, BATCH = 0.95, 50, 8  # of what can be had; steps; images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=20, help="a round")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=800, help="of eight images, of each training")
    parser.add_argument("--out", type=Path, default=Path("runs/loop"))
    options = parser.parse_args()
    options.out /= options.set
    options.out.mkdir(parents=True, exist_ok=True)
    runs = {(way, seed): account(options, way, seed) for seed in options.seeds for way in WAYS}
    whole = {seed: train_on_all(options, seed) for seed in options.seeds}
    table = Table("images", *(f"{way}, {what}" for way in WAYS for what in ("boxes", "AP")), box=None)
    for n in range(options.rounds):
        cells = []
        for way in WAYS:
            rows = [runs[way, seed].row(n, named=True) for seed in options.seeds]
            values = [row["AP"] for row in rows]
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            cells += [f"{mean(row['boxes'] for row in rows):.0f}", f"{mean(values):.3f}{spread}"]
        table.add_row(str((n + 1) * options.images), *cells)
    console = Console(width=100)
    console.print(table)
    for way in WAYS:
        needed = [boxes_needed(runs[way, seed], ENOUGH * whole[seed]) for seed in options.seeds]
        shown = ", ".join("not reached" if n is None else f"{n:,.0f}" for n in needed)
        console.print(f"{way}: boxes to {ENOUGH:.0%} of the AP with all, by seed: {shown}")
    console.print("AP with all, by seed: " + ", ".join(f"{ap:.3f}" for ap in whole.values()))


def experiment(options: argparse.Namespace, seed: int) -> tuple[ExperimentConfig, Path]:
    """The experiment of each round, and the labels that an oracle knows."""
    config = load_config(Path("configs") / SETS[options.set], ["data.val=0.25"])
    (pool,), val = load_parts(config.data)
    paths = {name: options.out / f"{name}.parquet" for name in ("pool", "val")}
    formats.write(pool, paths["pool"])
    formats.write(val, paths["val"])
    content = config.model_dump()
    content["views"] = ["plain"]
    content["data"] |= {name: {"root": str(paths[key])} for name, key in (("train", "pool"), ("val", "val"))}
    epochs = options.steps // EPOCH
    content["train"] |= {"batch_size": BATCH, "epoch_images": EPOCH * BATCH}
    content["train"] |= {"seed": seed, "minutes": None, "epochs": epochs}
    content["train"] |= {"evaluate_every": epochs}
    return check_config(content, "loop"), paths["pool"]


def account(options: argparse.Namespace, way: str, seed: int) -> pl.DataFrame:
    """The account of all rounds of a way."""
    config, pool = experiment(options, seed)
    folder = options.out / f"{way}-{seed}"
    folder.mkdir(exist_ok=True)
    labels = formats.read(pool)
    store = Store(folder / "review.sqlite", labels)
    order = np.random.default_rng(seed).permutation(len(labels.images))  # as the first draw of `run_round`
    while True:
        accepted = [n for n, row in enumerate(store.images()) if row["state"] == "accepted"]
        known = read_account(folder)
        if len(known) == options.rounds:
            return known
        if len(known) and known["images"][-1] == len(accepted):
            chosen = pl.read_parquet(folder / NEXT)["image_id"].to_list()
        elif accepted:
            run_round(store, config, folder, options.images, seed)
            continue
        else:
            chosen = order[: options.images].tolist()
        if way == "random":
            chosen = [n for n in order.tolist() if n not in accepted][: options.images]
        for n in chosen:
            store.act(Change(f"accept-{n:06}", "oracle", n, state="accepted"))


def train_on_all(options: argparse.Namespace, seed: int) -> float:
    """AP of the same experiment with all images."""
    config, _ = experiment(options, seed)
    run = options.out / f"all-{seed}"
    if not (run / "evaluation.json").is_file():
        boxwright.train(config, name=run.name, runs=options.out)
    return float(pl.read_json(run / "evaluation.json")["coco"].struct.field("AP")[0])


def boxes_needed(rows: pl.DataFrame, wanted: float) -> float | None:
    """Boxes at which AP first is what is wanted, between rounds along a line; None: never."""
    boxes, ap = rows["boxes"].to_list(), rows["AP"].to_list()
    for n, value in enumerate(ap):
        if value >= wanted:
            if n == 0:
                return boxes[0]
            share = (wanted - ap[n - 1]) / (value - ap[n - 1])
            return boxes[n - 1] + share * (boxes[n] - boxes[n - 1])
    return None


if __name__ == "__main__":
    main()
