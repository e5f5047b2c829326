"""A detector over a video, camera or stream: decoding, detecting and writing run side by side.

Memory is that of the frames between them, and of the boxes found (some 70 bytes each).
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
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
from boxwright.prediction.predictor import Found, Predictor
from boxwright.progress import live_figures
from boxwright.tracking.options import TrackOptions
from boxwright.tracking.track import Follower, with_tracks

PIXELS = 16_000_000  # of the frames of a batch: eight of 1080p, two of 4K
TOGETHER = 256  # batches whose boxes are put into one table: each alone would take far more than its boxes
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
    with closing(VideoReader(place, options.every)) as reader:
        found = _Taken(name_of(place), reader.size, predictors, correction, options.track, max_detections)
        few = max(1, min(8, PIXELS // (reader.size[0] * reader.size[1])))
        size = batch_size or (1 if reader.live else few)
        total = min((n for n in (reader.count, options.most) if n), default=None)
        stopped, start, annotator = False, time.perf_counter(), Annotator(outputs.min_score)
        try:
            try:
                with (
                    closing(ahead(_batches(reader, size, options.most))) as batches,
                    closing(_results(predictors, batches)) as results,
                    Canvases(outputs, reader.rate / options.every) as canvases,
                    Behind() as behind,
                    live_figures(found.name, total) as tell,
                ):
                    for batch, seen in results:
                        tables = found.take(batch, seen)
                        if outputs.drawn:
                            behind.do(_draw, canvases, annotator, batch, tables)
                        rate = len(found.frames) / (time.perf_counter() - start)
                        tell(
                            len(batch), f"{rate:.1f} frames/s, {found.count:,} boxes, {reader.broken} broken"
                        )
            except KeyboardInterrupt:
                stopped = True
                time.sleep(0.01)  # where Polars has raised it, Python's own is still to come
        except KeyboardInterrupt:
            stopped = True
        return found.tables(_faults(reader, found, stopped))


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
) -> Generator[tuple[list[Frame], list[list[Found]]], None, None]:
    """Each batch with what every predictor finds."""

    def find(batch: list[Frame]) -> list[list[Found]]:
        return [p.find([f.pixels for f in batch]) for p in predictors]

    if any(p.tiling is not None for p in predictors):  # which shares out its tiles itself
        yield from ((batch, find(batch)) for batch in batches)
    else:
        yield from in_order(find, batches, predictors[0].device)


class _Taken:
    """What is found in batches to tables, with tracks where they are wanted, and everything found so far.

    Attributes:
        frames: number and seconds of each.
        count: of boxes.
        full: frames that reached a limit of detections.
    """

    def __init__(
        self,
        name: str,
        size: tuple[int, int],
        predictors: Sequence[Predictor],
        correction: Calibration | None,
        options: TrackOptions | None,
        max_detections: int | None,
    ):
        self.name, self.size, self.predictors = name, size, predictors
        self.correction, self.options, self.max_detections = correction, options, max_detections
        self.frames: list[tuple[int, float]] = []
        self.count = self.full = 0
        self._boxes: list[pl.DataFrame] = []  # of many batches each, and of one
        self._latest: list[pl.DataFrame] = []
        self._keys: list[np.ndarray] = []  # of the boxes' tracks
        self._categories, self._source = frame(CATEGORY_SCHEMA, {}), ""
        self._follower: Follower | None = None

    def take(self, batch: list[Frame], found: list[list[Found]]) -> Tables:
        """The tables of a batch, with the tracks that count by now; `found` by each predictor."""
        images = image_table(self.name, self.size, [(f.number, f.seconds) for f in batch])
        members = [p.tables([one.rows for one in own], images) for p, own in zip(self.predictors, found)]
        tables = members[0] if len(members) == 1 else fuse_tables(members, self.max_detections)
        if self.correction is not None:
            tables = self.correction.apply(tables)
        self.full += sum(any(one.full for one in own) for own in zip(*found))
        boxes, shown = tables.boxes, tables
        if self.options is not None:
            shown = self._follow(tables, batch, self.options)
        # Frames last: what an interrupt leaves without its frames isn't counted.
        self._categories = tables.categories
        self._source = boxes["source"][0] if len(boxes) else self._source
        self._latest.append(boxes.select(KEPT).with_columns(pl.col("image_id") + len(self.frames)))
        if len(self._latest) == TOGETHER:
            self._boxes.append(pl.concat(self._latest, rechunk=True))
            self._latest.clear()
        self.count += len(boxes)
        self.frames += [(f.number, f.seconds) for f in batch]
        return shown

    def _follow(self, tables: Tables, batch: list[Frame], options: TrackOptions) -> Tables:
        if self._follower is None:
            oriented = any(p.model.oriented or p.angles for p in self.predictors)
            self._follower = Follower(options, tables.categories, oriented)
        rotated, rows = tables.rotated(), tables.rows_by_image()
        score, category = (tables.boxes[c].to_numpy() for c in ("score", "category_id"))
        keys = np.full(len(rotated), -1, dtype=np.int64)
        for one, own in zip(batch, rows):
            keys[own] = self._follower.step(one.number, rotated[own], score[own], category[own])
        self._keys.append(keys)
        return with_tracks(tables, self._follower.numbers(keys), across_classes=False)

    def tables(self, faults: tuple[Fault, ...]) -> Tables:
        """Of all frames."""
        kept = pl.concat([frame(BOX_SCHEMA, {}).select(KEPT), *self._boxes, *self._latest])
        kept = kept.filter(pl.col("image_id") < len(self.frames))
        columns = {column: kept[column] for column in KEPT} | {"area": kept["w"] * kept["h"]}
        boxes = frame(BOX_SCHEMA, columns | {"source": [self._source] * len(kept)})
        images = image_table(self.name, self.size, self.frames)
        tables = Tables(images, boxes, self._categories, faults)
        if self.options is None or self._follower is None:
            return tables
        numbers = self._follower.numbers(np.concatenate(self._keys)[: len(kept)])
        return with_tracks(tables, numbers, self.options.across_classes)


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


def _faults(reader: VideoReader, found: _Taken, stopped: bool) -> tuple[Fault, ...]:
    told = {
        "broken-frames": (reader.broken, "frames can't be decoded; those after them were."),
        "dropped-frames": (
            reader.dropped,
            "frames came faster than they could be predicted, and are left out.",
        ),
        "detection-limit": (found.full, "frames reached the limit of detections; see --max-detections."),
    }
    faults = [Fault(c, "warning", found.name, f"{n:,} {text}") for c, (n, text) in told.items() if n]
    if stopped:
        message = f"stopped after {len(found.frames):,} frames."
        faults.append(Fault("stopped", "warning", found.name, message))
    return tuple(faults)
