"""A detector over a video, camera or stream: decoding, detecting and writing run side by side.

Memory is that of the frames between them, and of the boxes found (some 70 bytes each).
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import polars as pl

from boxwright.data.builder import pack
from boxwright.data.drawing import Annotator, of_image
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame
from boxwright.data.video import Frame, VideoReader, is_live
from boxwright.errors import ConfigError, Fault
from boxwright.evaluation.calibration import Calibration
from boxwright.prediction.ensemble import fuse_tables
from boxwright.prediction.outputs import Canvases, Outputs
from boxwright.prediction.pipeline import Behind, ahead, in_order
from boxwright.prediction.predictor import Predictor
from boxwright.progress import live_figures
from boxwright.tracking.options import TrackOptions
from boxwright.tracking.track import Follower, with_tracks

PIXELS = 16_000_000  # of the frames of a batch: eight of 1080p, two of 4K
KEPT = ("image_id", "category_id", *"xywh", "angle", "score", "landmarks")  # what differs between boxes


@dataclass(frozen=True)
class VideoOptions:
    """What is done with the frames of a video.

    Attributes:
        every: of so many frames one is predicted.
        most: frames that are predicted; None: all.
        track: boxes are joined to tracks, and those on none left out; None: they aren't.
    """

    every: int = 1
    most: int | None = None
    track: TrackOptions | None = None

    def __post_init__(self) -> None:
        if self.every < 1 or (self.most is not None and self.most < 1):
            raise ConfigError(f"{self}: expected 1 or more of frames.")


@dataclass
class _Found:
    """What was found so far: frames (number, seconds), boxes of each batch, keys of their tracks."""

    frames: list[tuple[int, float]] = field(default_factory=list)
    boxes: list[pl.DataFrame] = field(default_factory=list)
    keys: list[np.ndarray] = field(default_factory=list)
    full: int = 0
    stopped: bool = False
    categories: pl.DataFrame = field(default_factory=lambda: frame(CATEGORY_SCHEMA, {}))
    source: str = ""


def predict_video(
    place: str,
    predictors: Sequence[Predictor],
    outputs: Outputs,
    correction: Calibration | None,
    options: VideoOptions,
    batch_size: int | None = None,
    max_detections: int | None = None,
) -> Tables:
    """Boxes of the frames of a video; the boxes of several predictors are fused.

    Frames that can't be decoded are left out and counted among the faults. On Ctrl-C the tables hold what was
    found, videos end there, and a fault says so.

    Args:
        place: a file, a camera such as /dev/video0, or an address.
        predictors: ready to predict.
        outputs: of drawn frames; tables are left to the caller.
        correction: of scores.
        options: which frames, and whether boxes are joined to tracks.
        batch_size: frames at a time; None: as many as have 16 megapixels, 8 at most; of a stream 1.
        max_detections: of fused boxes, a frame.

    Raises:
        DataError: no video can be read, or a file can't be written.
    """
    found, name = _Found(), name_of(place)
    with closing(VideoReader(place, options.every)) as reader:
        worker = _Worker(found, name, reader.size, predictors, correction, options.track, max_detections)
        few = max(1, min(8, PIXELS // (reader.size[0] * reader.size[1])))
        size = batch_size or (1 if reader.live else few)
        total = min((n for n in (reader.count, options.most) if n), default=None)
        start, annotator = time.perf_counter(), Annotator(outputs.min_score)
        try:
            with (
                closing(ahead(_batches(reader, size, options.most))) as batches,
                closing(_results(predictors, batches)) as results,
                Canvases(outputs, reader.rate / options.every) as canvases,
                Behind() as behind,
                live_figures(name, total) as tell,
            ):
                for batch, rows in results:
                    tables = worker.take(batch, rows)
                    if outputs.drawn:
                        behind.do(_draw, canvases, annotator, batch, tables)
                    rate = len(found.frames) / (time.perf_counter() - start)
                    boxes = sum(map(len, found.boxes))
                    tell(len(batch), f"{rate:.1f} frames/s, {boxes:,} boxes, {reader.broken} broken")
        except KeyboardInterrupt:
            found.stopped = True
        faults = _faults(place, reader, found)
    return _whole(found, name, reader.size, worker, faults, options.track)


def name_of(place: str) -> str:
    """What a video is called in tables: its file's name, or its address without user and password."""
    if not is_live(place) or "://" not in place:
        return Path(place).name
    parts = urlsplit(place)
    return f"{parts.hostname or ''}{parts.path}".strip("/") or "stream"


def _batches(reader: VideoReader, size: int, most: int | None) -> Iterator[list[Frame]]:
    """Frames by so many, `most` in all."""
    frames = islice(reader, most)
    while batch := list(islice(frames, size)):
        yield batch


