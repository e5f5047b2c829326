"""A detector that is ready to predict: a checkpoint opened, put where it runs, its options settled."""

import os
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import polars as pl
import torch
from PIL import Image

from boxwright.config.experiment import View
from boxwright.config.places import EXPORTED, find_checkpoint
from boxwright.data.images import as_pixels
from boxwright.data.samples import Sample
from boxwright.data.tables import IMAGE_SCHEMA, LANDMARKS, Tables, frame
from boxwright.data.targets import Batch
from boxwright.data.transforms import fit_matrix, fitted_size, resize
from boxwright.errors import ConfigError, Fault
from boxwright.models.checkpoint import LoadedDetector, load_detector
from boxwright.models.detector import Detector, collate_for
from boxwright.models.exported import ExportedDetector, load_exported
from boxwright.models.folding import fold_norms
from boxwright.models.foreign import is_foreign, load_foreign
from boxwright.models.memory import keep_memory
from boxwright.models.onnx import OnnxDetector
from boxwright.prediction.detect import detect, detect_images, to_tables
from boxwright.prediction.sweep import sweep_angles, sweep_images
from boxwright.prediction.tiles import Detect, PixelWindows, detect_tiles
from boxwright.prediction.tiling import Tiling, TilingOptions

RUNTIMES = ("torch", "onnx")
BATCH = 8  # images at a time
Picture = np.ndarray | Image.Image


class Found(NamedTuple):
    """What is found in an image.

    Attributes:
        rows: image, label, score, box as `detect` has them.
        full: a limit of detections was reached, the image's or a tile's.
    """

    rows: np.ndarray
    full: bool


@dataclass(frozen=True)
class Predictor:
    """A detector and how it predicts.

    Attributes:
        name: of its checkpoint's place, the source of its boxes.
        loaded: what the checkpoint holds.
        model: as it runs.
        device: where.
        views: flips that each image is looked at in.
        angles: of a sweep, radians; empty: none.
        tiling: how images are cut up; None: they are fitted whole.
        limit: detections an image.
    """

    name: str
    loaded: LoadedDetector
    model: Detector
    device: torch.device
    views: Sequence[View]
    angles: Sequence[float]
    tiling: Tiling | None
    limit: int

    def __call__(self, images: Picture | Iterable[Picture]) -> Tables:
        """Find objects in images that are in memory.

        Args:
            images: one or several, of Pillow's, or arrays (H, W, 3) of uint8 in RGB (OpenCV's are BGR:
                `frame[:, :, ::-1]`), or (H, W) grey.

        Returns:
            Boxes in the images' pixels; they are called 0, 1, 2 ... in their order.

        Raises:
            DataError: what is given is no such image.

        Example:
            >>> detector = boxwright.open_predictor("runs/bccd")
            >>> detector(frame).boxes.filter(pl.col("score") >= 0.5)
        """
        one = isinstance(images, Image.Image) or getattr(images, "ndim", 4) < 4
        pixels = [as_pixels(image) for image in cast("Iterable[Picture]", [images] if one else images)]
        found = [own for n in range(0, len(pixels), BATCH) for own in self.find(pixels[n : n + BATCH])]
        for n, own in enumerate(found):
            own.rows[:, 0] = n
        names = [str(n) for n in range(len(pixels))]
        columns = {"image_id": range(len(pixels)), "file_name": names}
        columns |= {"width": [p.shape[1] for p in pixels], "height": [p.shape[0] for p in pixels]}
        tables = self.tables([own.rows for own in found], frame(IMAGE_SCHEMA, columns))
        full = [name for name, own in zip(names, found) if own.full]
        return replace(tables, faults=tuple(self.tell_full(full)))

    def tell_full(self, names: Iterable[str]) -> list[Fault]:
        """Faults of images that reached the limit."""
        message = (
            f"the limit of {self.limit:,} detections was reached: there may be more; see --max-detections."
        )
        return [Fault("detection-limit", "warning", name, message) for name in names]

    def find(self, pixels: Sequence[np.ndarray]) -> list[Found]:
        """What is found in each image (H, W, 3) uint8 RGB."""
        if self.tiling is None:
            return self.find_fitted([self.fitted(image) for image in pixels])
        shapes = [(p.shape[1], p.shape[0]) for p in pixels]
        widths, heights = zip(*shapes)
        images = pl.DataFrame({"image_id": range(len(pixels)), "width": widths, "height": heights})
        rows, _, full = detect_tiles(
            self.model, images, self.tiling, self.device, self.find_tiles,
            open_image=lambda row: PixelWindows(pixels[row["image_id"]]),
        )  # fmt: skip
        return [Found(own, n in full) for n, own in enumerate(rows)]

    def fitted(self, pixels: np.ndarray) -> Sample:
        """An image (H, W, 3) uint8 RGB fitted into the network's input, without boxes."""
        into, size = self.loaded.config.image_size, (pixels.shape[1], pixels.shape[0])
        none = {"boxes": np.zeros((0, 4)), "rotated": np.zeros((0, 5)), "labels": np.zeros(0, dtype=np.int64)}
        none |= {"landmarks": np.zeros((0, LANDMARKS, 2))}
        none |= {name: np.zeros(0, dtype=bool) for name in ("oriented", "ignore")}
        return Sample(resize(pixels, fitted_size(size, into)), **none, index=0, matrix=fit_matrix(size, into))

    def find_fitted(self, samples: Sequence[Sample], size: tuple[int, int] | None = None) -> list[Found]:
        """What is found in each image of `fitted`, padded to (width, height); None: to the largest."""
        numbered = [replace(sample, index=n) for n, sample in enumerate(samples)]
        return self.find_whole(collate_for(self.model)(numbered, size=size))

    def tiled(self, options: TilingOptions, max_detections: int | None = None) -> "Predictor":
        """The same network over images cut up.

        Raises:
            ConfigError: a tiling that can't be meant.
        """
        cut, model = options.resolve(self.loaded, max_detections), copy(self.model)
        # A graph has chosen already. The boxes of several views or angles are fused before those of tiles.
        if not isinstance(model, ExportedDetector):
            fused = bool(self.angles) or len(self.views) > 1
            limited = model.selection.limited_to(cut.max_detections)
            model.selection = limited if fused else cut.selection_of(model.selection)
        return replace(self, model=model, tiling=cut, limit=cut.max_detections)

    def find_whole(self, batch: Batch) -> list[Found]:
        """What is found in each image of a batch."""
        rows = detect(self.model, [batch], self.device, self.views, angles=self.angles)
        return [Found(own, len(own) >= self.limit) for own in rows]

    @property
    def find_tiles(self) -> Detect:
        """What finds objects in a batch of tiles."""
        if self.angles:
            return partial(sweep_images, angles=self.angles)
        return partial(detect_images, views=self.views)

    def tables(self, rows: list[np.ndarray], images: pl.DataFrame) -> Tables:
        """Rows as tables over `images`, with the scores that the detector's validation made probabilities."""
        return self.loaded.operating.apply(to_tables(rows, images, self.loaded.categories, self.name))


