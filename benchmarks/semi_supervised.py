"""What images without labels are worth: docs/numbers.md's table of pseudo-labels.

python -m benchmarks.semi_supervised bccd       # 10 % of BCCD's training images have labels
python -m benchmarks.semi_supervised hituav     # 25 % of HIT-UAV's

STAC (Sohn et al., A Simple Semi-Supervised Learning Framework for Object Detection, 2020) with tables: a
detector learns the labelled images, its eight fused views find boxes in the others, and it goes on with both,
under stronger changes of colour and scale. `supervised` is the first run, `twice as long` has the steps of
both. The set's own validation images judge the last weights in one view; nothing is chosen by them: no
threshold, no epoch. Runs that are there already are not repeated.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

import numpy as np
from rich.console import Console
from rich.table import Table

import boxwright
from boxwright.config import check_config, load_config
from boxwright.config.places import LAST
from boxwright.data import formats
from boxwright.data.sources import load_parts
from boxwright.data.tables import concat
from boxwright.evaluation.evaluate import evaluate
from boxwright.evaluation.intervals import intervals
from tests.shared_data import SHARED

SCORE, DOUBT = 0.4, 0.15  # of the teacher's raw scores
STRONG = {"scale": (0.6, 1.4), "brightness": 0.4, "contrast": 0.4, "color": 0.2}
EPOCH = 50  # steps
SETS = {
    "bccd": {"config": "bccd.yaml", "share": 0.1, "images": "bccd/JPEGImages", "steps": 800, "lr": 5e-3},
    "hituav": {
        "config": "hituav_obb.yaml",
        "share": 0.25,
        "images": "hituav_obb/train",
        "steps": 1800,
        "lr": 6e-3,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--twice", action="store_true", help="also the supervised run of twice as many steps")
    parser.add_argument("--teacher", action="store_true", help="also a teacher that learns with the student")
    parser.add_argument("--out", type=Path, default=Path("runs/semi-supervised"))
    options = parser.parse_args()
    runs = [one for seed in options.seeds for one in learn(options, seed)]
    table = Table("way", "seed", "AP50", "AP75", "AP", box=None)
    for way in dict.fromkeys(way for way, *_ in runs):
        own = [r for r in runs if r[0] == way]
        numbers = [json.loads((folder / "evaluation.json").read_text())["coco"] for *_, folder in own]
        for (_, seed, _), one in [*zip(own, numbers), ((way, "mean", None), None)]:
            shown = [mean(n[k] for n in numbers) if one is None else one[k] for k in ("AP50", "AP75", "AP")]
            table.add_row(way, str(seed), *(f"{value:.3f}" for value in shown))
    console = Console(width=100)
    console.print(table)
    for seed in options.seeds:
        pair = [folder for way, own, folder in runs if own == seed and way in ("supervised", "pseudo-labels")]
        truth = formats.read(pair[0] / "truth.parquet")
        judged = [evaluate(truth, formats.read(folder / "predictions.parquet")) for folder in pair]
        row = next(r for r in intervals(*judged).rows if r["number"] == "AP50")
        low, high = row["from"], row["to"]
        console.print(f"seed {seed}: AP50 {row['difference']:+.3f}, 95 % of draws {low:+.3f} to {high:+.3f}")


def learn(options: argparse.Namespace, seed: int) -> list[tuple[str, int, Path]]:
    """The runs of a seed: way, seed, folder."""
    chosen = SETS[options.set]
    config = load_config(Path("configs") / chosen["config"]).model_dump()
    config["train"] |= {"optimizer": {"lr": chosen["lr"]}, "batch_size": 8}  # AdamW, as its numbers have it
    (every,), val = load_parts(check_config(config, "benchmark").data)
    labelled = np.zeros(len(every.images), dtype=bool)
    count = round(chosen["share"] * len(labelled))
    labelled[np.random.default_rng(seed).choice(len(labelled), count, replace=False)] = True
    few, out = every.select_images(labelled), options.out / options.set
    formats.write(few, out / f"labelled-{seed}.parquet")
    source = {"root": str(out / f"labelled-{seed}.parquet")}
    steps = chosen["steps"]

    supervised = train(out, config, [source], steps, seed, f"supervised-{seed}")
    runs = [("supervised", seed, supervised)]
    if options.twice:
        runs.append(("twice as long", seed, train(out, config, [source], 2 * steps, seed, f"twice-{seed}")))
    weights, found = supervised / "checkpoints" / LAST, out / f"pseudo-{seed}.parquet"
    if not found.is_file():
        views = config["views"]
        known = concat([few, val])
        images = SHARED / "data" / chosen["images"]
        made = boxwright.pseudo_label(
            images, weights, found, score=SCORE, labelled=known, truth=every, views=views
        )
        Console(width=100).print(made.rows)
    pseudo = {"root": str(found), "role": "pseudo", "doubt": DOUBT}
    augment = dict(config["augment"])
    config["augment"] |= STRONG
    config["model"]["weights"] = str(weights)
    both = [source | {"repeat": (1 - chosen["share"]) / chosen["share"]}, pseudo]
    runs.append(("pseudo-labels", seed, train(out, config, both, steps, seed, f"pseudo-labels-{seed}")))
    if options.teacher:
        rest = every.select_images(~labelled)
        formats.write(rest, out / f"rest-{seed}.parquet")
        unlabelled = {"root": str(out / f"rest-{seed}.parquet"), "role": "unlabelled"}
        config["augment"] = augment
        config["train"] |= {"teacher": {"start": 0.0, "score": SCORE, "doubt": DOUBT}}
        taught = train(out, config, [both[0], unlabelled], steps, seed, f"teacher-{seed}")
        runs.append(("mean teacher", seed, taught))
    return runs


def train(out: Path, config: dict, sources: list[dict], steps: int, seed: int, name: str) -> Path:
    """Train, unless that has been done."""
    if (out / name / "evaluation.json").is_file():
        return out / name
    settings = config["train"] | {
        "seed": seed,
        "epochs": steps // EPOCH,
        "minutes": None,
        "evaluate_every": steps // EPOCH,
    }
    settings["epoch_images"] = EPOCH * settings["batch_size"]
    content = config | {
        "data": config["data"] | {"train": sources},
        "views": ["plain"],
        "train": settings,
    }
    return boxwright.train(check_config(content, name), name=name, runs=out).folder


if __name__ == "__main__":
    main()
