"""A detector over images of any size: each decoded once, tiles of several images in one batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch

from boxwright.data.transforms import PAD_VALUE, resize
from boxwright.data.windows import WindowedImage
from boxwright.errors import DataError
from boxwright.geometry.tiling import is_cut, merge_tiles
from boxwright.models.detections import Detections
from boxwright.models.detector import Detector
from boxwright.prediction.detect import detect_images
from boxwright.prediction.pipeline import in_order
from boxwright.prediction.tiling import AREA, EDGE, Tiling

# Model, images (B, 3, H, W) and sizes of their content (B, 2) to the detections of each.
Detect = Callable[[Detector, torch.Tensor, torch.Tensor], list[Detections]]
EACH = slice(None)  # of an image's tiles


@dataclass(frozen=True)
class Seen:
    """What was seen in tiles of an image, before they are merged.

    Attributes:
        boxes: (N, 4) x1, y1, x2, y2 or (N, 5) cx, cy, w, h, angle, in the image's pixels.
        scores, labels: (N,).
        windows: (N, 4) x1, y1, x2, y2 of each box's tile.
        landmarks: (N, 2 L) x, y, or none: (N, 0).
        certainty: (N, 1) of headings, or none: (N, 0).
        full: a tile reached its limit of detections.
        error: what is wrong with the image; empty: nothing.
    """

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    windows: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    landmarks: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    certainty: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    full: bool = False
    error: str = ""

    @classmethod
    def joined(cls, parts: "Sequence[Seen]", error: str = "") -> "Seen":
        """The parts as one; of an image with an error nothing, as its first tiles would seem the whole."""
        error = error or next((part.error for part in parts if part.error), "")
        held = [part for part in parts if len(part.boxes)]
        if error or not held:
            return cls(error=error)
        names = ("boxes", "scores", "labels", "windows", "landmarks", "certainty")
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in held]) for name in names
        }
        return cls(**arrays, full=any(part.full for part in held))


@dataclass(frozen=True)
class _Tile:
    image: int
    window: np.ndarray  # (4,) in the image's pixels
    pixels: np.ndarray  # (H, W, 3) as the network sees it, padded
    content: tuple[int, int]  # width and height of what isn't padding


@dataclass
class _Batch:
    tiles: list[_Tile] = field(default_factory=list)
    done: list[int] = field(default_factory=list)  # images of which no tile is to come


def detect_tiles(
    model: Detector,
    images: pl.DataFrame,
    tiling: Tiling,
    device: torch.device,
    detect: Detect = detect_images,
    batch_size: int | None = None,
    tell: Callable[[int], None] = lambda count: None,
    open_image: "Callable[[dict], WindowedImage | PixelWindows] | None" = None,
    known: Mapping[int, Seen] | None = None,
) -> tuple[list[np.ndarray], list[tuple[int, str]], list[int]]:
    """Detections in original pixels.

    Args:
        model: in eval mode.
        images: an image table with paths and sizes.
        tiling: how images are cut up.
        device: where the model is.
        detect: finds objects in a batch of tiles.
        batch_size: tiles at a time; None: as many as have `AREA` pixels.
        tell: called with the number of tiles that were looked at, of `count_tiles`.
        open_image: opens the image of a row; None: the file at its path.
        known: what was seen already, by image; these aren't opened.

    Returns:
        For each image rows of image, label, score, box as `detect` has them; images that can't be read, with
        what is wrong; and those that reached the limit of detections, theirs or a tile's.
    """
    known = known or {}
    rows, broken, full = [], [], []
    new = images.filter(~pl.col("image_id").is_in(list(known)))
    seen = see_tiles(model, new, tiling, device, detect, batch_size, tell, open_image)
    for image, *size in images.select("image_id", "width", "height").iter_rows():
        own = known[image] if image in known else next(seen)
        if own.error:
            broken.append((image, own.error))
            continue
        merged, at_limit = _merge(own, size, tiling)
        rows.append(np.column_stack([np.full(len(merged), float(image)), merged]))
        full.extend([image] if at_limit else [])
    return rows, broken, full


def see_tiles(
    model: Detector,
    images: pl.DataFrame,
    tiling: Tiling,
    device: torch.device,
    detect: Detect = detect_images,
    batch_size: int | None = None,
    tell: Callable[[int], None] = lambda count: None,
    open_image: "Callable[[dict], WindowedImage | PixelWindows] | None" = None,
    tiles: slice = EACH,
) -> Iterator[Seen]:
    """What is seen in the tiles of each image, in their order; arguments as of `detect_tiles`.

    Args:
        tiles: which of an image's.
    """
    found: dict[int, list[Seen]] = {}
    broken: dict[int, str] = {}
    drawn = _tiles_of(images, tiling, model, broken, open_image or _open_file, tiles)
    work = in_order(lambda b: _detect(model, b.tiles, device, detect), _batches(drawn, batch_size), device)
    for batch, seen in work:
        for tile, own in zip(batch.tiles, seen):
            found.setdefault(tile.image, []).append(own)
        tell(len(batch.tiles))
        for image in batch.done:
            yield Seen.joined(found.pop(image, []), broken.get(image, ""))


def count_tiles(images: pl.DataFrame, tiling: Tiling, model: Detector) -> int:
    """How many tiles an image table has."""
    total = 0
    for width, height, count in images.group_by("width", "height").len().rows():
        size = (width, height)
        total += count * len(tiling.windows_of(size, tiling.tile_of(size, model)))
    return total


def _batches(tiles: Iterator[_Tile | int], batch_size: int | None) -> Iterator[_Batch]:
    """Tiles of one size together, `batch_size` or as many as have `AREA` pixels."""
    batch = _Batch()
    for tile in tiles:
        if isinstance(tile, int):
            batch.done.append(tile)
            continue
        if batch.tiles:
            first = batch.tiles[0].pixels
            most = batch_size or max(1, AREA // (first.size // 3))
            if first.shape != tile.pixels.shape or len(batch.tiles) == most:
                yield batch
                batch = _Batch()
        batch.tiles.append(tile)
    yield batch


class PixelWindows:
    """An image in memory, (H, W, 3) uint8 RGB, read as `WindowedImage` is."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels

    def read(self, window: np.ndarray) -> np.ndarray:
        x1, y1, x2, y2 = (int(v) for v in window)
        return self.pixels[y1:y2, x1:x2]

    def close(self) -> None:
        """Nothing is open."""


