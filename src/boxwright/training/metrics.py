"""Numbers over a run: a table in the run folder, and TensorBoard."""

import io
import math
from pathlib import Path
from typing import Any

import polars as pl
from torch.utils.tensorboard import SummaryWriter

from boxwright.data.formats.files import write_atomic

METRICS = "metrics.parquet"


class MetricsLog:
    """Rows of numbers by step, written whole at each `save`.

    Args:
        folder: of the run.
        step: where the run goes on; later rows of an interrupted one are forgotten.
    """

    def __init__(self, folder: Path, step: int):
        self.path = folder / METRICS
        self.rows: list[dict[str, Any]] = []
        if step > 0 and self.path.is_file():
            # A run that was stopped before its first row has a table without columns.
            self.rows = [row for row in pl.read_parquet(self.path).to_dicts() if row["step"] <= step]
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def add(self, step: int, epoch: int, numbers: dict[str, float]) -> None:
        """Add a row; TensorBoard gets what is a number."""
        self.rows.append({"step": step, "epoch": epoch} | numbers)
        for name, value in numbers.items():
            if math.isfinite(value):
                self.writer.add_scalar(name, value, step)

    def save(self) -> None:
        """Write the table, atomically."""
        buffer = io.BytesIO()
        pl.DataFrame(self.rows, infer_schema_length=None).write_parquet(buffer)
        write_atomic(self.path, buffer.getvalue())
        self.writer.flush()

    def close(self) -> None:
        self.save()
        self.writer.close()
