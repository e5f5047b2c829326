"""A detector that answers requests: its batches, and boxes as plain values."""

import asyncio
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from boxwright.data.confident import UNKNOWN, confident
from boxwright.data.images import decode_upload
from boxwright.data.samples import Sample
from boxwright.data.tables import Tables
from boxwright.models.onnx import OnnxDetector
from boxwright.prediction.detect import to_columns
from boxwright.prediction.predictor import Found, Predictor
from boxwright.prediction.tiling import TilingOptions
from boxwright.prediction.video import image_table
from boxwright.serving.batching import Batcher
from boxwright.serving.limits import Limits

WORKERS = 4  # batches at a time on a processor, where it has as many threads
STEPS = 4  # sizes of a side that batches are padded to: a graph is made for each, as late as it is wanted


class Served:
    """A predictor behind batchers, one of whole images and one of images in tiles.

    Args:
        predictor: of whole images, ready.
        limits: size of batches, how long they wait, and how many may.
        digest: of its checkpoint.
        max_detections: of an image in tiles; None: `Tiling`'s.
    """

    def __init__(
        self, predictor: Predictor, limits: Limits, digest: str = "", max_detections: int | None = None
    ):
        self.predictor, self.digest = predictor, digest
        self.tiled = predictor.tiled(TilingOptions(), max_detections)
        workers, threads = share_threads(predictor.device)
        self.batcher = Batcher(
            self._find,
            limits.batch,
            limits.wait,
            limits.queue,
            workers,
            partial(torch.set_num_threads, threads),
        )
        self.tiler = Batcher(self.tiled.find, 1, 0.0, limits.queue)  # which shares out its threads itself
        self.readers = ThreadPoolExecutor(torch.get_num_threads())  # more would hold up the network
        self._users, self._retired = 0, False

    @property
    def waiting(self) -> int:
        return self.batcher.waiting + self.tiler.waiting

    def full(self, tiles: bool) -> bool:
        """Whether no image is taken now."""
        return (self.tiler if tiles else self.batcher).full

    @contextmanager
    def leased(self) -> Iterator["Served"]:
        """Used by a request, of the event loop: what is retired meanwhile ends after it."""
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            self._end()

    def retire(self) -> None:
        """End once nobody uses it."""
        self._retired = True
        self._end()

    def close(self) -> None:
        """Finish what waits, then end."""
        self.readers.shutdown()
        self.batcher.close()
        self.tiler.close()

    async def find(self, image: Image.Image, tiles: bool) -> tuple[np.ndarray, Found]:
        """Pixels of an image of `open_upload`, and what is found in it.

        Raises:
            DataError: it is damaged.
            BusyError: too much waits.
        """
        loop, batcher = asyncio.get_running_loop(), self.tiler if tiles else self.batcher
        pixels, wanted = await loop.run_in_executor(self.readers, self._read, image, tiles)
        return pixels, await asyncio.wrap_future(batcher.submit(wanted))

    def describe(self) -> dict[str, Any]:
        """What a client should know."""
        loaded = self.predictor.loaded
        thresholds = {name: point.threshold for name, point in loaded.operating.points.items()}
        return {
            "classes": loaded.categories,
            "oriented": self.predictor.model.oriented,
            "landmarks": self.predictor.model.finds_landmarks,
            "image_size": list(loaded.config.image_size),
            "thresholds": thresholds,
            "max_detections": self.predictor.limit,
            "views": list(self.predictor.views),
            "digest": self.digest,
        }

    def tables(self, rows: np.ndarray, size: tuple[int, int], min_score: float | None) -> Tables:
        """Rows of one image of `size` as tables, those above a score or their operating thresholds alone."""
        rows = rows.copy()
        rows[:, 0] = 0  # it was one of a batch
        tables = self.predictor.tables([rows], image_table("request", size, [(1, 0.0)]))
        return tables.with_boxes(tables.boxes.filter(confident(tables, min_score)))

    def boxes(self, rows: np.ndarray, size: tuple[int, int], min_score: float | None) -> list[dict[str, Any]]:
        """What `tables` holds, as plain values, best first; tables would take 7.5 ms of an image."""
        names, operating = self.predictor.loaded.categories, self.predictor.loaded.operating
        columns = to_columns(rows, np.broadcast_to(np.array(size, dtype=float), (len(rows), 2)))
        category = columns["category_id"]
        columns["score"] = operating.calibrated(names, category, columns["score"])
        points = [operating.points.get(name) for name in names]
        least = [UNKNOWN if p is None else p.threshold for p in points] if min_score is None else [min_score]
        chosen = np.flatnonzero(columns["score"] >= np.array(least)[category % len(least)])
        chosen = chosen[np.argsort(-columns["score"][chosen], kind="stable")]
        values = [columns[name][chosen].tolist() for name in columns]
        return [{"class": names[row[0]]} | dict(zip(columns, row)) for row in zip(*values)]

    def _end(self) -> None:
        if self._retired and not self._users:
            asyncio.get_running_loop().run_in_executor(None, self.close)

    def _read(self, image: Image.Image, tiles: bool) -> tuple[np.ndarray, np.ndarray | Sample]:
        """Pixels, and what is worked on."""
        pixels = decode_upload(image)
        return pixels, pixels if tiles else self.predictor.fitted(pixels)

    def _find(self, samples: Sequence[Sample]) -> list[Found]:
        return self.predictor.find_fitted(samples, self._size_of(samples))

    def _size_of(self, samples: Sequence[Sample]) -> tuple[int, int] | None:
        """(width, height) to pad to where each has a graph of its own: strangers' images have any."""
        model = self.predictor.model
        if not isinstance(model, OnnxDetector):
            return None
        sides = []
        for axis, most in zip((1, 0), model.padded(self.predictor.loaded.config.image_size)):
            step = -(-most // (STEPS * model.stride)) * model.stride
            side = max(model.least_side, *(s.pixels.shape[axis] for s in samples))
            sides.append(min(most, -(-side // step) * step))
        return sides[0], sides[1]


def share_threads(device: torch.device) -> tuple[int, int]:
    """Batches at a time, and threads of each: while boxes of one are chosen, another has the network. On two
    cores two batches of one thread answer 1.28 times as many images as one of two threads.
    """
    threads = torch.get_num_threads()
    workers = min(WORKERS, threads) if device.type == "cpu" else 1
    return workers, max(1, threads // workers)


def coco_of(boxes: list[dict[str, Any]], image_id: int) -> list[dict[str, Any]]:
    """Boxes as COCO's results, upright hulls of oriented ones; categories count from 1."""
    return [
        {
            "image_id": image_id,
            "category_id": box["category_id"] + 1,
            "bbox": _hull(box),
            "score": box["score"],
        }
        for box in boxes
    ]


def _hull(box: dict[str, Any]) -> list[float]:
    x, y, w, h = (box[name] for name in "xywh")
    angle = box.get("angle", 0.0)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    width, height = w * cos + h * sin, w * sin + h * cos
    return [x + (w - width) / 2, y + (h - height) / 2, width, height]
