"""Boxes for the frames in which a track wasn't seen."""

from dataclasses import replace

import numpy as np
import polars as pl

from boxwright.data.builder import pack, unpack
from boxwright.data.oriented import wrap
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.tracking.motion import spelled_as


def fill_gaps(tables: Tables, most: int) -> Tables:
    """The tables with boxes between those of a track that are more than a frame apart, on a straight line.

    A new box has the lower score of its neighbours, and "interpolated" among its attributes. Frames whose
    image the table doesn't have stay empty.

    Args:
        tables: boxes with a "track_id" in frames of videos.
        most: frames that a gap may have.

    Raises:
        DataError: no box has a "track_id".
    """
    tracks = [unpack(text).get("track_id") for text in tables.boxes["attributes"]]
    rows = np.array([n for n, track in enumerate(tracks) if track is not None], dtype=np.int64)
    if not len(rows):
        raise DataError("no box has an attribute 'track_id'; gaps are those of tracks.")
    image = tables.boxes["image_id"].to_numpy()[rows]
    names = tables.videos()
    video = np.unique(np.array(names, dtype=str), return_inverse=True)[1]
    keys = pl.DataFrame({"v": video[image], "t": [str(tracks[r]) for r in rows]})
    member = keys.select(pl.struct("v", "t").rank("dense")).to_series().to_numpy()
    frames = tables.frames()
    order = np.lexsort((frames[image], member))
    rows, image, member = rows[order], image[order], member[order]
    gap = np.diff(frames[image]) - 1
    at = np.flatnonzero((np.diff(member) == 0) & (gap > 0) & (gap <= most))
    step = np.concatenate([np.arange(1, g + 1) for g in gap[at]] or [np.zeros(0, np.int64)])
    before, share = np.repeat(at, gap[at]), step / np.repeat(gap[at] + 1, gap[at])
    place = _images_at(video, frames, video[image[before]], frames[image[before]] + step)
    there = place >= 0
    new = _between(tables, rows[before[there]], rows[before[there] + 1], share[there], place[there])
    boxes = pl.concat([tables.boxes, new]).sort("image_id", maintain_order=True)
    return replace(tables, boxes=boxes)


def _images_at(video: np.ndarray, frames: np.ndarray, videos: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(N,) image of each wanted frame of `videos`, -1 where there is none."""
    order = np.lexsort((frames, video))
    known = np.stack([video[order], frames[order]], axis=1)
    ids = {tuple(key): image for key, image in zip(known.tolist(), order.tolist())}
    return np.array([ids.get(key, -1) for key in zip(videos.tolist(), wanted.tolist())], dtype=np.int64)


def _between(
    tables: Tables, first: np.ndarray, second: np.ndarray, share: np.ndarray, image: np.ndarray
) -> pl.DataFrame:
    """Boxes at a share of the way from rows `first` to rows `second`."""
    boxes, rotated = tables.boxes, tables.rotated()
    a, b = rotated[first], rotated[second]
    if tables.has_headings():
        b[:, 4] = a[:, 4] + wrap(b[:, 4] - a[:, 4], 2 * np.pi)
    else:
        b = spelled_as(b, a)
    mixed = a + (b - a) * share[:, None]
    score = boxes["score"]
    lower = pl.DataFrame({"a": score[first], "b": score[second]}).select(pl.min_horizontal("a", "b"))
    attributes = [pack(unpack(text) | {"interpolated": True}) for text in boxes["attributes"][first]]
    oriented = boxes["angle"][first].is_not_null()
    angle = wrap(mixed[:, 4], 2 * np.pi if tables.has_headings() else np.pi)
    return boxes[first].with_columns(
        image_id=pl.Series(image),
        x=pl.Series(mixed[:, 0] - mixed[:, 2] / 2),
        y=pl.Series(mixed[:, 1] - mixed[:, 3] / 2),
        w=pl.Series(mixed[:, 2]),
        h=pl.Series(mixed[:, 3]),
        angle=pl.when(oriented).then(pl.Series(angle)),
        area=pl.Series(mixed[:, 2] * mixed[:, 3]),
        score=lower.to_series(),
        landmarks=pl.lit(None, dtype=boxes.schema["landmarks"]),
        attributes=pl.Series(attributes, dtype=pl.String),
    )
