"""The compact detector beside Ultralytics' nano model: equal minutes on one machine, from random weights.

python -m venv /tmp/ultralytics && /tmp/ultralytics/bin/pip install ultralytics
python -m benchmarks.beside_ultralytics bccd --python /tmp/ultralytics/bin/python
python -m benchmarks.beside_ultralytics hituav --python /tmp/ultralytics/bin/python

Its licence is the AGPL, so it is no dependency: it runs in an environment of its own, with its own defaults,
all cores (it would leave one idle), images of our size and no validation, which would take from its minutes.
Both are judged on the set's validation images by their last weights, ours in one view and in all of the
config's: pycocotools for upright boxes, exact overlap for oriented ones. Runs that are there already are not
repeated.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean

import polars as pl
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.table import Table

import boxwright
from boxwright.config import load_config
from boxwright.config.places import LAST
from boxwright.data import formats
from boxwright.data.builder import TableBuilder
from boxwright.data.formats.placing import place_images
from boxwright.data.formats.yolo import write_parts
from boxwright.data.tables import Tables
from boxwright.evaluation.evaluate import evaluate
from boxwright.training.train import load_data

SETS = {
    "bccd": {"config": "bccd.yaml", "model": "yolo11n.yaml", "classes": None},
    "hituav": {
        "config": "hituav_obb.yaml",
        "model": "yolo11n-obb.yaml",
        "classes": ["Person", "Car", "Bicycle"],
    },
}
NUMBERS = ("AP50", "AP75", "AP")
CHILD = Path(__file__).with_name("ultralytics_run.py")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--python", type=Path, help="of Ultralytics' environment; left out: ours alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, help="in place of the config's")
    parser.add_argument("--precision", default="auto", help="of ours")
    parser.add_argument("--out", type=Path, default=Path("runs/beside-ultralytics"))
    options = parser.parse_args()
    options.out = (options.out / options.set).resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    options.minutes = options.minutes or load_config(_config(options)).train.minutes
    rows = []
    for seed in options.seeds:
        rows += ours(options, seed)
        rows += theirs(options, seed) if options.python else []
        show(rows)
    (options.out / "results.json").write_text(json.dumps(rows, indent=2))


def _config(options: argparse.Namespace) -> Path:
    return Path("configs") / SETS[options.set]["config"]


def show(rows: list[dict]) -> None:
    """Each way's seeds and their mean."""
    table = Table("way", "seed", *NUMBERS, "seconds", box=None)
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        for row in [*own, {"seed": "mean"} | {k: mean(r[k] for r in own) for k in (*NUMBERS, "seconds")}]:
            table.add_row(way, str(row["seed"]), *(f"{row[k]:.3f}" for k in NUMBERS), f"{row['seconds']:.0f}")
    Console(width=100).print(table)


def ours(options: argparse.Namespace, seed: int) -> list[dict]:
    """One run as a user would start it."""
    folder, seconds = options.out / f"boxwright-{seed}", options.out / f"boxwright-{seed}.seconds"
    changes = [f"train.seed={seed}", f"train.minutes={options.minutes}", "train.keep=0"]
    changes += [f"train.precision={options.precision}"]
    if not seconds.is_file():
        command = [sys.executable, "-m", "boxwright", "train", str(_config(options)), "--name", folder.name]
        command += ["--runs", str(options.out), *(word for c in changes for word in ("--set", c))]
        seconds.write_text(str(timed(command)))
    truth = formats.read(folder / "truth.parquet")
    weights = folder / "checkpoints" / LAST
    images = options.out / "val"
    _link(truth, images)
    one = options.out / f"one-view-{seed}.parquet"
    boxwright.predict(images, weights, one, views=["plain"])
    found = {"boxwright, one view": one, "boxwright, all views": folder / "predictions.parquet"}
    took = {"seed": seed, "seconds": float(seconds.read_text())}
    return [{"way": way} | took | judge(options, truth, formats.read(path)) for way, path in found.items()]


def _link(truth: Tables, folder: Path) -> None:
    """Links to the images that judge."""
    folder.mkdir(exist_ok=True)
    for path in truth.images["path"]:
        link = folder / Path(path).name
        if not link.is_symlink():
            link.symlink_to(Path(path).resolve())


def theirs(options: argparse.Namespace, seed: int) -> list[dict]:
    """One run of its own trainer, and what it finds in the images that judge."""
    config = load_config(_config(options))
    data = load_data(config)
    root = options.out / "yolo"
    if not (root / "data.yaml").is_file():
        parts = {"train": data.train, "val": data.val}
        usable = {n: t.with_boxes(t.boxes.filter(~pl.col("ignore"))) for n, t in parts.items()}
        write_parts({n: place_images(t, "yolo", root, "copy", part=n) for n, t in usable.items()}, root)
    folder, seconds = options.out / f"ultralytics-{seed}", options.out / f"ultralytics-{seed}.seconds"
    if not seconds.is_file():
        command = [str(options.python), str(CHILD), str(root / "data.yaml"), SETS[options.set]["model"]]
        command += [str(options.minutes), str(max(config.image_size)), str(seed), str(folder)]
        seconds.write_text(str(timed(command)))
    found = read_boxes(folder / "found.json", data.val)
    model = SETS[options.set]["model"].removesuffix(".yaml")
    took = {"seed": seed, "seconds": float(seconds.read_text())}
    return [{"way": model} | took | judge(options, data.val, found)]


def timed(command: list[str]) -> float:
    """Seconds of a whole command."""
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def read_boxes(path: Path, truth: Tables) -> Tables:
    """What `ultralytics_run` wrote, as tables."""
    builder = TableBuilder("ultralytics", angles="radians")
    names = [Path(p).name for p in truth.images["path"]]
    for row in truth.images.iter_rows(named=True):
        builder.image(row["file_name"], None, row["width"], row["height"])
    row_of = {name: n for n, name in enumerate(names)}
    for name in truth.categories["name"]:
        builder.category(name)
    for n, (image, category, score, *shape) in enumerate(json.loads(path.read_text())):
        if len(shape) == 4:
            x1, y1, x2, y2 = shape
            shape = [x1, y1, x2 - x1, y2 - y1]
        place = (str(path), n)
        builder.box(place, row_of[image], builder.category(category), tuple(shape), score=score)
    return builder.build()


def judge(options: argparse.Namespace, truth: Tables, found: Tables) -> dict[str, float]:
    """AP50, AP75 and AP."""
    classes = SETS[options.set]["classes"]
    if classes is not None:
        rows = [row for row in evaluate(truth, found).per_class if row["name"] in classes]
        return {name: mean(row[name] for row in rows) for name in NUMBERS}
    paths = options.out / "truth.json", options.out / "results.json"
    formats.write(truth, paths[0], "coco")
    formats.write(found, paths[1], "coco-results")
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(paths[0]))
        evaluation = COCOeval(reference, reference.loadRes(str(paths[1])), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75 = (float(v) for v in evaluation.stats[:3])
    return {"AP50": ap50, "AP75": ap75, "AP": ap}


if __name__ == "__main__":
    main()
