"""`boxwright.benchmark`: how long detectors take for an image, beside how good they are."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from boxwright.data.dataset import DetectionDataset
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError
from boxwright.evaluation.evaluate import evaluate
from boxwright.models.checkpoint import LoadedDetector
from boxwright.models.detector import Detector, collate_for
from boxwright.models.exported import ExportedDetector
from boxwright.models.onnx import on_threads
from boxwright.prediction.detect import detect, to_tables
from boxwright.prediction.judged import truth_of
from boxwright.prediction.predictor import open_detector, prepare
from boxwright.progress import progress_bar

PERCENTILES = (50, 95, 99)
PEAK, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux


@dataclass(frozen=True)
class Timing:
    """A detector in one runtime, with one size of batches.

    Attributes:
        name: of the checkpoint.
        runtime: torch, onnx, or file for an exported one.
        width, height: that images are fitted into.
        batch: images at once.
        threads: of the processor.
        p50, p95, p99: milliseconds a batch, from pixels in memory to detections, in one view.
        images_per_second: of all that were timed.
        memory: MiB of the process at most meanwhile; None: not known on this system.
        ap, ap50: on the images that were timed.
    """

    name: str
    runtime: str
    width: int
    height: int
    batch: int
    threads: int
    p50: float
    p95: float
    p99: float
    images_per_second: float
    memory: float | None
    ap: float
    ap50: float


def benchmark(
    checkpoints: Sequence[str | os.PathLike],
    data: Tables | str | os.PathLike | None = None,
    images: int = 100,
    batch_sizes: Sequence[int] = (1,),
    image_size: tuple[int, int] | None = None,
    threads: Sequence[int] | None = None,
    runtimes: Sequence[str] = ("torch", "onnx"),
    device: str | None = None,
) -> list[Timing]:
    """Time detectors on the same images one after the other, every combination of what is given.

    What is timed begins with fitted pixels in memory and ends with detections, in one view; reading and
    fitting images isn't in it. Before, batches of every size that there is warm up.

    Args:
        checkpoints: run folders, .safetensors files, and .onnx or .xml files of `export`.
        data: truth of the images, tables or a path; None: each experiment's own images to judge by.
        images: how many, the first ones.
        batch_sizes: images at once.
        image_size: (width, height) that images are fitted into; None: each experiment's.
        threads: of the processor; None: as many as torch takes.
        runtimes: torch, onnx; an exported file has its own.
        device: for torch, such as cuda; None: a GPU where there is one.

    Raises:
        ConfigError: nothing to time, or a runtime that isn't there.
        CheckpointError: a checkpoint can't be used.
        DataError: the images can't be read.
    """
    counts = list(threads or [torch.get_num_threads()])
    if not checkpoints or min([images, *batch_sizes, *counts]) < 1:
        raise ConfigError(
            "expected a checkpoint at least, and numbers of images, batches and threads from 1 on."
        )
    found = []
    for place in checkpoints:
        loaded = open_detector(place)
        truth = truth_of(loaded, data, images)
        size = image_size or loaded.config.image_size
        dataset = DetectionDataset(truth, size)
        exported = isinstance(loaded.model, ExportedDetector)
        for runtime in ("onnx",) if exported else runtimes:
            model, where = prepare(loaded.model, "cpu" if runtime == "onnx" else device, runtime)
            told = "file" if exported else runtime
            for count, batch in product(counts, batch_sizes):
                with on_threads(count):
                    run = _time(model, where, loaded, dataset, truth, batch, f"{Path(place).name}, {told}")
                found.append(Timing(Path(place).name, told, *size, batch, count, *run))
    return found


def _time(
    model: Detector,
    device: torch.device,
    loaded: LoadedDetector,
    dataset: DetectionDataset,
    truth: Tables,
    batch: int,
    what: str,
) -> tuple[float, float, float, float, float | None, float, float]:
    """What follows `threads` in a `Timing`."""
    batches = list(DataLoader(dataset, batch, collate_fn=collate_for(model)))
    spent, rows = [], []
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    detect(model, list({b.images.shape: b for b in batches}.values()), device)
    known = _reset_peak()
    with progress_bar(what, len(batches)) as tell:
        for own in batches:
            wait()
            began = time.perf_counter()
            rows += detect(model, [own], device)
            wait()
            spent.append(time.perf_counter() - began)
            tell(1)
    coco = evaluate(truth, to_tables(rows, truth.images, loaded.categories, "benchmark")).coco
    p50, p95, p99 = (1000 * np.percentile(spent, PERCENTILES)).tolist()
    return p50, p95, p99, len(dataset) / sum(spent), _peak() if known else None, coco["AP"], coco["AP50"]


def _reset_peak() -> bool:
    """Forget what the process had at most; whether this system can."""
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return PEAK.exists()


def _peak() -> float:
    """MiB that the process had at most since `_reset_peak`."""
    lines = dict(line.split(":", 1) for line in PEAK.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024
