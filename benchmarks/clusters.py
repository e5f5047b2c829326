"""A prediction in parts on Ray beside as many plain processes, and the memory of judging many parts.

    python -m benchmarks.clusters rate --checkpoint runs/bccd --images 4000
    python -m benchmarks.clusters judge --detections 100_000_000

`rate` predicts pictures of 640 x 480 from folders that both ways see, each worker on one thread, both writing
parts of 256; seconds are of the whole, the start of all processes and of Ray included, and without it.
`judge` writes parts of boxes at random beside truth at random, with the 80 classes and the sizes of COCO, and
judges them in a process of its own.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import polars as pl
from rich.console import Console

from boxwright.data import formats
from boxwright.data.formats.parts import IMAGES, PLAN, part_file
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame

CLASSES, EACH, IN_PART = 80, 200, 5_000  # categories; detections of an image; images of a part
TRUE = 8  # objects of an image
SIZE = (640, 480)
PART = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways = parser.add_subparsers(dest="way", required=True)
    rated = ways.add_parser("rate")
    rated.add_argument("--checkpoint", required=True, type=Path)
    rated.add_argument("--images", type=int, default=4_000)
    rated.add_argument("--workers", type=int, default=2)
    rated.add_argument("--runtime", default="onnx")
    rated.add_argument("--rounds", type=int, default=2)
    judged = ways.add_parser("judge")
    judged.add_argument("--detections", type=int, default=100_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rate(given, Path(folder)) if given.way == "rate" else judge(given.detections, Path(folder))


def rate(given: argparse.Namespace, folder: Path) -> None:
    """Seconds of both ways, one after the other in each round."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for n in range(64):
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{n}.jpg"), cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC))
    for n in range(given.images):
        (folder / f"images/{n:06d}.jpg").symlink_to(folder / f"{n % 64}.jpg")
    for n in range(given.rounds):
        for name, run in (("plain processes", plain), ("Ray", on_ray)):
            began = time.perf_counter()
            working = run(given, folder / "images", folder / f"{name.split()[0]}-{n}")
            whole = time.perf_counter() - began
            Console().print(
                f"{name:<16} {whole:6.1f} s, {given.images / whole:.1f} images/s; without the start"
                f" {working:6.1f} s, {given.images / working:.1f} images/s"
            )


def plain(given: argparse.Namespace, images: Path, out: Path) -> float:
    """Processes that take every n-th part; seconds from when all are ready."""
    out.mkdir()
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(given.workers + 1)
    own = [context.Process(target=_share, args=(given, images, out, n, ready)) for n in range(given.workers)]
    for process in own:
        process.start()
    ready.wait()
    began = time.perf_counter()
    for process in own:
        process.join()
    assert all(process.exitcode == 0 for process in own)
    return time.perf_counter() - began


def _share(given: argparse.Namespace, images: Path, out: Path, n: int, ready) -> None:
    import torch

    from boxwright.prediction.predict import predict_images
    from boxwright.prediction.predictor import open_predictor

    torch.set_num_threads(1)
    predictor = open_predictor(given.checkpoint, runtime=given.runtime)
    files = [(path.name, str(path)) for path in sorted(images.iterdir())]
    parts = [files[start : start + PART] for start in range(0, len(files), PART)]
    ready.wait()
    for number, part in list(enumerate(parts))[n :: given.workers]:
        formats.write(predict_images(part, [predictor]), out / f"{number}.parquet")


def on_ray(given: argparse.Namespace, images: Path, out: Path) -> float:
    """`boxwright predict --on ray` in a process of its own; seconds from its first part's begin."""
    code = (
        "import boxwright, os, ray, sys, time; ray.init(num_cpus=int(sys.argv[4]), logging_level='ERROR')\n"
        "done = boxwright.predict_on_ray(sys.argv[1], sys.argv[2], sys.argv[3], workers=int(sys.argv[4]),"
        f" part_size={PART}, runtime=sys.argv[5])"
    )
    words = [str(images), str(given.checkpoint), str(out), str(given.workers), given.runtime]
    subprocess.run([sys.executable, "-c", code, *words], check=True)
    ends = sorted(path.stat().st_mtime for path in out.glob("part-*.parquet"))
    # The first parts of all workers began as long before they ended as the others took.
    several = len(ends) // given.workers
    return (ends[-1] - ends[given.workers - 1]) * several / (several - 1)


