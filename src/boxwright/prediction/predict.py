"""`boxwright.predict`: a checkpoint over image files, to a box table."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from boxwright.config.experiment import View
from boxwright.config.places import find_checkpoint
from boxwright.data import formats
from boxwright.data.dataset import DetectionDataset
from boxwright.data.images import find_images, image_size
from boxwright.data.samples import Sample
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame
from boxwright.data.targets import Batch
from boxwright.data.windows import large_image_size, with_positions
from boxwright.errors import ConfigError, DataError, Fault
from boxwright.evaluation.calibration import load_calibration
from boxwright.models.checkpoint import LoadedDetector, load_detector
from boxwright.models.detector import Detector, collate_for
from boxwright.models.exported import ExportedDetector, load_exported
from boxwright.models.folding import fold_norms
from boxwright.models.onnx import OnnxDetector
from boxwright.prediction.detect import detect, detect_images, to_tables
from boxwright.prediction.ensemble import fuse_tables
from boxwright.prediction.pipeline import in_order
from boxwright.prediction.sweep import sweep_angles, sweep_images
from boxwright.prediction.tiles import TilingOptions, count_tiles, detect_tiles
from boxwright.progress import progress_bar

RUNTIMES = ("torch", "onnx")


def predict(
    images: str | os.PathLike | Tables,
    checkpoint: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    calibration: str | os.PathLike | None = None,
    views: Sequence[View] | None = None,
    max_detections: int | None = None,
    tiling: TilingOptions | None = None,
    sweep: int = 0,
    runtime: str = "torch",
) -> Tables:
    """Find objects in images.

    Args:
        images: a file or a folder, or tables whose images are meant.
        checkpoint: a run folder, a .safetensors file or an .onnx one of `export`; of several the boxes are
            fused (`fuse_tables`).
        output: where to write: .parquet, or .json for COCO results.
        batch_size: images at a time, or tiles; None: 8 images, or as many tiles as have 4.5 megapixels.
        device: "cpu", "cuda" ...; None: a GPU where there is one.
        calibration: a file of `calibrate`, applied to what is found.
        views: flips that an image is looked at in; None: those of the experiment.
        max_detections: an image; None: the experiment's, or `Tiling`'s where images are tiled. Images that
            reach it are told.
        tiling: predict images tile by tile; None: fit each whole image into the network's input.
        sweep: oriented boxes from a detector of upright ones, by predicting images rotated by this
            many angles; 0: the detector's own boxes.
        runtime: "torch", or "onnx": the network runs in onnxruntime, faster on a processor.

    Returns:
        Boxes in original pixels. Images that can't be decoded are in `faults`, not in the table's boxes.

    Raises:
        DataError: no image is there, or the calibration is none.
        CheckpointError: the checkpoint can't be used.
        ConfigError: a tiling that can't be meant, or a runtime that isn't there.

    Example:
        >>> boxwright.predict("images/", "runs/bccd", "predictions.parquet")
        >>> boxwright.predict("images/", ["runs/bccd", "runs/bccd-2"])
        >>> boxwright.predict("city.tif", "runs/cars", tiling=boxwright.TilingOptions(object_width=25))
    """
    correction = None if calibration is None else load_calibration(calibration)
    places = [checkpoint] if isinstance(checkpoint, str | os.PathLike) else list(checkpoint)
    if not places:
        raise ConfigError("no checkpoint is given, expected one at least.")
    find = partial(
        _predict_one, images, batch_size=batch_size, device=device, views=views,
        max_detections=max_detections, tiling=tiling, sweep=sweep, runtime=runtime,
    )  # fmt: skip
    members = [find(place) for place in places]
    tables = members[0] if len(members) == 1 else fuse_tables(members, max_detections)
    if tiling is not None:
        tables = with_positions(tables)
    if correction is not None:
        tables = correction.apply(tables)
    if output is not None:
        formats.write(tables, output)
    return tables


def _predict_one(
    images: str | os.PathLike | Tables,
    checkpoint: str | os.PathLike,
    batch_size: int | None,
    device: str | None,
    views: Sequence[View] | None,
    max_detections: int | None,
    tiling: TilingOptions | None,
    sweep: int,
    runtime: str,
) -> Tables:
    """What a detector finds, with the scores that its own validation has made probabilities."""
    places = _places(images)
    loaded = open_detector(checkpoint)
    model, where = prepare(loaded.model, device, runtime)
    table, faults = _image_table(places, large=tiling is not None)
    names = table.images["file_name"]
    if sweep and (views or model.oriented):
        raise ConfigError("a sweep is for detectors of upright boxes, and has angles in place of views.")
    if sweep and model.finds_landmarks:
        raise ConfigError("a sweep makes oriented boxes, which have no landmarks.")
    views, angles = views or loaded.config.views, sweep_angles(sweep)
    cut = None if tiling is None else tiling.resolve(loaded, max_detections)
    limit = max_detections or (model.selection if cut is None else cut).max_detections
    most = model.selection.max_detections
    # A graph has chosen already: of a tile it gives as many as of an image, and a full one is told.
    exported = isinstance(model, ExportedDetector)
    if exported and cut is None and limit > most:
        raise ConfigError(f"a limit of {limit:,} detections, but {checkpoint} gives {most:,} at most.")
    if not exported or cut is None:
        model.selection = model.selection.limited_to(limit)
    if cut is not None:
        if not sweep and len(views) == 1 and not exported:  # the boxes of several are fused before
            model.selection = cut.selection_of(model.selection)
        with progress_bar("predict", count_tiles(table.images, cut, model)) as tell:
            find = partial(sweep_images, angles=angles) if sweep else partial(detect_images, views=views)
            rows, broken, full = detect_tiles(model, table.images, cut, where, find, batch_size, tell)
        faults += [Fault("unreadable-image", "error", names[n], e, dropped=True) for n, e in broken]
    else:
        find = partial(detect, model, device=where, views=views, angles=angles)
        dataset = _Readable(DetectionDataset(table, loaded.config.image_size))
        collate = partial(_collate_readable, collate_for(model))
        rows = _detect_whole(find, DataLoader(dataset, batch_size or 8, collate_fn=collate), where, faults)
        full = [int(r[0, 0]) for r in rows if len(r) >= limit]
    for image in full:
        message = f"the limit of {limit:,} detections was reached: there may be more; see --max-detections."
        faults.append(Fault("detection-limit", "warning", names[image], message))
    tables = to_tables(rows, table.images, loaded.categories, Path(checkpoint).name)
    return loaded.operating.apply(Tables(tables.images, tables.boxes, tables.categories, tuple(faults)))


def open_detector(place: str | os.PathLike) -> LoadedDetector:
    """The detector of a run, of a .safetensors file, or of an .onnx file that `export` has written.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = find_checkpoint(place)
    return load_exported(path) if path.suffix == ".onnx" else load_detector(path)


