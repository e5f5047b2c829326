"""The blood-cell runs of README's table: train from random weights, judge with pycocotools.

python -m benchmarks.bccd --seeds 0 1 2 --out runs/bench
python -m benchmarks.bccd --config configs/bccd_quick.yaml  # smaller images, ten epochs
python -m benchmarks.bccd --set 'views=["plain"]'           # in a single view
"""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.table import Table

from boxwright.data import formats
from tests.shared_data import SHARED


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="In place of the config's minutes.")
    parser.add_argument("--config", type=Path, default=Path("configs/bccd.yaml"))
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench"), help="folder for runs and results.json"
    )
    parser.add_argument("--set", dest="changes", action="append", default=[], help="as boxwright train's")
    arguments = parser.parse_args()
    rows = [measure(arguments, seed) for seed in arguments.seeds]
    table = Table("seed", "AP", "AP50", "AP75", "seconds", "images/s", "peak GiB", box=None)
    for row in [*rows, mean(rows)]:
        table.add_row(*(value if isinstance(value, str) else f"{value:.4g}" for value in row.values()))
    Console().print(table)
    (arguments.out / "results.json").write_text(json.dumps(rows, indent=2))


def measure(arguments: argparse.Namespace, seed: int) -> dict[str, float | str]:
    """One run as a user would start it; the seconds are of the whole command."""
    name = f"{arguments.config.stem}-{arguments.epochs or 'whole'}-seed{seed}"
    root = SHARED / "data" / "bccd"
    changes = [f"data.train.root={root}", f"data.val.root={root}", f"train.seed={seed}"]
    changes += [f"train.epochs={arguments.epochs}"] if arguments.epochs else []
    changes += arguments.changes
    command = [sys.executable, "-m", "boxwright", "train", str(arguments.config), "--name", name]
    command += ["--runs", str(arguments.out)] + [word for c in changes for word in ("--set", c)]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - began
    # The greatest of all children so far: exact for one seed, an upper bound for later ones.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    run = max(arguments.out.glob(f"{name}*"), key=lambda p: p.stat().st_mtime)
    ap, ap50, ap75 = judge(run)
    speed = pl.read_parquet(run / "metrics.parquet")["images_per_second"].drop_nulls()[-1]
    numbers = {"AP": ap, "AP50": ap50, "AP75": ap75, "seconds": seconds, "images/s": speed, "peak GiB": peak}
    return {"seed": str(seed)} | numbers


def judge(run: Path) -> tuple[float, float, float]:
    """AP, AP50, AP75 by pycocotools, on JSON exported from the run."""
    truth, results = run / "truth.json", run / "results.json"
    formats.write(formats.read(run / "truth.parquet"), truth, "coco")
    formats.write(formats.read(run / "predictions.parquet"), results, "coco-results")
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(truth))
        evaluation = COCOeval(reference, reference.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return tuple(float(v) for v in evaluation.stats[:3])


def mean(rows: list[dict]) -> dict[str, float | str]:
    """The mean of every column."""
    return {"seed": "mean"} | {k: sum(r[k] for r in rows) / len(rows) for k in rows[0] if k != "seed"}


if __name__ == "__main__":
    main()