def judge(count: int, folder: Path) -> None:
    """Seconds and memory of judging so many detections."""
    began, images = time.perf_counter(), max(IN_PART, count // EACH)
    categories = frame(
        CATEGORY_SCHEMA, {"category_id": range(CLASSES), "name": [f"c{n}" for n in range(CLASSES)]}
    )
    names = [f"{n:09d}.jpg" for n in range(images)]
    table = pl.DataFrame({"image_id": range(images), "file_name": names})
    found = folder / "found"
    found.mkdir()
    shapes = {"width": [SIZE[0]] * images, "height": [SIZE[1]] * images}
    whole = frame(IMAGE_SCHEMA, table.to_dict() | shapes)
    whole.write_parquet(found / IMAGES)
    (found / PLAN).write_text(json.dumps({"images": images, "part_size": IN_PART}))
    rng, truth = np.random.default_rng(0), []
    for part in range(-(-images // IN_PART)):
        own = whole.slice(part * IN_PART, IN_PART)
        true = _boxes(rng, len(own), TRUE)
        truth.append(true.with_columns(pl.col("image_id") + part * IN_PART))
        seen = _detections(rng, true, len(own))
        numbered = own.with_columns(image_id=pl.int_range(len(own), dtype=IMAGE_SCHEMA["image_id"]))
        formats.write(Tables(numbered, seen, categories), part_file(found, part))
    formats.write(Tables(whole, pl.concat(truth), categories), folder / "truth.parquet")
    size = sum(file.stat().st_size for file in found.iterdir()) / 1e9
    Console().print(
        f"{count:,} detections of {images:,} images, {size:.1f} GB, written in"
        f" {time.perf_counter() - began:.0f} s"
    )
    began = time.perf_counter()
    command = [sys.executable, "-m", "boxwright", "evaluate", str(folder / "truth.parquet"), str(found)]
    subprocess.run(command, check=True)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    Console().print(f"judged in {time.perf_counter() - began:.0f} s, {most:.2f} GB at most")


def _boxes(rng: np.random.Generator, images: int, each: int) -> pl.DataFrame:
    count = images * each
    size = np.exp(rng.normal(4, 0.8, (count, 2))).clip(4, 300)
    corner = rng.random((count, 2)) * (np.array(SIZE) - size)
    return _frame(np.repeat(np.arange(images), each), rng.integers(0, CLASSES, count), corner, size, None)


def _detections(rng: np.random.Generator, true: pl.DataFrame, images: int) -> pl.DataFrame:
    """Each true box found a little off, and as many as are left anywhere."""
    others = _boxes(rng, images, EACH - TRUE)
    sides = true.select(*"xywh").to_numpy()
    noise = rng.normal(0, 0.08, sides.shape) * np.tile(sides[:, 2:], 2)
    near = sides + noise
    both = {
        name: np.concatenate([true[name].to_numpy(), others[name].to_numpy()])
        for name in ("image_id", "category_id")
    }
    places = np.concatenate([near, others.select(*"xywh").to_numpy()])
    scores = np.concatenate([rng.beta(4, 2, len(true)), rng.beta(1, 6, len(others))])
    order = np.lexsort([-scores, both["image_id"]])
    return _frame(
        both["image_id"][order], both["category_id"][order], places[order, :2],
        np.maximum(places[order, 2:], 1), scores[order],
    )  # fmt: skip


def _frame(
    image: np.ndarray, category: np.ndarray, corner: np.ndarray, size: np.ndarray, score: np.ndarray | None
) -> pl.DataFrame:
    columns = {"image_id": image, "category_id": category, "x": corner[:, 0], "y": corner[:, 1]}
    columns |= {"w": size[:, 0], "h": size[:, 1], "area": size.prod(axis=1)}
    return frame(BOX_SCHEMA, columns if score is None else columns | {"score": score})


if __name__ == "__main__":
    main()
