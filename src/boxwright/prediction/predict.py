"""`boxwright.predict`: a checkpoint over image files, to a box table."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from boxwright.config.experiment import View
from boxwright.data.dataset import DetectionDataset
from boxwright.data.images import image_size
from boxwright.data.samples import Sample
from boxwright.data.shards import list_places
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame
from boxwright.data.targets import Batch
from boxwright.data.video import is_video
from boxwright.data.windows import large_image_size, with_positions
from boxwright.errors import ConfigError, DataError, Fault
from boxwright.evaluation.calibration import Calibration, load_calibration
from boxwright.models.detector import collate_for
from boxwright.prediction.ensemble import fuse_tables
from boxwright.prediction.outputs import open_outputs
from boxwright.prediction.pipeline import in_order
from boxwright.prediction.predictor import BATCH, Found, Predictor, open_predictor
from boxwright.prediction.tiles import Seen, count_tiles, detect_tiles
from boxwright.prediction.tiling import TilingOptions
from boxwright.prediction.video import VideoOptions, predict_video
from boxwright.progress import progress_bar


def predict(
    images: str | os.PathLike | Sequence[str | os.PathLike] | Tables,
    checkpoint: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    calibration: str | os.PathLike | None = None,
    views: Sequence[View] | None = None,
    max_detections: int | None = None,
    tiling: TilingOptions | None = None,
    sweep: int = 0,
    runtime: str = "torch",
    video: VideoOptions | None = None,
    to: str | None = None,
    min_score: float | None = None,
) -> Tables:
    """Find objects in images, or in the frames of a video.

    Args:
        images: files, folders, patterns, lists (`list_images`), a video, camera or address, or tables whose
            images are meant.
        checkpoint: a run folder, a .safetensors file or an .onnx or .xml of `export`; of several the boxes
            are fused (`fuse_tables`).
        output: where to write, of each by its suffix: .parquet, .json (COCO results), .txt (MOT), .mp4 and
            other videos with boxes drawn, a folder of pictures with boxes drawn; or a format `to`.
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
        video: which frames of a video, and whether boxes are joined to tracks.
        to: the format of outputs; None: by suffix.
        min_score: boxes below aren't drawn; None: below their class's operating threshold, else 0.3.

    Returns:
        Boxes in original pixels. Images that can't be decoded are in `faults`, not in the table's boxes.

    Raises:
        DataError: no image is there, or the calibration is none.
        CheckpointError: the checkpoint can't be used.
        ConfigError: a tiling that can't be meant, a runtime that isn't there, or an output of no known kind.

    Example:
        >>> boxwright.predict("images/", "runs/bccd", "predictions.parquet")
        >>> boxwright.predict("images/", ["runs/bccd", "runs/bccd-2"])
        >>> boxwright.predict("city.tif", "runs/cars", tiling=boxwright.TilingOptions(object_width=25))
        >>> boxwright.predict("drone.mp4", "runs/cars", ["boxes.parquet", "seen.mp4"])
    """
    correction = None if calibration is None else load_calibration(calibration)
    places = [checkpoint] if isinstance(checkpoint, str | os.PathLike) else list(checkpoint)
    if not places:
        raise ConfigError("no checkpoint is given, expected one at least.")
    outputs = open_outputs(output, to, min_score)
    options: dict[str, Any] = {
        "device": device, "views": views, "max_detections": max_detections, "tiling": tiling, "sweep": sweep,
        "runtime": runtime,
    }  # fmt: skip
    seen = _video_of(images)
    if seen is not None:
        predictors = [open_predictor(place, **options) for place in places]
        tables = predict_video(
            seen, predictors, outputs, correction, video or VideoOptions(), batch_size, max_detections
        )
    else:
        if video is not None:
            raise ConfigError(
                f"{video} is for videos, and images are given; `boxwright data track` joins their boxes."
            )
        found = list_places(images)
        predictors = [open_predictor(place, **options) for place in places]
        tables = predict_images(found, predictors, batch_size, max_detections, correction)
        if not len(tables.images):
            raise DataError(f"none of {len(found):,} images can be read; first: {tables.faults[0]}")
        tables = replace(tables, faults=(*tables.faults, *outputs.draw_images(tables)))
    outputs.write_tables(tables)
    return tables


def _video_of(images: str | os.PathLike | Sequence[str | os.PathLike] | Tables) -> str | None:
    """The video that is meant, if one is.

    Raises:
        ConfigError: a video among others.
    """
    if isinstance(images, Tables):
        return None
    places = [images] if isinstance(images, str | os.PathLike) else list(images)
    videos = [str(place) for place in places if is_video(place)]
    if videos and len(places) > 1:
        raise ConfigError(f"{videos[0]} is a video among {len(places)} inputs, expected one video or images.")
    return videos[0] if videos else None


def predict_images(
    places: Sequence[tuple[str, str]],
    predictors: Sequence[Predictor],
    batch_size: int | None = None,
    max_detections: int | None = None,
    correction: Calibration | None = None,
    seen: Sequence[Mapping[int, Seen]] | None = None,
) -> Tables:
    """What predictors find in images, fused where there are several.

    Args:
        places: names and paths.
        predictors: ready to predict.
        batch_size, max_detections: as of `predict`.
        correction: of scores.
        seen: by predictor what was seen in tiles already, by the number of the image.
    """
    known = seen or [{}] * len(predictors)
    members = [_predict_one(places, p, batch_size, own) for p, own in zip(predictors, known)]
    tables = members[0] if len(members) == 1 else fuse_tables(members, max_detections)
    if predictors[0].tiling is not None:
        tables = with_positions(tables)
    return tables if correction is None else correction.apply(tables)


def _predict_one(
    places: Sequence[tuple[str, str]],
    predictor: Predictor,
    batch_size: int | None,
    seen: Mapping[int, Seen],
) -> Tables:
    """What a detector finds, with the scores that its own validation has made probabilities."""
    model, cut, where = predictor.model, predictor.tiling, predictor.device
    table, read, faults = _image_table(places, large=cut is not None)
    names = table.images["file_name"]
    if cut is not None:
        known = {image: seen[place] for image, place in enumerate(read) if place in seen}
        with progress_bar("predict", count_tiles(table.images, cut, model)) as tell:
            find = predictor.find_tiles
            rows, broken, full = detect_tiles(
                model, table.images, cut, where, find, batch_size, tell, known=known
            )
        faults += [Fault("unreadable-image", "error", names[n], e, dropped=True) for n, e in broken]
    else:
        dataset = _Readable(DetectionDataset(table, predictor.loaded.config.image_size))
        collate = partial(_collate_readable, collate_for(model))
        loader = DataLoader(dataset, batch_size or BATCH, collate_fn=collate)
        found = _detect_whole(predictor.find_whole, loader, where, faults)
        rows, full = [own.rows for own in found], [int(own.rows[0, 0]) for own in found if own.full]
    faults += predictor.tell_full(names[image] for image in full)
    return replace(predictor.tables(rows, table.images), faults=tuple(faults))


def _detect_whole(
    find: Callable[[Batch], list[Found]],
    loader: DataLoader,
    device: torch.device,
    faults: list[Fault],
) -> list[Found]:
    """What `find` finds in images fitted whole; what can't be read joins the faults."""
    found = []

    def find_readable(readable: tuple[Batch | None, list[tuple[str, str]]]) -> list[Found]:
        return [] if readable[0] is None else find(readable[0])

    with progress_bar("predict", len(loader)) as tell:
        for (_, broken), own in in_order(find_readable, loader, device):
            faults += [Fault("unreadable-image", "error", *b, dropped=True) for b in broken]
            found += own
            tell(1)
    return found


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


def _image_table(places: Sequence[tuple[str, str]], large: bool) -> tuple[Tables, list[int], list[Fault]]:
    """Tables of images without boxes, which of the places they are, and what can't be read.

    Args:
        places: names and paths.
        large: those beyond memory too.
    """
    rows, read, faults = [], [], []
    for number, (name, path) in enumerate(places):
        try:
            size = large_image_size(path) if large else image_size(path)[:2]
            rows.append((name, path, *size))
            read.append(number)
        except DataError as error:
            faults.append(Fault("unreadable-image", "error", path, str(error), dropped=True))
    names, paths, widths, heights = zip(*rows) if rows else ((), (), (), ())
    columns = {"image_id": np.arange(len(rows)), "file_name": names, "path": paths}
    found = frame(IMAGE_SCHEMA, columns | {"width": widths, "height": heights})
    return Tables(found, frame(BOX_SCHEMA, {}), frame(CATEGORY_SCHEMA, {})), read, faults
