"""A detector over images of any size: each decoded once, tiles of several images in one batch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import torch

from boxwright.data.transforms import PAD_VALUE, resize
from boxwright.data.windows import WindowedImage
from boxwright.errors import ConfigError, DataError
from boxwright.geometry.tiling import MERGES, choose_tile, fit_tile, is_cut, merge_tiles, tile_windows
from boxwright.models.checkpoint import LoadedDetector
from boxwright.models.detections import Detections, Selection
from boxwright.models.detector import Detector
from boxwright.prediction.detect import detect_images
from boxwright.prediction.pipeline import in_order

# Model, images (B, 3, H, W) and sizes of their content (B, 2) to the detections of each.
Detect = Callable[[Detector, torch.Tensor, torch.Tensor], list[Detections]]
AREA = 4_500_000  # px of a tile, unless its size is given: large ones have less overlap
OVERLAP = 0.2  # of a tile's shorter side, where nobody knows how long objects are
CANDIDATES = 10_000  # of a tile, which the image's limit doesn't bind
EDGE = 2.0  # px of the network's input within which a box touches its tile's edge


@dataclass(frozen=True)
class Tiling:
    """How images are cut up.

    Attributes:
        size: greatest (width, height) of a tile as the network sees it, px; None: what suits an image, of
            `AREA` or less.
        overlap: pixels of it that neighbours have in common; objects longer than that are seen in pieces.
        scale: pixels of the network's input a pixel of the image.
        merge: of `merge_tiles`.
        iou_threshold: of `merge_tiles`.
        max_detections: an image.
    """

    size: tuple[int, int] | None
    overlap: float
    scale: float = 1.0
    merge: str = "fuse"
    iou_threshold: float = 0.4
    max_detections: int = 10_000

    def selection_of(self, selection: Selection) -> Selection:
        """How the detections of a tile are thinned out, where an image's are by `selection`."""
        kept = selection.limited_to(max(self.max_detections, CANDIDATES))
        # All boxes of an object are left for fusing: their mean is a better place than the best one's.
        return replace(kept, iou_threshold=1.0) if self.merge == "fuse" else kept

    def tile_of(self, size: tuple[int, int], model: Detector) -> tuple[int, int]:
        """(width, height) of the tiles of an image of `size`, as the network sees them."""
        seen = (size[0] * self.scale, size[1] * self.scale)
        if self.size is None:
            return choose_tile(seen, AREA, self.overlap, model.stride, model.least_side)
        width, height = (fit_tile(s, m, self.overlap, model.stride) for s, m in zip(seen, self.size))
        return max(model.least_side, width), max(model.least_side, height)

    def windows_of(self, size: tuple[int, int], tile: tuple[int, int]) -> np.ndarray:
        """Windows (T, 4) x1, y1, x2, y2 of an image of `size`, in its pixels; `tile` as in `tile_of`."""
        width, height = (max(1, round(side / self.scale)) for side in tile)
        overlap = self.overlap / self.scale
        return tile_windows(size, (width, height), (overlap, overlap))


