"""AP of tracks: a found object is a tube through the frames of a video, and must follow the true one."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from boxwright.data.builder import unpack
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.evaluation.average_precision import average_precision
from boxwright.evaluation.matching import any_oriented, box_columns
from boxwright.evaluation.reading import Reading, mean
from boxwright.geometry.iou import aligned_iou


def tubes(
    truth: Tables, predictions: Tables, iou_thresholds: tuple[float, ...] = (0.2, 0.5, 0.75)
) -> Reading:
    """Spatio-temporal tube AP (video mAP): by 101 recall points, at each threshold of tube IoU.

    A tube is every box of one class with one "track_id" (an attribute of the box) in one video: the attribute
    "video" of the image, else the folder of its file name. The IoU of two tubes is the sum over frames of
    intersections over the sum over frames of unions; its score is the mean of its boxes'. Tubes are matched
    by descending score, each to the free tube of its class it overlaps most.

    Args:
        truth, predictions: aligned tables; predictions have a "track_id" too.
        iou_thresholds: of tubes.

    Raises:
        DataError: a box without "track_id".

    Source: Weinzaepfel et al., Learning to Track for Spatio-Temporal Action Localization, ICCV 2015.
    """
    oriented = any_oriented(truth, predictions)
    true, found = (_tubes_of(t, truth, oriented) for t in (truth, predictions))
    overlaps = _tube_ious(found, true)
    rows = []
    for k, name in enumerate(truth.categories["name"]):
        row: dict = {"class": name, "truth": int((true.category == k).sum())}
        dets = np.flatnonzero(found.category == k)
        dets = dets[np.argsort(-found.score[dets], kind="stable")]
        row["tubes"] = len(dets)
        for threshold in iou_thresholds:
            taken: set[int] = set()
            flags = np.zeros(len(dets), dtype=bool)
            for n, d in enumerate(dets):
                free = [(iou, g) for g, iou in overlaps.get(int(d), {}).items() if g not in taken]
                iou, tube = max(free, default=(0.0, -1))
                if iou >= threshold and tube >= 0:
                    taken.add(tube)
                    flags[n] = True
            row[f"AP{100 * threshold:.0f}"] = average_precision(flags, row["truth"])
        rows.append(row)
    names = [f"AP{100 * t:.0f}" for t in iou_thresholds]
    return Reading(
        title="Tubes through video",
        overall={name: mean(row[name] for row in rows) for name in names},
        rows=rows,
        source="Weinzaepfel et al., Learning to Track for Spatio-Temporal Action Localization, ICCV 2015",
    )


@dataclass(frozen=True)
class _Tubes:
    """`of_box` is the tube of each box; `boxes` as geometry takes them; the others are by tube."""

    of_box: np.ndarray
    image: np.ndarray
    boxes: np.ndarray
    category: np.ndarray
    score: np.ndarray
    area: np.ndarray


def _tubes_of(tables: Tables, truth: Tables, oriented: bool) -> _Tubes:
    boxes = tables.boxes.filter(~(pl.col("crowd") | pl.col("ignore")))
    tracks = [unpack(text).get("track_id") for text in boxes["attributes"]]
    if None in tracks:
        row = tracks.index(None)
        raise DataError(
            f"{boxes['source'][row]}, box {row}: no attribute 'track_id'; tubes are made of tracks."
        )
    videos = truth.videos()
    image = boxes["image_id"].to_numpy()
    key = pl.DataFrame(
        {
            "video": pl.Series([videos[i] for i in image], dtype=pl.String),
            "track": pl.Series([str(t) for t in tracks], dtype=pl.String),
            "category": boxes["category_id"],
        }
    )
    of_box = (
        key.select(pl.struct("video", "track", "category").rank("dense")).to_series().to_numpy().astype(int)
        - 1
    )
    count = int(of_box.max()) + 1 if len(of_box) else 0
    columns = np.column_stack(box_columns(tables.with_boxes(boxes), oriented))
    area = columns[:, 2] * columns[:, 3]
    category = np.zeros(count, dtype=np.int64)
    category[of_box] = boxes["category_id"].to_numpy()
    number = np.maximum(np.bincount(of_box, minlength=count), 1)
    score = np.bincount(of_box, boxes["score"].fill_null(1.0).to_numpy(), count) / number
    return _Tubes(of_box, image, columns, category, score, np.bincount(of_box, area, count))


def _tube_ious(found: _Tubes, true: _Tubes) -> dict[int, dict[int, float]]:
    """Tube IoU of each found tube with each true one of its class that it meets."""
    shared: dict[tuple[int, int], float] = {}
    order = np.argsort(true.image, kind="stable")
    at = np.searchsorted(true.image[order], found.image, side="left")
    end = np.searchsorted(true.image[order], found.image, side="right")
    rows = np.repeat(np.arange(len(found.image)), end - at)
    inner = np.arange(len(rows)) - np.repeat(np.cumsum(end - at) - (end - at), end - at)
    others = order[np.repeat(at, end - at) + inner]
    alike = found.category[found.of_box[rows]] == true.category[true.of_box[others]]
    rows, others = rows[alike], others[alike]
    iou = aligned_iou(found.boxes[rows], true.boxes[others])
    areas = (b[:, 2] * b[:, 3] for b in (found.boxes[rows], true.boxes[others]))
    intersection = iou / (1 + iou) * sum(areas)
    for d, g, part in zip(found.of_box[rows].tolist(), true.of_box[others].tolist(), intersection.tolist()):
        shared[d, g] = shared.get((d, g), 0.0) + part
    result: dict[int, dict[int, float]] = {}
    for (d, g), part in shared.items():
        if part > 0:
            result.setdefault(d, {})[g] = part / (found.area[d] + true.area[g] - part)
    return result
