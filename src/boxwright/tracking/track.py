"""`boxwright.track`: boxes of videos to tracks."""

import numpy as np
import polars as pl

from boxwright.data.builder import pack, unpack
from boxwright.data.confident import thresholds_by_name
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError
from boxwright.progress import progress_bar
from boxwright.tracking.byte import ByteTracker
from boxwright.tracking.gaps import fill_gaps
from boxwright.tracking.ocsort import OcSortTracker
from boxwright.tracking.options import TrackOptions

TRACKERS = {"byte": ByteTracker, "ocsort": OcSortTracker}
OVERLAPS = {"byte": 0.2, "ocsort": 0.3}
HIGH = 0.5  # where the table doesn't know better


def track(tables: Tables, options: TrackOptions | None = None, fill: int = 0) -> Tables:
    """The boxes that lie on tracks, each with its "track_id" among its attributes.

    Frames are the images of a video in order; the video is the attribute "video" of an image, else the folder
    of its file name. Boxes stay as they are; those on no track are left out, a track's first ones are in.
    Oriented boxes are matched by their exact overlap. Ids count from 1 in each video.

    Args:
        tables: of a detector; boxes without score count as certain.
        options: of the tracker.
        fill: gaps of so many frames at most are filled along a straight line (`fill_gaps`).

    Raises:
        DataError: a video has one image alone.
        ConfigError: options that can't be meant.

    Example:
        >>> found = boxwright.predict("clip.mp4", "runs/cars")
        >>> boxwright.write(boxwright.track(found), "tracks.parquet")
    """
    options = options or TrackOptions()
    if fill < 0:
        raise ConfigError(f"fill {fill}, expected 0 or more frames.")
    videos = np.array(tables.videos(), dtype=object)
    frame_of = tables.frames()
    groups = tables.rows_by_image(~(tables.boxes["crowd"] | tables.boxes["ignore"]).to_numpy())
    numbers = np.full(len(tables.boxes), -1)
    with progress_bar("track", len(tables.images)) as tell:
        for video in dict.fromkeys(videos.tolist()):
            images = np.flatnonzero(videos == video)
            if len(images) < 2:
                name = tables.images["file_name"][int(images[0])]
                raise DataError(f"{name} is the only image of video '{video}'; tracks go through several.")
            images = images[np.argsort(frame_of[images], kind="stable")]
            _check_frames(tables, images, frame_of, video)
            rows = [groups[i] for i in images]
            own, values = _track_video(tables, rows, frame_of[images], options, tell)
            numbers[own] = values
    tracked = with_tracks(tables, numbers, options.across_classes)
    return fill_gaps(tracked, fill) if fill else tracked


class Follower:
    """Tracks of every class through one video, numbered from 1 as they come to count.

    Args:
        options: of the trackers.
        categories: table of the classes, with their operating thresholds where they are known.
        oriented: boxes have angles.
    """

    def __init__(self, options: TrackOptions, categories: pl.DataFrame, oriented: bool):
        known, names = thresholds_by_name(categories), categories["name"].to_list()
        self.across, self.dimensions = options.across_classes, 5 if oriented else 4
        thresholds = [known.get(name, HIGH) for name in names]
        if self.across:
            thresholds = [min(known.values(), default=HIGH)]
        self._trackers = [_make_tracker(options, self.dimensions, high) for high in thresholds]
        self._numbers: dict[int, int] = {}
        self._begun = False

    def step(self, frame: int, boxes: np.ndarray, scores: np.ndarray, category: np.ndarray) -> np.ndarray:
        """Key of the track of each box (N, 5) of cx, cy, w, h, angle in a later frame: (N,), -1 for none."""
        classes = np.zeros_like(category) if self.across else category
        keys, first, self._begun = np.full(len(boxes), -1, dtype=np.int64), not self._begun, True
        count = len(self._trackers)
        for c, tracker in enumerate(self._trackers):
            mine = np.flatnonzero(classes == c)
            if len(mine) or len(tracker.ids) or first:  # a tracker is surer of what is there from the start
                ids = tracker.step(frame, boxes[mine, : self.dimensions], scores[mine])
                keys[mine] = np.where(ids >= 0, ids * count + c, -1)
        return keys

    def numbers(self, keys: np.ndarray) -> np.ndarray:
        """(N,) number of each key's track as far as it counts by now, -1 for others."""
        count = len(self._trackers)
        found = np.full(len(keys), -1, dtype=np.int64)
        for n, key in enumerate(keys.tolist()):
            if key >= 0 and key // count in self._trackers[key % count].confirmed:
                found[n] = self._numbers.setdefault(key, len(self._numbers) + 1)
        return found


def _make_tracker(options: TrackOptions, dimensions: int, high: float) -> ByteTracker | OcSortTracker:
    """A tracker of one class; `high` where the options leave it open."""
    overlap = OVERLAPS[options.method] if options.overlap is None else options.overlap
    high = high if options.high is None else options.high
    return TRACKERS[options.method](dimensions, high, options.low, overlap, options.lost)


def _check_frames(tables: Tables, images: np.ndarray, frame_of: np.ndarray, video: str) -> None:
    same = np.flatnonzero(np.diff(frame_of[images]) == 0)
    if len(same):
        name = tables.images["file_name"][int(images[same[0] + 1])]
        raise DataError(f"{name}: a second image of frame {frame_of[images[same[0]]]} of video '{video}'.")


def _track_video(
    tables: Tables, rows: list[np.ndarray], frames: np.ndarray, options: TrackOptions, tell
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the box table and their tracks' numbers, of one video; `rows` of each frame."""
    follower = Follower(options, tables.categories, tables.has_angles())
    boxes, category = tables.rotated(), tables.boxes["category_id"].to_numpy()
    scores = tables.boxes["score"].fill_null(1.0).to_numpy()
    keys = []
    for frame, own in zip(frames.tolist(), rows):
        keys.append(follower.step(frame, boxes[own], scores[own], category[own]))
        follower.numbers(keys[-1])  # in the order in which they come to count
        tell(1)
    return np.concatenate(rows), follower.numbers(np.concatenate(keys))


def with_tracks(tables: Tables, numbers: np.ndarray, across_classes: bool) -> Tables:
    """The boxes that have a number, with it."""
    kept = numbers >= 0
    boxes, numbers = tables.boxes.filter(kept), numbers[kept]
    attributes = [
        pack(unpack(text) | {"track_id": number})
        for text, number in zip(boxes["attributes"], numbers.tolist())
    ]
    boxes = boxes.with_columns(attributes=pl.Series(attributes, dtype=pl.String))
    if across_classes and len(boxes):
        videos = np.array(tables.videos(), dtype=object)[boxes["image_id"].to_numpy()]
        one = boxes.with_columns(video=pl.Series(videos.tolist(), dtype=pl.String), track=pl.Series(numbers))
        votes = one.group_by("video", "track", "category_id").agg(pl.col("score").fill_null(1.0).sum())
        best = votes.sort("score", "category_id").group_by("video", "track").agg(pl.last("category_id"))
        boxes = one.drop("category_id").join(best, on=["video", "track"], how="left", maintain_order="left")
        boxes = boxes.select(tables.boxes.columns)
    return tables.with_boxes(boxes)
