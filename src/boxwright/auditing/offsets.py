"""Labels of a video that belong to frames before or after their own: tools count from 0, or from 1."""

import math
from typing import Any

import numpy as np

from boxwright.auditing.evidence import LEAST_IOU, SURE, Boxes, judged_labels
from boxwright.auditing.pairs import greatest, overlapping
from boxwright.auditing.systematic import CERTAIN
from boxwright.data.tables import Tables

FARTHEST = 5  # frames
LEAST_FRAMES = 8  # with labels, of a video that tells anything
LEAST_GAIN = 0.03  # of mean IoU, that is worth a word


def frame_offsets(labels: Tables, predictions: Tables) -> list[dict[str, Any]]:
    """A row a video whose labels fit what is found some frames on or back better than in their own frame.

    Where nothing moves, no frame fits better than another.

    Args:
        labels: over images that know their video and frame (`Tables.videos`, `Tables.frames`).
        predictions: see `suspect`.

    Returns:
        video, frames (that were compared), offset (to the frame where the labels belong), iou and iou_there
        (means of labels with what is found), and `told`.
    """
    video = np.unique(labels.videos(), return_inverse=True)
    frame = labels.frames()
    place = video[1] * (int(np.ptp(frame)) + 2 * FARTHEST + 1) + frame if len(frame) else frame
    own = Boxes.of(labels, judged_labels(labels))
    found = Boxes.of(predictions, (predictions.boxes["score"] >= SURE).to_numpy())
    offsets = np.arange(-FARTHEST, FARTHEST + 1)
    fits = np.stack([_fit(own, found, place, int(k)) for k in offsets])  # (K, I), NaN without labels
    rows = []
    order = np.argsort(video[1], kind="stable")
    starts = np.searchsorted(video[1][order], np.arange(len(video[0]) + 1))
    for name, start, end in zip(video[0], starts, starts[1:]):
        if end - start < LEAST_FRAMES:
            continue
        here = fits[:, order[start:end]]
        there = here - here[FARTHEST]
        counts = np.isfinite(there).sum(axis=1)
        mean = np.where(counts >= LEAST_FRAMES, np.nansum(there, axis=1) / np.maximum(counts, 1), -1.0)
        best = int(mean.argmax())
        if offsets[best] == 0 or mean[best] < LEAST_GAIN:
            continue
        both = np.isfinite(there[best])
        if mean[best] > CERTAIN * there[best][both].std() / math.sqrt(counts[best]):
            iou, iou_there = (float(here[k][both].mean()) for k in (FARTHEST, best))
            rows.append(_row(str(name), int(counts[best]), int(offsets[best]), iou, iou_there))
    return rows


def _fit(own: Boxes, found: Boxes, place: np.ndarray, offset: int) -> np.ndarray:
    """(I,) mean over an image's labels of the best IoU with what is found so many frames on; NaN where there
    is no such frame, or no label.
    """
    places = place[own.image] + offset, place[found.image]
    pairs = overlapping(own.rotated, places[0], found.rotated, places[1], LEAST_IOU)
    pairs = pairs.where(own.category[pairs.first] == found.category[pairs.second])
    iou = greatest(pairs.iou, pairs.first, len(own.rows))
    count = np.bincount(own.image, minlength=len(place))
    total = np.bincount(own.image, iou, minlength=len(place))
    there = (count > 0) & np.isin(place + offset, place)
    return np.where(there, total / np.maximum(count, 1), np.nan)


def _row(video: str, frames: int, offset: int, iou: float, iou_there: float) -> dict[str, Any]:
    many = f"{abs(offset)} frame{'s' if abs(offset) > 1 else ''}"
    told = f"labels belong {many} {'later' if offset > 0 else 'earlier'}"
    numbers = {"frames": frames, "offset": offset, "iou": iou, "iou_there": iou_there}
    return {"video": video} | numbers | {"told": told}
