"""Training on labels that an audit has repaired, beside those that came, judged on labels checked by eye.

python -m benchmarks.repaired bccd [--above 0.5]
python -m benchmarks.repaired hituav

Training labels are audited out of fold, and repaired where a fault is likely. Both are trained on alike, and
judged on the validation images: with labels as they came, and as checked by eye (`checked/`). Added and moved
boxes lie where detectors put them, so that AP50 says more than AP. Folds and runs that are there already are
not done again.
"""

import argparse
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from benchmarks.checked import checked
from boxwright.auditing.repair import repair
from boxwright.auditing.suspicions import suspect
from boxwright.config import check_config, load_config
from boxwright.data import formats
from boxwright.data.sources import load_parts, mark_ignored
from boxwright.evaluation.evaluate import evaluate
from boxwright.training.folds import out_of_fold
from boxwright.training.train import train

SETS = {"bccd": ("bccd.yaml", 16), "hituav": ("hituav_obb.yaml", 120)}  # file, epochs of a run and of a fold
NUMBERS = ("AP50", "AP75", "AP")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="of a run")
    parser.add_argument("--fold-epochs", type=int, help="of each fold")
    parser.add_argument("--above", type=float, default=0.9, help="least probability of what is repaired")
    parser.add_argument("--out", type=Path, default=Path("runs/repaired"))
    options = parser.parse_args()
    options.out = options.out / options.set
    labels = training_labels(options)
    rows = []
    for seed in options.seeds:
        rows += [judged(options, name, path, seed) for name, path in labels.items()]
        show(rows)


def training_labels(options: argparse.Namespace) -> dict[str, Path]:
    """The labels as they came and repaired, as files."""
    names = ("as they came", f"repaired from {options.above}")
    paths = {name: (options.out / f"{name}.parquet").resolve() for name in names}
    if not all(path.is_file() for path in paths.values()):
        content, epochs = experiment(options)
        config = check_config(content, options.set)
        (labels,), _ = load_parts(config.data)
        labels = mark_ignored(labels, config.data.ignore)
        content["train"] |= {"epochs": options.fold_epochs or epochs, "evaluate_every": 1_000_000}
        found = out_of_fold(labels, content, options.out / "folds")
        repaired = repair(labels, suspect(labels, found), options.above)
        Console().print(f"{len(labels.boxes):,} boxes; repaired: {repaired.counts}")
        for tables, path in zip((labels, repaired.tables), paths.values()):
            formats.write(tables, path)
    return paths


def experiment(options: argparse.Namespace) -> tuple[dict, int]:
    """The set's experiment, counted in epochs, and how many."""
    file, epochs = SETS[options.set]
    content = load_config(Path("configs") / file).model_dump(mode="json")
    content["train"]["minutes"] = None
    return content, epochs


def judged(options: argparse.Namespace, name: str, labels: Path, seed: int) -> dict:
    """A run, judged on both lists."""
    content, epochs = experiment(options)
    content["data"]["train"] = {"format": "parquet", "root": str(labels)}
    content["train"] |= {"epochs": options.epochs or epochs, "seed": seed, "keep": 0}
    run = f"{name.replace(' ', '-')}-{seed}"
    if not (options.out / run / "predictions.parquet").is_file():
        train(check_config(content, "repaired"), name=run, runs=options.out)
    truth, found = (formats.read(options.out / run / f"{n}.parquet") for n in ("truth", "predictions"))
    lists = {"checked": checked(truth, options.set), "as they came": truth}
    numbers = {f"{n} {told}": evaluate(own, found).coco[n] for told, own in lists.items() for n in NUMBERS}
    return {"trained on": name, "seed": seed} | numbers


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