def prepare(model: Detector, device: str | None, runtime: str) -> tuple[Detector, torch.device]:
    """A detector ready to predict, and where.

    Raises:
        ConfigError: see `_device`.
    """
    if isinstance(model, ExportedDetector) and runtime in RUNTIMES:
        return model, _device(device or "cpu", "onnx")
    where = _device(device, runtime)
    model = fold_norms(model).to(where)
    return (OnnxDetector(model) if runtime == "onnx" else model), where


def _device(name: str | None, runtime: str) -> torch.device:
    """Where the network runs.

    Raises:
        ConfigError: an unknown runtime, or one that isn't for the device.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime '{runtime}', expected one of {', '.join(RUNTIMES)}.")
    if runtime == "onnx" and (name or "cpu") != "cpu":
        raise ConfigError(
            f"the runtime onnx is for the processor; found the device '{name}', expected 'cpu'."
        )
    return torch.device(name or ("cuda" if runtime == "torch" and torch.cuda.is_available() else "cpu"))


def _detect_whole(
    find: Callable[[list[Batch]], list[np.ndarray]],
    loader: DataLoader,
    device: torch.device,
    faults: list[Fault],
) -> list[np.ndarray]:
    """Rows of `find` over images fitted whole; what can't be read joins the faults."""
    rows = []

    def find_readable(readable: tuple[Batch | None, list[tuple[str, str]]]) -> list[np.ndarray]:
        return [] if readable[0] is None else find([readable[0]])

    with progress_bar("predict", len(loader)) as tell:
        for (_, broken), found in in_order(find_readable, loader, device):
            faults += [Fault("unreadable-image", "error", *b, dropped=True) for b in broken]
            rows += found
            tell(1)
    return rows


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


def _places(images: str | os.PathLike | Tables) -> list[tuple[str, str]]:
    """Name and path of each image.

    Raises:
        DataError: there is none, or nobody knows where one is.
    """
    if not isinstance(images, Tables):
        root = Path(images) if Path(images).is_dir() else Path(images).parent
        return [(str(file.relative_to(root)), str(file)) for file in find_images(images)]
    if images.images["path"].null_count():
        raise DataError("the tables don't say where all of their images are.")
    return list(images.images.select("file_name", "path").iter_rows())


def _image_table(places: Sequence[tuple[str, str]], large: bool = False) -> tuple[Tables, list[Fault]]:
    """Tables of images without boxes; `large`: those that don't fit into memory too.

    Raises:
        DataError: none can be read.
    """
    rows, faults = [], []
    for name, path in places:
        try:
            size = large_image_size(path) if large else image_size(path)[:2]
            rows.append((name, path, *size))
        except DataError as error:
            faults.append(Fault("unreadable-image", "error", path, str(error), dropped=True))
    if not rows:
        raise DataError(f"none of {len(places):,} images can be read; first: {faults[0]}")
    names, paths, widths, heights = zip(*rows)
    columns = {"image_id": np.arange(len(rows)), "file_name": names, "path": paths}
    found = frame(IMAGE_SCHEMA, columns | {"width": widths, "height": heights})
    return Tables(found, frame(BOX_SCHEMA, {}), frame(CATEGORY_SCHEMA, {})), faults
