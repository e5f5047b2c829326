"""Training on labels that an audit has repaired, beside those that came, judged on labels checked by eye.

python -m benchmarks.repaired

BCCD's training labels are audited out of fold, and repaired where a fault is likely. Both are trained on
alike, and judged on the validation images: as they came, and with `checked/bccd_val.json`. For that every
confident difference between the validation labels and three detectors trained on the labels as they came was
looked at, and then what audits suspected (`benchmarks.audit checked`; missing boxes from a chance of 0.08 on,
all else from 0.2): boxes that were missing as anyone can see are added, those beside their object or loose as
anyone can see are moved, what can't be told in a clump counts neither way. Added and moved boxes lie where
detectors put them, so that AP50 says more than AP. Folds and runs that are there already are not done again.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from boxwright.auditing.repair import repair
from boxwright.auditing.suspicions import suspect
from boxwright.config import check_config, load_config
from boxwright.data import formats
from boxwright.data.sources import load_parts
from boxwright.data.tables import BOX_SCHEMA, Tables, frame
from boxwright.evaluation.evaluate import evaluate
from boxwright.geometry.iou import pairwise_iou
from boxwright.training.folds import out_of_fold
from boxwright.training.train import train

CONFIG = Path("configs/bccd.yaml")
CHECKED = Path(__file__).with_name("checked") / "bccd_val.json"
NUMBERS = ("AP50", "AP75", "AP")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=16, help="of a run")
    parser.add_argument("--fold-epochs", type=int, default=16)
    parser.add_argument("--above", type=float, default=0.9, help="least probability of what is repaired")
    parser.add_argument("--out", type=Path, default=Path("runs/repaired"))
    options = parser.parse_args()
    labels = training_labels(options)
    rows = []
    for seed in options.seeds:
        rows += [judged(options, name, path, seed) for name, path in labels.items()]
        show(rows)


def training_labels(options: argparse.Namespace) -> dict[str, Path]:
    """The labels as they came and repaired, as files."""
    paths = {name: (options.out / f"{name}.parquet").resolve() for name in ("as they came", "repaired")}
    if not all(path.is_file() for path in paths.values()):
        config = load_config(CONFIG)
        (labels,), _ = load_parts(config.data)
        content = config.model_dump(mode="json")
        content["train"] |= {"minutes": None, "epochs": options.fold_epochs, "evaluate_every": 1_000_000}
        found = out_of_fold(labels, content, options.out / "folds")
        repaired = repair(labels, suspect(labels, found), options.above)
        Console().print(f"{len(labels.boxes):,} boxes; repaired: {repaired.counts}")
        formats.write(labels, paths["as they came"])
        formats.write(repaired.tables, paths["repaired"])
    return paths


def judged(options: argparse.Namespace, name: str, labels: Path, seed: int) -> dict:
    """A run, judged on both lists."""
    content = load_config(CONFIG).model_dump(mode="json")
    content["data"]["train"] = {"format": "parquet", "root": str(labels)}
    content["train"] |= {"minutes": None, "epochs": options.epochs, "seed": seed, "keep": 0}
    run = f"{name.replace(' ', '-')}-{seed}"
    if not (options.out / run / "predictions.parquet").is_file():
        train(check_config(content, "repaired"), name=run, runs=options.out)
    truth, found = (formats.read(options.out / run / f"{n}.parquet") for n in ("truth", "predictions"))
    lists = {"checked": checked(truth), "as they came": truth}
    numbers = {f"{n} {told}": evaluate(own, found).coco[n] for told, own in lists.items() for n in NUMBERS}
    return {"trained on": name, "seed": seed} | numbers


def checked(truth: Tables) -> Tables:
    """The labels with what was found by looking at them.

    Raises:
        ValueError: a label that was looked at isn't there.
    """
    told = json.loads(CHECKED.read_text("utf-8"))
    image = {name: n for n, name in enumerate(truth.images["file_name"])}
    category = {name: n for n, name in enumerate(truth.categories["name"])}
    boxes = truth.boxes
    for file, name, *box in told["removed"] + [row[:6] for row in told["moved"]]:
        boxes = boxes.filter(~_is(boxes, image[file], category[name], box))
    for file, name, *box, new in told["renamed"]:
        meant = _is(boxes, image[file], category[name], box)
        renamed = pl.when(meant).then(category[new]).otherwise(pl.col("category_id"))
        boxes = boxes.with_columns(category_id=renamed.cast(pl.Int32))
    # What is doubtful is an ignored region, whether a label is there or not.
    for file, name, *box in told["doubtful"]:
        there = _is(boxes, image[file], category[name], box, required=False)
        boxes = boxes.with_columns(ignore=pl.col("ignore") | there)
    there = told["added"] + [row[:2] + row[6:] for row in told["moved"]]
    new = [(*row, False) for row in there] + [(*row, True) for row in told["doubtful"]]
    files, names, x, y, w, h, ignore = zip(*new)
    columns = {"image_id": [image[f] for f in files], "category_id": [category[n] for n in names]}
    columns |= {"x": x, "y": y, "w": w, "h": h, "area": np.multiply(w, h), "ignore": ignore}
    added = frame(BOX_SCHEMA, columns | {"crowd": [False] * len(new)})
    return truth.with_boxes(pl.concat([boxes, added]).sort("image_id", maintain_order=True))


def _is(boxes: pl.DataFrame, image: int, category: int, box: list[float], required: bool = True) -> pl.Series:
    """Which of the boxes is meant by one that was noted to the pixel."""
    places = boxes.select("x", "y", "w", "h").to_numpy()
    near = pl.Series(pairwise_iou(places, np.array([box], dtype=float))[:, 0] > 0.9)
    meant = near & (boxes["image_id"] == image) & (boxes["category_id"] == category)
    if required and meant.sum() == 0:
        raise ValueError(f"no label at {box} of image {image}.")
    if required and meant.sum() > 1:  # drawn twice: the later one
        last = int(np.flatnonzero(meant.to_numpy())[-1])
        meant = pl.Series(np.arange(len(meant)) == last)
    return meant


def show(rows: list[dict]) -> None:
    """Each seed and the means."""
    names = list(rows[0])[2:]
    table = Table("trained on", "seed", *names, box=None)
    for kind in dict.fromkeys(row["trained on"] for row in rows):
        own = [row for row in rows if row["trained on"] == kind]
        for row in [*own, {"seed": "mean"} | {n: mean(r[n] for r in own) for n in names}]:
            table.add_row(kind, str(row["seed"]), *(f"{row[n]:.3f}" for n in names))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
