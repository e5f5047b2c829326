"""Samples a second of one core, from cached pixels: augmented, and put into batches.

python -m benchmarks.loader

Blood cells (BCCD) at 320 x 240 px, eight a batch, as `boxwright train configs/bccd.yaml` has them on a CPU.
"""

import argparse
import time

import cv2
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from boxwright.config.augment import AugmentConfig
from boxwright.data import formats
from boxwright.data.dataset import DetectionDataset, collate
from boxwright.data.formats.options import ReadOptions
from tests.shared_data import SHARED

FLIPS = {"flip_vertical": 0.5, "quarter_turn": 0.5}
WAYS = {
    "standard": AugmentConfig(**FLIPS),
    "mosaic": AugmentConfig(**FLIPS, mosaic=1.0),
    "mixup": AugmentConfig(**FLIPS, mixup=1.0),
    "paste": AugmentConfig(**FLIPS, paste=1.0),
    "strong": AugmentConfig(**FLIPS, pipeline="strong"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    tables = formats.read(SHARED / "data" / "bccd", "voc", ReadOptions(list_name="trainval"))
    table = Table("augmentation", "images/s a core", box=None)
    for way, augment in WAYS.items():
        dataset = DetectionDataset(tables, (320, 240), augment, cache_bytes=2**31)
        dataset.fill_cache()
        loader = DataLoader(dataset, 8, shuffle=True, collate_fn=collate)
        table.add_row(way, f"{max(rate(loader) for _ in range(options.rounds)):.0f}")
    Console().print(table)


def rate(loader: DataLoader) -> float:
    """Images a second of a pass."""
    began, count = time.perf_counter(), 0
    for batch in loader:
        count += len(batch.images)
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
