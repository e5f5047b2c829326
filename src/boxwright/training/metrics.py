"""Numbers over a run: a table in the run folder, TensorBoard, and trackers of experiments."""

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from torch.utils.tensorboard import SummaryWriter

from boxwright.config import ExperimentConfig
from boxwright.data.formats.files import write_atomic

METRICS = "metrics.parquet"
PROJECT = "boxwright"  # of the trackers


class MetricsLog:
    """Rows of numbers by step, written whole at each `save`.

    Args:
        folder: of the run.
        step: where the run goes on; later rows of an interrupted one are forgotten.
        trackers: started, see `start_trackers`.
    """

    def __init__(self, folder: Path, step: int, trackers: Sequence[GeneralTracker] = ()):
        self.path = folder / METRICS
        self.rows: list[dict[str, Any]] = []
        self.trackers = trackers
        if step > 0 and self.path.is_file():
            # A run that was stopped before its first row has a table without columns.
            self.rows = [row for row in pl.read_parquet(self.path).to_dicts() if row["step"] <= step]
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def add(self, step: int, epoch: int, numbers: dict[str, float]) -> None:
        """Add a row; TensorBoard and trackers get what is a number."""
        self.rows.append({"step": step, "epoch": epoch} | numbers)
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        for name, value in finite.items():
            self.writer.add_scalar(name, value, step)
        for tracker in self.trackers:
            tracker.log({"epoch": epoch} | finite, step=step)

    def save(self) -> None:
        """Write the table, atomically."""
        buffer = io.BytesIO()
        pl.DataFrame(self.rows, infer_schema_length=None).write_parquet(buffer)
        write_atomic(self.path, buffer.getvalue())
        self.writer.flush()

    def close(self) -> None:
        self.save()
        self.writer.close()
        for tracker in self.trackers:
            tracker.finish()


def start_trackers(accelerator: Accelerator, config: ExperimentConfig, name: str) -> list[GeneralTracker]:
    """Those of `train.trackers`, told the experiment; `name` is the run's, where they name runs."""
    if not config.train.trackers:
        return []
    settings = dict(_flat(config.model_dump(mode="json")))
    accelerator.init_trackers(PROJECT, settings, {"wandb": {"name": name}, "mlflow": {"run_name": name}})
    return accelerator.trackers


def _flat(content: Any, path: str = "") -> Iterator[tuple[str, str | float]]:
    """Settings as a.b.c and a number or text."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flat(value, f"{path}.{key}" if path else key)
    else:
        yield path, content if isinstance(content, int | float | str) else str(content)
