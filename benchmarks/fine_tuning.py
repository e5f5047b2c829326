"""What a start from weights is worth: docs/numbers.md's table of fine-tuning on few images.

python -m benchmarks.fine_tuning --steps 200 --ways random weights "weights, lr / 2" \\
    "weights, layer_decay 0.7" "weights, new_first 30" "weights, frozen backbone"
python -m benchmarks.fine_tuning --steps 400 --batch 2 --images 32 --ways weights "weights, norms keep"
python -m benchmarks.fine_tuning --model configs/bccd_faster_rcnn.yaml --steps 120 --images 32
python -m benchmarks.fine_tuning --steps 200 --unlabelled

A detector learns HIT-UAV's people and vehicles (upright boxes, thermal pictures from a drone), then the blood
cells of BCCD on few of its training images, from those weights or from random ones. Both take equally many
steps of equal work, so equal time; BCCD's test list judges the last weights. Runs that are there already are
not repeated. With `--unlabelled` the weights are of `boxwright pretrain --self-supervised` on BCCD's own
training images, without their boxes.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

import boxwright
from boxwright.config import check_config
from boxwright.config.places import LAST
from boxwright.data import formats
from boxwright.data.formats.options import ReadOptions
from tests.shared_data import SHARED

BATCH = 8
OPTIMIZERS = {
    "dfine": {"name": "adamw", "lr": 5.0e-4, "weight_decay": 1.0e-4},
    "compact": {"name": "adamw", "lr": 2.0e-3, "weight_decay": 0.03},
}
OTHERS = {"name": "adamw", "lr": 1.0e-3, "weight_decay": 0.03}
# What each way adds to a start from random weights.
WAYS: dict[str, dict] = {
    "random": {},
    "weights": {"model": {}},
    "weights, lr / 2": {"model": {}, "lr": 0.5},
    "weights, layer_decay 0.7": {"model": {}, "optimizer": {"layer_decay": 0.7}},
    "weights, new_first 30": {"model": {}, "train": {"new_first": 30}},
    "weights, frozen backbone": {"model": {"freeze": ["backbone"]}},
    "weights, norms keep": {"model": {}, "train": {"norms": "keep"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=model_of, default={"name": "compact"}, help="a YAML file's, or {name: compact, ...}"
    )
    parser.add_argument("--pretrain-epochs", type=int, default=12)
    parser.add_argument("--unlabelled", action="store_true", help="weights of images without boxes")
    parser.add_argument("--steps", type=int, default=150, help="when fine-tuning")
    parser.add_argument("--batch", type=int, default=BATCH, help="images a step, when fine-tuning")
    parser.add_argument("--images", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["random", "weights"])
    parser.add_argument("--out", type=Path, default=Path("runs/fine-tuning"))
    arguments = parser.parse_args()
    weights = learn_images(arguments) if arguments.unlabelled else pretrain(arguments)
    rows = [
        {"way": way, "images": count, "seed": seed} | fine_tune(arguments, weights, way, count, seed)
        for seed in arguments.seeds
        for count in arguments.images
        for way in arguments.ways
    ]
    show(rows)
    name = arguments.model["name"]
    (arguments.out / f"{name}.json").write_text(json.dumps(rows, indent=2))


def model_of(text: str) -> dict:
    """The model of an experiment's file, or one that is written out."""
    return yaml.safe_load(Path(text).read_text())["model"] if text.endswith(".yaml") else yaml.safe_load(text)


def pretrain(arguments: argparse.Namespace) -> Path:
    """Weights that know HIT-UAV."""
    root = SHARED / "data" / "hituav_obb"
    config = {
        "data": {
            "train": {"format": "coco", "root": str(root / "train" / "normal.json")},
            "val": {"format": "coco", "root": str(root / "val" / "normal.json")},
            "ignore": ["DontCare"],
        },
        "model": arguments.model,
        "image_size": [640, 512],
        "augment": {"flip_vertical": 0.5, "quarter_turn": 0.5, "crop": [320, 256], "focus": 0.7},
        "train": training(arguments, arguments.pretrain_epochs, 0),
    }
    run(arguments, config, f"{arguments.model['name']}-pretrained")
    return arguments.out / f"{arguments.model['name']}-pretrained" / "checkpoints" / LAST