def _open_file(row: dict) -> WindowedImage:
    return WindowedImage(row["path"], (row["width"], row["height"]))


def _tiles_of(
    images: pl.DataFrame,
    tiling: Tiling,
    model: Detector,
    broken: dict[int, str],
    open_image: Callable,
    tiles: slice,
) -> Iterator[_Tile | int]:
    """The tiles of each image, and after them its number; what is wrong with an image joins `broken`."""
    for row in images.iter_rows(named=True):
        try:
            yield from _read_tiles(row, tiling, model, open_image, tiles)
        except DataError as error:
            broken[row["image_id"]] = str(error)
        yield row["image_id"]


def _read_tiles(
    row: dict, tiling: Tiling, model: Detector, open_image: Callable, tiles: slice
) -> Iterator[_Tile]:
    size = (row["width"], row["height"])
    width, height = tiling.tile_of(size, model)
    source = open_image(row)
    try:
        for window in tiling.windows_of(size, (width, height))[tiles]:
            pixels = source.read(window)
            # Where an image is smaller than a tile, the rest is grey.
            content = (
                max(1, min(width, round(pixels.shape[1] * tiling.scale))),
                max(1, min(height, round(pixels.shape[0] * tiling.scale))),
            )
            canvas = np.full((height, width, 3), PAD_VALUE, dtype=np.uint8)
            canvas[: content[1], : content[0]] = resize(pixels, content)
            window = np.array([*window[:2], window[0] + pixels.shape[1], window[1] + pixels.shape[0]])
            yield _Tile(row["image_id"], window, canvas, content)
    finally:
        source.close()


def _detect(model: Detector, tiles: list[_Tile], device: torch.device, detect: Detect) -> list[Seen]:
    """What is seen in each tile, in the image's pixels."""
    if not tiles:
        return []
    stacked = tiles[0].pixels[None] if len(tiles) == 1 else np.stack([t.pixels for t in tiles])
    pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(device)
    sizes = torch.tensor([t.content for t in tiles], dtype=torch.float32, device=device)
    found = detect(model, pixels, sizes)
    return [_moved(tile, own, model.selection.max_detections) for tile, own in zip(tiles, found)]


def _moved(tile: _Tile, found: Detections, most: int) -> Seen:
    """Detections of a tile in the image's pixels; `most` of them reach its limit."""
    count, offset = len(found.boxes), tile.window[:2].astype(float)
    factor = (tile.window[2:] - tile.window[:2]) / np.array(tile.content)
    boxes = found.boxes.double().cpu().numpy()
    if boxes.shape[1] == 5:
        # The factors of both axes differ by the rounding of a tile alone.
        sides = boxes[:, 2:4] * factor.mean()
        boxes = np.concatenate([boxes[:, :2] * factor + offset, sides, boxes[:, 4:]], axis=1)
    else:
        boxes = boxes * np.tile(factor, 2) + np.tile(offset, 2)
    landmarks, certainty = np.zeros((count, 0)), np.zeros((count, 0))
    if found.landmarks is not None:
        landmarks = (found.landmarks.double().cpu().numpy() * factor + offset).reshape(count, -1)
    if found.heading_certainty is not None:
        certainty = found.heading_certainty.double().cpu().numpy()[:, None]
    scores, labels = found.scores.double().cpu().numpy(), found.labels.cpu().numpy()
    windows = np.tile(tile.window, (count, 1))
    return Seen(boxes, scores, labels, windows, landmarks, certainty, count >= most)


def _merge(seen: Seen, size: Sequence[int], tiling: Tiling) -> tuple[np.ndarray, bool]:
    """Rows of label, score, box, landmarks and certainty of an image, and whether a limit was reached."""
    if not len(seen.boxes):
        return np.zeros((0, 6)), False
    cut = is_cut(seen.boxes, seen.windows, (size[0], size[1]), EDGE / tiling.scale)
    boxes, scores, labels, best = merge_tiles(
        seen.boxes, seen.scores, seen.labels, cut, tiling.merge, tiling.iou_threshold
    )
    rows = np.column_stack([labels, scores, boxes, seen.landmarks[best], seen.certainty[best]])
    return rows[: tiling.max_detections], seen.full or len(boxes) > tiling.max_detections