@dataclass(frozen=True)
class TilingOptions:
    """A user's options of tiles; None: what the checkpoint was trained at.

    Attributes:
        size: greatest (width, height) of a tile in pixels of the network's input; None: what suits each image
            best, of `AREA` or less.
        overlap: share of a tile's shorter side that neighbours share; None: as much as objects are long.
        scale: pixels of the input a pixel of the images.
        object_width: of the objects in these images, pixels: they are scaled to the width that objects had in
            training.
        gsd: metres of ground a pixel of these images, scaled to that of the training images (`data.gsd`).
        merge: "fuse", "nms" or "soft"; the first finds the best place.
        iou_threshold: from which boxes of a class are one object.
    """

    size: tuple[int, int] | None = None
    overlap: float | None = None
    scale: float | None = None
    object_width: float | None = None
    gsd: float | None = None
    merge: str = Tiling.merge
    iou_threshold: float = Tiling.iou_threshold

    def resolve(self, loaded: LoadedDetector, max_detections: int | None) -> Tiling:
        """With what is left open taken from a checkpoint.

        Raises:
            ConfigError: more than one of scale, object width and gsd, numbers that can't be meant, or a
                checkpoint that doesn't know what it was trained at.
        """
        given = {
            n: getattr(self, n) for n in ("scale", "object_width", "gsd") if getattr(self, n) is not None
        }
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} both give the size of objects; expected one of them.")
        if any(value <= 0 for value in given.values()) or not 0 <= (self.overlap or 0) < 1:
            raise ConfigError(
                f"overlap {self.overlap}, {given}: expected a share below 1, and positive numbers."
            )
        if self.merge not in MERGES:
            raise ConfigError(f"merge '{self.merge}', expected one of {', '.join(MERGES)}.")
        known, trained = loaded.statistics, loaded.config.data.gsd
        if self.object_width is not None and "object_width" not in known:
            raise ConfigError("the checkpoint doesn't know how wide its objects were; say a scale instead.")
        if self.gsd is not None and (trained is None or "scale" not in known):
            raise ConfigError("the checkpoint doesn't know its images' data.gsd; say a scale instead.")
        scale = self.scale or known.get("scale", 1.0)
        if self.object_width is not None:
            scale = known["object_width"] / self.object_width
        elif self.gsd is not None and trained is not None:
            scale = known["scale"] * self.gsd / trained
        limit = max_detections or Tiling.max_detections
        side = min(self.size) if self.size else AREA**0.5
        overlap = side * (OVERLAP if self.overlap is None else self.overlap)
        if self.overlap is None and "object_length" in known:
            overlap = min(known["object_length"] + 2 * EDGE, side / 2)
        return Tiling(self.size, overlap, scale, self.merge, self.iou_threshold, limit)


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

    Returns:
        For each image rows of image, label, score, box as `detect` has them; images that can't be read, with
        what is wrong; and those that reached the limit of detections, theirs or a tile's.
    """
    broken: list[tuple[int, str]] = []
    found: dict[int, list[tuple[np.ndarray, Detections]]] = {}
    rows, full = [], []
    sizes = images.select("width", "height").rows()

    def finish(image: int) -> None:
        if any(image == n for n, _ in broken):
            found.pop(image, None)  # what its first rows held would seem the whole
            return
        merged, at_limit = _merge(found.pop(image, []), sizes[image], tiling, model.selection.max_detections)
        rows.append(np.column_stack([np.full(len(merged), float(image)), merged]))
        full.extend([image] if at_limit else [])

    batches = _batches(_tiles_of(images, tiling, model, broken, open_image or _open_file), batch_size)
    for batch, seen in in_order(lambda b: _detect(model, b.tiles, device, detect), batches, device):
        for tile, detections in zip(batch.tiles, seen):
            found.setdefault(tile.image, []).append((tile.window, detections))
        tell(len(batch.tiles))
        for image in batch.done:
            finish(image)
    return rows, broken, full


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
    images: pl.DataFrame, tiling: Tiling, model: Detector, broken: list[tuple[int, str]], open_image: Callable
) -> Iterator[_Tile | int]:
    """The tiles of each image, and after them its number."""
    for row in images.iter_rows(named=True):
        yield from _read_tiles(row, tiling, model, broken, open_image)
        yield row["image_id"]


def _read_tiles(
    row: dict, tiling: Tiling, model: Detector, broken: list[tuple[int, str]], open_image: Callable
) -> Iterator[_Tile]:
    size = (row["width"], row["height"])
    width, height = tiling.tile_of(size, model)
    try:
        source = open_image(row)
    except DataError as error:
        broken.append((row["image_id"], str(error)))
        return
    try:
        for window in tiling.windows_of(size, (width, height)):
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
    except DataError as error:
        broken.append((row["image_id"], str(error)))
    finally:
        source.close()


def _detect(model: Detector, tiles: list[_Tile], device: torch.device, detect: Detect) -> list[Detections]:
    """Detections of each tile, in the image's pixels."""
    if not tiles:
        return []
    stacked = tiles[0].pixels[None] if len(tiles) == 1 else np.stack([t.pixels for t in tiles])
    pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(device)
    sizes = torch.tensor([t.content for t in tiles], dtype=torch.float32, device=device)
    moved = []
    for tile, found in zip(tiles, detect(model, pixels, sizes)):
        extent = tile.window[2:] - tile.window[:2]
        factor = torch.tensor(extent / np.array(tile.content), dtype=torch.float64)
        offset = torch.tensor(tile.window[:2], dtype=torch.float64)
        boxes = found.boxes.double().cpu()
        if boxes.shape[1] == 5:
            # The factors of both axes differ by the rounding of a tile alone.
            sides = boxes[:, 2:4] * factor.mean()
            boxes = torch.cat([boxes[:, :2] * factor + offset, sides, boxes[:, 4:]], dim=1)
        else:
            boxes = boxes * factor.repeat(2) + offset.repeat(2)
        points = None if found.landmarks is None else found.landmarks.double().cpu() * factor + offset
        moved.append(Detections(boxes, found.scores.cpu(), found.labels.cpu(), points))
    return moved


def _merge(
    found: list[tuple[np.ndarray, Detections]], size: tuple[int, int], tiling: Tiling, of_tile: int
) -> tuple[np.ndarray, bool]:
    """Rows of label, score, box and landmarks of an image, and whether a limit was reached."""
    found = [(window, d) for window, d in found if len(d.boxes)]
    if not found:
        return np.zeros((0, 6)), False
    boxes = np.concatenate([d.boxes.numpy() for _, d in found])
    scores = np.concatenate([d.scores.double().numpy() for _, d in found])
    labels = np.concatenate([d.labels.numpy() for _, d in found])
    windows = np.concatenate([np.tile(window, (len(d.boxes), 1)) for window, d in found])
    cut = is_cut(boxes, windows, size, EDGE / tiling.scale)
    boxes, scores, labels, best = merge_tiles(boxes, scores, labels, cut, tiling.merge, tiling.iou_threshold)
    at_limit = len(boxes) > tiling.max_detections or any(len(d.boxes) >= of_tile for _, d in found)
    columns = [labels, scores, boxes]
    points = [d.landmarks.numpy() for _, d in found if d.landmarks is not None]
    if points:
        columns.append(np.concatenate(points)[best].reshape(len(best), -1))
    rows = np.column_stack(columns)
    return rows[: tiling.max_detections], at_limit