def _results(
    predictors: Sequence[Predictor], batches: Iterator[list[Frame]]
) -> Generator[tuple[list[Frame], list[list[np.ndarray]]], None, None]:
    """Each batch with every predictor's rows."""

    def find(batch: list[Frame]) -> list[list[np.ndarray]]:
        return [p.find([f.pixels for f in batch]) for p in predictors]

    if any(p.tiling is not None for p in predictors):  # which shares out its tiles itself
        yield from ((batch, find(batch)) for batch in batches)
    else:
        yield from in_order(find, batches, predictors[0].device)


class _Worker:
    """Rows of a batch to tables, with tracks where they are wanted; what was found goes into `found`."""

    def __init__(
        self,
        found: _Found,
        name: str,
        size: tuple[int, int],
        predictors: Sequence[Predictor],
        correction: Calibration | None,
        options: TrackOptions | None,
        max_detections: int | None,
    ):
        self.found, self.name, self.size = found, name, size
        self.predictors, self.correction, self.max_detections = predictors, correction, max_detections
        self.options, self.follower = options, None

    def take(self, batch: list[Frame], rows: list[list[np.ndarray]]) -> Tables:
        images = image_table(self.name, self.size, [(f.number, f.seconds) for f in batch])
        members = [p.tables(own, images) for p, own in zip(self.predictors, rows)]
        tables = members[0] if len(members) == 1 else fuse_tables(members, self.max_detections)
        if self.correction is not None:
            tables = self.correction.apply(tables)
        found, limit = self.found, self.predictors[0].limit
        found.full += sum(any(len(r) >= limit for r in own) for own in zip(*rows))
        found.categories, boxes = tables.categories, tables.boxes
        if len(boxes):
            found.source = boxes["source"][0]
        first = len(found.frames)
        found.frames += [(f.number, f.seconds) for f in batch]
        found.boxes.append(boxes.select(KEPT).with_columns(pl.col("image_id") + first))
        return tables if self.options is None else self._follow(tables, batch, self.options)

    def _follow(self, tables: Tables, batch: list[Frame], options: TrackOptions) -> Tables:
        """The tables with the tracks that count by now."""
        if self.follower is None:
            self.follower = Follower(
                options, tables.categories, any(p.model.oriented for p in self.predictors)
            )
        rotated, rows = tables.rotated(), tables.rows_by_image()
        score, category = (tables.boxes[c].to_numpy() for c in ("score", "category_id"))
        keys = np.full(len(rotated), -1, dtype=np.int64)
        for one, own in zip(batch, rows):
            keys[own] = self.follower.step(one.number, rotated[own], score[own], category[own])
        self.found.keys.append(keys)
        return with_tracks(tables, self.follower.numbers(keys), across_classes=False)


def _draw(canvases: Canvases, annotator: Annotator, batch: list[Frame], tables: Tables) -> None:
    for n, one in enumerate(batch):
        name = tables.images["file_name"][n]
        canvases.write(name, annotator.draw(one.pixels, of_image(tables, n)), one.seconds)


def image_table(name: str, size: tuple[int, int], frames: Sequence[tuple[int, float]]) -> pl.DataFrame:
    """The image table of frames (number, seconds) of a video."""
    attributes = [pack({"video": name, "frame": n, "seconds": round(s, 6)}) for n, s in frames]
    columns = {
        "image_id": np.arange(len(frames)),
        "file_name": [f"{name}/{n:06d}" for n, _ in frames],
        "width": [size[0]] * len(frames),
        "height": [size[1]] * len(frames),
        "attributes": attributes,
    }
    return frame(IMAGE_SCHEMA, columns)


def _faults(place: str, reader: VideoReader, found: _Found) -> tuple[Fault, ...]:
    name, faults = name_of(place), []
    if reader.broken:
        message = f"{reader.broken:,} frames can't be decoded; those after them were."
        faults.append(Fault("broken-frames", "warning", name, message))
    if reader.dropped:
        message = f"{reader.dropped:,} frames came faster than they could be predicted, and are left out."
        faults.append(Fault("dropped-frames", "warning", name, message))
    if found.full:
        message = f"{found.full:,} frames reached the limit of detections; see --max-detections."
        faults.append(Fault("detection-limit", "warning", name, message))
    if found.stopped:
        faults.append(Fault("stopped", "warning", name, f"stopped after {len(found.frames):,} frames."))
    return tuple(faults)


def _whole(
    found: _Found,
    name: str,
    size: tuple[int, int],
    worker: _Worker,
    faults: tuple[Fault, ...],
    options: TrackOptions | None,
) -> Tables:
    """The tables of all frames."""
    kept = pl.concat(found.boxes) if found.boxes else frame(BOX_SCHEMA, {}).select(KEPT)
    columns = {column: kept[column] for column in KEPT} | {"area": kept["w"] * kept["h"]}
    boxes = frame(BOX_SCHEMA, columns | {"source": [found.source] * len(kept)})
    images = image_table(name, size, found.frames)
    tables = Tables(images, boxes, found.categories, faults)
    if options is None or worker.follower is None:
        return tables
    return with_tracks(tables, worker.follower.numbers(np.concatenate(found.keys)), options.across_classes)
