"""`boxwright.predict`: a checkpoint over image files, to a box table."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from boxwright.data import formats
from boxwright.data.dataset import DetectionDataset, Sample
from boxwright.data.images import find_images, image_size
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame
from boxwright.data.targets import Batch
from boxwright.errors import DataError, Fault
from boxwright.evaluation.calibration import load_calibration
from boxwright.models.checkpoint import load_detector
from boxwright.models.detector import collate_for
from boxwright.prediction.detect import detect, to_tables
from boxwright.progress import progress_bar


def predict(
    images: str | os.PathLike,
    checkpoint: str | os.PathLike,
    output: str | os.PathLike | None = None,
    batch_size: int = 8,
    device: str | None = None,
    calibration: str | os.PathLike | None = None,
) -> Tables:
    """Find objects in images.

    Args:
        images: a file or a folder.
        checkpoint: a run folder or a .safetensors file.
        output: where to write: .parquet, or .json for COCO results.
        batch_size: images at a time.
        device: "cpu", "cuda" ...; None: a GPU where there is one.
        calibration: a file of `calibrate`, applied to what is found.

    Returns:
        Boxes in original pixels. Images that can't be decoded are in `faults`, not in the table's boxes.

    Raises:
        DataError: no image is there, or the calibration is none.
        CheckpointError: the checkpoint can't be used.

    Example:
        >>> boxwright.predict("images/", "runs/bccd", "predictions.parquet")
    """
    correction = None if calibration is None else load_calibration(calibration)
    files = find_images(images)
    root = Path(images) if Path(images).is_dir() else Path(images).parent
    loaded = load_detector(checkpoint)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = loaded.model.to(where)
    table, faults = _image_table(files, root)
    dataset = _Readable(DetectionDataset(table, loaded.config.image_size))
    loader = DataLoader(dataset, batch_size, collate_fn=partial(_collate_readable, collate_for(model)))
    rows = []
    with progress_bar("predict", len(dataset)) as tell:
        for batch, broken in loader:
            faults += [Fault("unreadable-image", "error", *b, dropped=True) for b in broken]
            if batch is not None:
                rows += detect(model, [batch], where, loaded.config.views, tell=tell)
    tables = to_tables(rows, table.images, loaded.categories, Path(checkpoint).name)
    tables = Tables(tables.images, tables.boxes, tables.categories, tuple(faults))
    if correction is not None:
        tables = correction.apply(tables)
    if output is not None:
        formats.write(tables, output)
    return tables


class _Readable(Dataset):
    """Samples of a dataset, or what is wrong with the image."""

    def __init__(self, dataset: DetectionDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample | tuple[str, str]:
        try:
            return self.dataset[index]
        except DataError as error:
            return self.dataset.tables.images["file_name"][index], str(error)


def _collate_readable(
    collate: Callable[[list[Sample]], Batch], samples: list[Sample | tuple[str, str]]
) -> tuple[Batch | None, list[tuple[str, str]]]:
    good = [s for s in samples if isinstance(s, Sample)]
    return (collate(good) if good else None), [s for s in samples if not isinstance(s, Sample)]


def _image_table(files: list[Path], root: Path) -> tuple[Tables, list[Fault]]:
    rows, faults = [], []
    for file in files:
        try:
            rows.append((str(file.relative_to(root)), str(file), *image_size(file)[:2]))
        except DataError as error:
            faults.append(Fault("unreadable-image", "error", str(file), str(error), dropped=True))
    if not rows:
        raise DataError(f"{root}: none of {len(files):,} images can be read; first: {faults[0]}")
    names, paths, widths, heights = zip(*rows)
    columns = {"image_id": np.arange(len(rows)), "file_name": names, "path": paths}
    images = frame(IMAGE_SCHEMA, columns | {"width": widths, "height": heights})
    return Tables(images, frame(BOX_SCHEMA, {}), frame(CATEGORY_SCHEMA, {})), faults
