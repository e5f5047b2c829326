"""The evaluation table of README: COCO's metric at COCO's size beside the other implementations, in one run.

python -m benchmarks.evaluation               # make bench-evaluate; needs the extra: uv sync --extra bench
python -m benchmarks.evaluation --scale       # how time and memory grow up to 10 million predictions
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from boxwright.data import formats
from boxwright.data.formats.options import ReadOptions
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame
from tests.shared_data import SHARED

PEERS = ("hotcoco", "faster_coco_eval", "pycocotools")
SCALE = (10, 3, 1)  # parts of the whole
WHOLE_IMAGES, WHOLE_BOXES = 500_000, 10_000_000
console = Console(width=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement; the best is shown")
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--scale", action="store_true", help="the curve up to 10 million predictions")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the problem's files there")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child](arguments.folder, arguments.repeats)))
        return
    console.print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        scale(folder) if arguments.scale else race(folder, arguments.repeats, arguments.peers)


def race(folder: Path, repeats: int, peers: list[str]) -> None:
    """Warm evaluate + accumulate, whole processes, and peak memory."""
    make_problem(folder)
    rows = {name: child(name, folder, repeats) for name in ("ours", *peers)}
    table = Table("program", box=None)
    for column in ("load, s", "first, s", "warm, s", "process JSON, s", "process Parquet, s", "peak, GB"):
        table.add_column(column, justify="right")
    processes = {name: whole_process(name, folder, repeats) for name in rows}
    for name, row in rows.items():
        whole = processes[name]
        cells = [row["load"], row["first"], row["warm"], whole["json"], whole.get("parquet"), whole["peak"]]
        table.add_row(name, *("" if c is None else f"{c:.3f}" for c in cells))
    console.print(table)
    difference = max(
        abs(rows["ours"]["numbers"][k] - v) for r in rows.values() for k, v in r["numbers"].items()
    )
    console.print(f"greatest difference of any of the twelve numbers: {difference:.3g}")
    if "hotcoco" in rows:
        ours, theirs = rows["ours"], rows["hotcoco"]
        process, peer = processes["ours"], processes["hotcoco"]["json"]
        console.print(
            f"ours / hotcoco: warm {ours['warm'] / theirs['warm']:.2f}, whole process from Parquet "
            f"{process['parquet'] / peer:.2f}, from JSON {process['json'] / peer:.2f}"
        )


def make_problem(folder: Path) -> None:
    """COCO's size as JSON and as Parquet: 5,000 images, 80 classes, 500,000 detections."""
    maker = SHARED / "bench" / "make_coco_scale.py"
    if not maker.is_file():
        sys.exit(f"{maker} is missing; BOXWRIGHT_SHARED says where the shared data lies")
    if not (folder / "results.parquet").is_file():
        size = ["--images", "5000", "--classes", "80", "--dets", "500000", "--seed", "0"]
        subprocess.run([sys.executable, str(maker), "--out", str(folder), *size], check=True)
        truth = formats.read(folder / "truth.json")
        formats.write(truth, folder / "truth.parquet")
        found = formats.read(folder / "results.json", options=ReadOptions(truth=truth))
        formats.write(found, folder / "results.parquet")


