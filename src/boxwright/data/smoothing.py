"""Angles over time: along a track a vehicle doesn't turn around from one frame to the next."""

from itertools import pairwise

import numpy as np
import polars as pl

from boxwright.data.builder import unpack
from boxwright.data.oriented import wrap
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError

MOVED = 0.25  # of the box's longer side: a shorter path doesn't tell the heading


def smooth_angles(tables: Tables, window: float = 2.0, headings: bool = True) -> Tables:
    """The tables with the angles of oriented boxes smoothed along their tracks.

    A track is the boxes of one class with one "track_id" among their attributes in one video, in the
    images' order; the video is the attribute "video" of an image, else the folder of its file name. First
    every angle is spelled as its predecessor's is: half and quarter turns, which a detector of rectangles
    confuses, go, and widths are the longer sides. Then the heading is where the track moves to, where it
    moves at all. Then angles are averaged over neighbouring frames.

    Args:
        tables: boxes without angle or track stay as they are.
        window: deviation of the Gaussian weights, frames; 0: spellings alone are made to agree.
        headings: angles may be rotated by half a turn, so that widths point ahead; False: in [-pi/2, pi/2).

    Raises:
        DataError: no oriented box has a "track_id".
        ConfigError: a negative window.
    """
    if window < 0:
        raise ConfigError(f"window {window}, expected 0 or more frames.")
    tracks = _tracks(tables)
    if not tracks:
        raise DataError("no oriented box has an attribute 'track_id'; angles are smoothed along tracks.")
    boxes = tables.rotated()
    frame = tables.boxes["image_id"].to_numpy()
    for rows in tracks:
        boxes[rows] = _smooth(boxes[rows], frame[rows], window, headings)
    given = tables.boxes["angle"].is_not_null().to_numpy()
    angle = wrap(boxes[:, 4], 2 * np.pi if headings else np.pi)
    columns = {
        "x": boxes[:, 0] - boxes[:, 2] / 2,
        "y": boxes[:, 1] - boxes[:, 3] / 2,
        "w": boxes[:, 2],
        "h": boxes[:, 3],
        "angle": angle,
    }
    changed = np.zeros(len(boxes), dtype=bool)
    changed[np.concatenate(tracks)] = True
    keep = changed & given
    merged = {
        name: pl.when(pl.Series(keep)).then(pl.Series(values)).otherwise(pl.col(name)).alias(name)
        for name, values in columns.items()
    }
    return tables.with_boxes(tables.boxes.with_columns(**merged))


def _tracks(tables: Tables) -> list[np.ndarray]:
    """Rows of each track, in the order of its images."""
    video = tables.videos()
    members: dict[tuple, list[int]] = {}
    boxes = tables.boxes
    columns = (boxes[c].to_list() for c in ("image_id", "category_id", "angle", "attributes"))
    for row, (image, category, angle, text) in enumerate(zip(*columns)):
        track = unpack(text).get("track_id")
        if track is not None and angle is not None:
            members.setdefault((video[image], category, str(track)), []).append(row)
    image = boxes["image_id"].to_numpy()
    return [np.array(sorted(rows, key=lambda row: image[row])) for rows in members.values()]


def _smooth(boxes: np.ndarray, frame: np.ndarray, window: float, headings: bool) -> np.ndarray:
    """One track's boxes (T, 5) in frames (T,)."""
    boxes = boxes.copy()
    for before, after in pairwise(range(len(boxes))):
        quarters = int(np.round((boxes[after, 4] - boxes[before, 4]) / (np.pi / 2)))
        boxes[after, 4] -= quarters * np.pi / 2
        if quarters % 2:
            boxes[after, 2:4] = boxes[after, [3, 2]]
    if boxes[:, 2].sum() < boxes[:, 3].sum():
        boxes[:, 2:4], boxes[:, 4] = boxes[:, [3, 2]], boxes[:, 4] + np.pi / 2
    way = np.diff(boxes[:, :2], axis=0)
    ahead = np.stack([np.cos(boxes[:, 4]), np.sin(boxes[:, 4])], axis=1)
    along = float((way * (ahead[1:] + ahead[:-1]) / 2).sum())
    if headings and along < -MOVED * boxes[:, 2:4].max():
        boxes[:, 4] += np.pi
    if window > 0:
        weights = np.exp(-(((frame[:, None] - frame) / window) ** 2) / 2)
        # Spelled alike, neighbours differ by less than an eighth of a turn: their directions have a mean.
        boxes[:, 4] = np.arctan2(weights @ np.sin(boxes[:, 4]), weights @ np.cos(boxes[:, 4]))
    return boxes