def open_predictor(
    checkpoint: str | os.PathLike,
    device: str | None = None,
    views: Sequence[View] | None = None,
    max_detections: int | None = None,
    tiling: TilingOptions | None = None,
    sweep: int = 0,
    runtime: str = "torch",
) -> Predictor:
    """A checkpoint ready to predict images in memory, one after the other; arguments as `predict`'s.

    Raises:
        CheckpointError: it can't be used.
        ConfigError: options that don't go together, or a runtime that isn't there.

    Example:
        >>> detector = boxwright.open_predictor("runs/bccd", views=["plain"])
        >>> boxes = detector(frame).boxes
    """
    loaded = open_detector(checkpoint)
    model, where = prepare(loaded.model, device, runtime)
    if sweep and (views or model.oriented):
        raise ConfigError("a sweep is for detectors of upright boxes, and has angles in place of views.")
    if sweep and model.finds_landmarks:
        raise ConfigError("a sweep makes oriented boxes, which have no landmarks.")
    views, angles = views or loaded.config.views, sweep_angles(sweep)
    whole = Predictor(
        Path(checkpoint).name, loaded, model, where, views, angles, None, model.selection.max_detections
    )
    if tiling is not None:
        return whole.tiled(tiling, max_detections)
    limit, most = max_detections or whole.limit, whole.limit
    if not isinstance(model, ExportedDetector):
        model.selection = model.selection.limited_to(limit)
    elif limit > most:
        raise ConfigError(f"a limit of {limit:,} detections, but {checkpoint} gives {most:,} at most.")
    return replace(whole, limit=limit)


def open_detector(place: str | os.PathLike) -> LoadedDetector:
    """The detector of a run, of a .safetensors file, of an .onnx or .xml that `export` has written, or of
    another's .onnx whose outputs are known (`models.foreign`).

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = find_checkpoint(place)
    if is_foreign(path):
        return load_foreign(path)
    return load_exported(path) if path.suffix in EXPORTED else load_detector(path)


def prepare(model: Detector, device: str | None, runtime: str) -> tuple[Detector, torch.device]:
    """A detector as it runs, and where.

    Raises:
        ConfigError: an unknown runtime, or one that isn't for the device.
    """
    exported = isinstance(model, ExportedDetector) and runtime in RUNTIMES
    where = _device(device or "cpu", "onnx") if exported else _device(device, runtime)
    if where.type == "cpu":
        keep_memory()
    if exported:
        return model, where
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