def learn_images(arguments: argparse.Namespace) -> Path:
    """Weights of a backbone that tells BCCD's training images from each other."""
    folder = arguments.out / "bccd-images"
    folder.mkdir(parents=True, exist_ok=True)
    every = formats.read(SHARED / "data" / "bccd", "voc", ReadOptions(list_name="trainval"))
    for place in every.images["path"]:
        link = folder / Path(place).name
        if not link.exists():
            link.symlink_to(Path(place).resolve())
    experiment = {
        "data": {part: {"root": str(folder)} for part in ("train", "val")},
        "model": arguments.model,
    }
    file, name = arguments.out / f"{arguments.model['name']}.yaml", f"{arguments.model['name']}-unlabelled"
    file.write_text(yaml.safe_dump(experiment))
    if not (arguments.out / name / "evaluation.json").is_file():
        boxwright.pretrain(folder, file, self_supervised=True, name=name, runs=arguments.out)
    return arguments.out / name / "checkpoints" / LAST


def fine_tune(
    arguments: argparse.Namespace, weights: Path, way: str, count: int, seed: int
) -> dict[str, float]:
    """AP, AP50 and AP75 on BCCD's test list after training on `count` images."""
    root = SHARED / "data" / "bccd"
    few = arguments.out / f"bccd-{count}-seed{seed}.parquet"
    every = formats.read(root, "voc", ReadOptions(list_name="trainval"))
    chosen = np.zeros(len(every.images), dtype=bool)
    chosen[np.random.default_rng(seed).choice(len(chosen), count, replace=False)] = True
    formats.write(every.select_images(chosen), few)
    added = WAYS[way]
    model = arguments.model | added.get("model", {})
    if "model" in added:
        model |= {"weights": str(weights)}
    train = training(arguments, arguments.steps * arguments.batch // count, seed) | added.get("train", {})
    train["batch_size"] = arguments.batch
    train["optimizer"] = train["optimizer"] | added.get("optimizer", {})
    train["optimizer"]["lr"] *= added.get("lr", 1.0)
    config = {
        "data": {
            "train": {"root": str(few)},
            "val": {"format": "voc", "root": str(root), "list": "test"},
            "classes": ["RBC", "WBC", "Platelets"],
        },
        "model": model,
        "image_size": [320, 240],
        "augment": {"flip_vertical": 0.5},
        "train": train,
    }
    known = "unlabelled-" if arguments.unlabelled and way != "random" else ""
    size = f"-batch{arguments.batch}" if arguments.batch != BATCH else ""
    name = f"{arguments.model['name']}-{known}{way}-{count}{size}-seed{seed}".replace(" ", "").replace(
        "/", ""
    )
    return run(arguments, config, name)


def training(arguments: argparse.Namespace, epochs: int, seed: int) -> dict:
    optimizer = OPTIMIZERS.get(arguments.model["name"], OTHERS)
    few_steps = {"decay": 0.98, "start": 30}
    return {
        "epochs": epochs, "batch_size": BATCH, "seed": seed, "optimizer": optimizer, "ema": few_steps,
        "evaluate_every": epochs,
    }  # fmt: skip


def run(arguments: argparse.Namespace, config: dict, name: str) -> dict[str, float]:
    """Train, unless that has been done; AP of what came out."""
    done = arguments.out / name / "evaluation.json"
    if not done.is_file():
        boxwright.train(check_config(config, name), name=name, runs=arguments.out)
    coco = json.loads(done.read_text())["coco"]
    return {what: coco[what] for what in ("AP", "AP50", "AP75")}


def show(rows: list[dict]) -> None:
    table = Table("images", "start", box=None)
    for column in ("AP50", "AP75", "AP", "AP of each seed"):
        table.add_column(column, justify="right")
    for count, way in dict.fromkeys((r["images"], r["way"]) for r in rows):
        own = [r for r in rows if (r["images"], r["way"]) == (count, way)]
        each = [r["AP"] for r in own]
        spread = f" ± {stdev(each):.3f}" if len(each) > 1 else ""
        table.add_row(
            str(count), way, f"{mean(r['AP50'] for r in own):.3f}", f"{mean(r['AP75'] for r in own):.3f}",
            f"{mean(each):.3f}{spread}", " ".join(f"{ap:.3f}" for ap in each),
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
