"""`boxwright predict --on ray`: any number of images on any number of machines, in parts."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import ray
import ray.data
from ray.exceptions import RayError

from boxwright.config.experiment import View
from boxwright.config.places import find_checkpoint
from boxwright.data.formats.files import sha256_of, write_frame
from boxwright.data.shards import list_shards
from boxwright.data.tables import Tables
from boxwright.errors import BoxwrightError, ConfigError, DataError, Fault
from boxwright.evaluation.calibration import load_calibration
from boxwright.prediction.parts import Plan, do_piece, faults_of, open_plan
from boxwright.prediction.predictor import open_detector, open_predictor
from boxwright.prediction.tiling import TilingOptions
from boxwright.progress import live_figures

FAULTS = "faults.csv"
PART = 256  # images: some tens of seconds of a worker, which a killed one loses at most


@dataclass(frozen=True)
class Done:
    """A finished prediction in parts.

    Attributes:
        folder: of the parts, which `formats.read` and `evaluate` take as one table.
        images, boxes: of this start.
        faults: of all parts, in `faults.csv` too.
        seconds: that it took, this start.
    """

    folder: Path
    images: int
    boxes: int
    faults: list[Fault]
    seconds: float


def predict_on_ray(
    images: str | os.PathLike | Sequence[str | os.PathLike] | Tables,
    checkpoint: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike,
    workers: int | None = None,
    part_size: int = PART,
    batch_size: int | None = None,
    device: str | None = None,
    calibration: str | os.PathLike | None = None,
    views: Sequence[View] | None = None,
    max_detections: int | None = None,
    tiling: TilingOptions | None = None,
    sweep: int = 0,
    runtime: str = "torch",
) -> Done:
    """Find objects in images on a Ray cluster: that of RAY_ADDRESS, or one of this machine.

    A worker opens the detector once and predicts part after part. Where one is killed, or its machine,
    another does its part; where this process is, the same call does what is missing. Every image is in one
    part, and boxes are those that `predict` finds on the same kind of machine. Tiles of images of more than
    144 megapixels, as the network sees them, are shared out.

    Args:
        images: as of `list_shards`, on disks that all machines see, as the checkpoint and the output are.
        checkpoint: as of `predict`; of several the boxes are fused.
        output: the folder of parts; a call with other arguments wants another one.
        workers: processes; None: one for each GPU, or for each core where the cluster has no GPU.
        part_size: images of a part.
        batch_size, device, calibration, views, max_detections, tiling, sweep, runtime: as of `predict`.

    Raises:
        DataError: there is no image, or a part can't be predicted.
        CheckpointError: the checkpoint can't be used.
        ConfigError: the folder is of another prediction, the cluster is too small, or options don't go
            together.

    Example:
        >>> boxwright.predict_on_ray("shards/", "runs/cars", "found/")
        >>> boxwright.evaluate("truth.parquet", "found/")
    """
    places = [checkpoint] if isinstance(checkpoint, str | os.PathLike) else list(checkpoint)
    if not places:
        raise ConfigError("no checkpoint is given, expected one at least.")
    for place in places:
        open_detector(place)  # what is wrong with it is told here and now
    places = [os.path.abspath(place) for place in places]
    options: dict[str, Any] = {
        "device": device, "views": views, "max_detections": max_detections, "tiling": tiling, "sweep": sweep,
        "runtime": runtime,
    }  # fmt: skip
    told = {name: str(value) for name, value in options.items() if value not in (None, 0)}
    detectors = [sha256_of(find_checkpoint(place))[:16] for place in places]
    told |= {"detectors": detectors, "batch_size": batch_size}
    if calibration is not None:
        calibration = Path(calibration).resolve()
        load_calibration(calibration)  # as with the detectors
        told["calibration"] = sha256_of(calibration)[:16]
    plan = open_plan(Path(output).resolve(), list_shards(images), part_size, told)
    start, seen, boxes = time.perf_counter(), 0, 0
    opened = (plan, places, options, batch_size, calibration)
    with live_figures("predict", len(plan.missing()) * part_size) as tell:
        for work in plan.work():
            for row in _rows(opened, work, workers, device) if work else ():
                seen, boxes = seen + row["images"], boxes + row["boxes"]
                rate = seen / (time.perf_counter() - start)
                tell(row["images"], f"{rate:,.0f} images/s, {boxes:,} boxes")
    faults = faults_of(plan)
    columns = {name: [getattr(f, name) for f in faults] for name in ("place", "code", "message", "dropped")}
    write_frame(pl.DataFrame(columns, schema_overrides={"place": pl.String}), plan.folder / FAULTS)
    return Done(plan.folder, seen, boxes, faults, time.perf_counter() - start)


def _rows(
    opened: tuple, work: list[tuple[int, int]], workers: int | None, device: str | None
) -> Iterator[dict[str, int]]:
    """What is done with each piece of work, by workers of these arguments."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING)
    kind = "GPU" if ray.cluster_resources().get("GPU") and device != "cpu" else "CPU"
    there = int(ray.cluster_resources().get(kind, 0))
    if workers is not None and not 1 <= workers <= there:
        raise ConfigError(f"--workers {workers}: the cluster has {there} {kind}s, expected 1 to {there}.")
    ray.data.DataContext.get_current().enable_progress_bars = False  # ours tells images
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    pieces = [{"part": part, "share": share} for part, share in work]
    done = ray.data.from_items(pieces, override_num_blocks=len(pieces)).map_batches(
        _Worker,
        fn_constructor_args=opened,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers or there, len(work))),
        num_cpus=1 if kind == "CPU" else None,
        num_gpus=1 if kind == "GPU" else None,
    )
    try:
        yield from done.iter_rows()
    except RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, BoxwrightError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise cause or DataError(f"the prediction could not go on: {error}") from error


class _Worker:
    """A process that has opened the detectors, and does pieces of the work."""

    def __init__(
        self,
        plan: Plan,
        places: list[str],
        options: dict[str, Any],
        batch_size: int | None,
        calibration: Path | None,
    ):
        correction = None if calibration is None else load_calibration(calibration)
        self.do = partial(
            do_piece, plan, predictors=[open_predictor(place, **options) for place in places],
            batch_size=batch_size, max_detections=options["max_detections"], correction=correction,
        )  # fmt: skip

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        done = [self.do(int(part), int(share)) for part, share in zip(batch["part"], batch["share"])]
        return {name: np.array([row[name] for row in done]) for name in done[0]}