def child(name: str, folder: Path, repeats: int) -> dict:
    """A measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.evaluation", "--child", name, "--folder", str(folder)]
    repeats = 1 if name == "pycocotools" else repeats
    done = subprocess.run([*command, "--repeats", str(repeats)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def whole_process(name: str, folder: Path, repeats: int) -> dict:
    """Wall seconds of the best whole process from files to numbers, and its peak memory in GB."""
    json_files = [str(folder / "truth.json"), str(folder / "results.json")]
    if name != "ours":
        return timed(
            [sys.executable, "-c", SCRIPTS[name], *json_files], 1 if name == "pycocotools" else repeats
        )
    command = [str(Path(sys.executable).parent / "boxwright"), "evaluate"]
    from_json = timed([*command, *json_files], repeats)
    parquet = timed([*command, str(folder / "truth.parquet"), str(folder / "results.parquet")], repeats)
    return from_json | {"parquet": parquet["json"], "peak": max(from_json["peak"], parquet["peak"])}


def timed(command: list[str], repeats: int) -> dict:
    seconds, peak = [], 0.0
    for _ in range(repeats + 1):  # the first one warms the disk's cache
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - start)
        if status:
            sys.exit(f"failed: {' '.join(command)}")
        peak = max(peak, usage.ru_maxrss / 1e6)
    return {"json": min(seconds), "peak": peak}


def measure_ours(folder: Path, repeats: int) -> dict:
    from boxwright.evaluation import coco
    from boxwright.evaluation.matching import match
    from boxwright.evaluation.pairing import align

    start = time.perf_counter()
    truth = formats.read(folder / "truth.json")
    found = align(truth, formats.read(folder / "results.json", options=ReadOptions(truth=truth)))
    load, times, curves = time.perf_counter() - start, [], None
    for _ in range(repeats + 1):
        start = time.perf_counter()
        matching = match(truth, found, coco.IOU_THRESHOLDS, coco.AREA_RANGES, 100)
        curves = coco.precision_recall(matching, (1, 10, 100))
        times.append(time.perf_counter() - start)
    numbers = list(coco.summary(curves, (1, 10, 100)).values())
    return result(load, times, numbers)


def measure_pycocotools(folder: Path, repeats: int) -> dict:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return measure_like_pycocotools(folder, repeats, COCO, COCOeval)


def measure_faster_coco_eval(folder: Path, repeats: int) -> dict:
    from faster_coco_eval import COCO, COCOeval_faster

    return measure_like_pycocotools(folder, repeats, COCO, COCOeval_faster)


def measure_hotcoco(folder: Path, repeats: int) -> dict:
    from hotcoco import COCO, COCOeval

    return measure_like_pycocotools(folder, repeats, COCO, COCOeval)


def measure_like_pycocotools(folder: Path, repeats: int, coco_class, eval_class) -> dict:
    start = time.perf_counter()
    truth = coco_class(str(folder / "truth.json"))
    load_results = getattr(truth, "loadRes", None) or truth.load_res
    found = load_results(str(folder / "results.json"))
    load, times, judge = time.perf_counter() - start, [], None
    for _ in range(repeats + 1):
        judge = eval_class(truth, found, "bbox")
        start = time.perf_counter()
        judge.evaluate()
        judge.accumulate()
        times.append(time.perf_counter() - start)
    judge.summarize()
    return result(load, times, [float(v) for v in judge.stats])


def result(load: float, times: list[float], numbers: list[float]) -> dict:
    named = {str(n): v for n, v in enumerate(numbers[:12])}
    return {"load": load, "first": times[0], "warm": min(times[1:]), "numbers": named}


def scale(folder: Path) -> None:
    """Time and memory of the whole command at parts of 10 million predictions over 500,000 images."""
    table = Table("images", "predictions", box=None)
    for column in ("whole command, s", "s per million", "peak, GB"):
        table.add_column(column, justify="right")
    for part in SCALE:
        place = folder / f"part_{part}"
        place.mkdir(parents=True, exist_ok=True)
        images, boxes = WHOLE_IMAGES // part, WHOLE_BOXES // part
        write_scaled(place, images, boxes)
        command = [str(Path(sys.executable).parent / "boxwright"), "evaluate"]
        whole = timed([*command, str(place / "truth.parquet"), str(place / "found.parquet")], 1)
        row = (f"{whole['json']:.1f}", f"{whole['json'] / boxes * 1e6:.2f}", f"{whole['peak']:.2f}")
        table.add_row(f"{images:,}", f"{boxes:,}", *row)
    console.print(table)


def write_scaled(folder: Path, images: int, predictions: int, classes: int = 80) -> None:
    """Truth, and predictions of which a third are jittered truth; as Parquet, since JSON would be 1 GB."""
    rng = np.random.default_rng(0)
    objects = predictions // 3
    of_truth = random_boxes(rng, objects)
    image, category = rng.integers(0, images, objects), rng.integers(0, classes, objects)
    picked = rng.integers(0, objects, predictions // 3)
    others = predictions - len(picked)
    found = of_truth[picked] + rng.normal(0, 3, (len(picked), 4))
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    write_tables(folder / "truth.parquet", images, classes, image, category, of_truth, None)
    write_tables(
        folder / "found.parquet", images, classes,
        np.concatenate([image[picked], rng.integers(0, images, others)]),
        np.concatenate([category[picked], rng.integers(0, classes, others)]),
        np.concatenate([found, random_boxes(rng, others)]),
        rng.random(predictions),
    )  # fmt: skip


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    side = np.exp(rng.normal(np.log(60), 0.8, (count, 2))).clip(4, 400)
    return np.concatenate([rng.uniform(0, 640, (count, 2)), side], axis=1)


def write_tables(path: Path, images: int, classes: int, image, category, boxes, score) -> None:
    columns = {"image_id": image, "category_id": category.astype(np.int32), "area": boxes[:, 2] * boxes[:, 3]}
    columns |= dict(zip("xywh", boxes.T.copy()))
    if score is not None:
        columns["score"] = score
    ids = np.arange(images)
    named = {
        "image_id": ids,
        "width": np.full(images, 640, np.int32),
        "height": np.full(images, 480, np.int32),
    }
    named |= {"source_id": ids, "file_name": pl.Series([f"{i}.jpg" for i in range(images)])}
    kinds = {
        "category_id": np.arange(classes, dtype=np.int32),
        "name": [f"class {k}" for k in range(classes)],
    }
    tables = Tables(frame(IMAGE_SCHEMA, named), frame(BOX_SCHEMA, columns), frame(CATEGORY_SCHEMA, kinds))
    formats.write(tables, path)


CHILDREN = {
    "ours": measure_ours,
    "hotcoco": measure_hotcoco,
    "faster_coco_eval": measure_faster_coco_eval,
    "pycocotools": measure_pycocotools,
}
LIKE_PYCOCOTOOLS = (
    "t = COCO(sys.argv[1]); d = getattr(t, 'loadRes', None) or t.load_res; d = d(sys.argv[2])\n"
    "e = Eval(t, d, 'bbox'); e.evaluate(); e.accumulate(); e.summarize()"
)
SCRIPTS = {
    name: f"import sys\nfrom {module} import COCO\nfrom {judge} as Eval\n{LIKE_PYCOCOTOOLS}"
    for name, module, judge in (
        ("hotcoco", "hotcoco", "hotcoco import COCOeval"),
        ("faster_coco_eval", "faster_coco_eval", "faster_coco_eval import COCOeval_faster"),
        ("pycocotools", "pycocotools.coco", "pycocotools.cocoeval import COCOeval"),
    )
}

if __name__ == "__main__":
    main()
