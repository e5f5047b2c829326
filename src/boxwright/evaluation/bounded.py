"""COCO's numbers of predictions larger than memory: their parts are matched one after the other.

What truth a detection found is settled within its image. Kept of it until the end, when all are put in order
by score, are its score, class, image and rank and two bits for each area and threshold: 30 bytes as a rule.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from boxwright.data import formats
from boxwright.data.formats import parquet
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.parts import part_files
from boxwright.data.tables import BOX_SCHEMA, Tables, frame
from boxwright.errors import DataError
from boxwright.evaluation import coco
from boxwright.evaluation.coco import PrecisionRecall
from boxwright.evaluation.evaluate import DEFAULT_MAX_DETS, Numbers, checked_grid, notes_of, numbers_of
from boxwright.evaluation.kernels import EPSILON
from boxwright.evaluation.matching import Matching, any_oriented, image_places, match
from boxwright.evaluation.pairing import align, rows_of_images, tell_unseen
from boxwright.progress import track


def evaluate_parts(
    truth: Tables | str | os.PathLike,
    predictions: str | os.PathLike,
    max_dets: tuple[int, ...] = DEFAULT_MAX_DETS,
    iou_thresholds: Sequence[float] | None = None,
    area_edges: tuple[float, float] = coco.AREA_EDGES,
) -> Numbers:
    """The numbers of `evaluate`, of a folder of parts (`predict --on ray`), one of them in memory at a time.

    Args:
        truth: tables or a path in any known format; it is in memory as a whole.
        predictions: the folder.
        max_dets, iou_thresholds, area_edges: see `evaluate`.

    Raises:
        DataError: a part is missing or can't be read, an image is in two of them, or the truth is of others.
        ConfigError: limits, a grid or edges that can't be meant.
    """
    grid, ranges = checked_grid(max_dets, iou_thresholds, area_edges), coco.area_ranges(area_edges)
    truth = truth if isinstance(truth, Tables) else formats.read(truth)
    files = part_files(Path(predictions))
    told = [_count(file) for file in files]
    total, angled = (sum(column) for column in zip(*told))
    kept = _Kept(total, len(ranges), len(grid))
    oriented = angled > 0 or any_oriented(truth)
    places, seen = image_places(truth), np.zeros(len(truth.images), dtype=bool)
    row_of = {name: n for n, name in enumerate(truth.images["file_name"]) if name is not None}
    counts = np.zeros((len(truth.categories), len(ranges)), dtype=np.int64)
    dropped = 0
    for file in track("evaluate", files):
        part = parquet.read(file, ReadOptions())
        rows = rows_of_images(truth, part, row_of)
        own = np.zeros(len(seen), dtype=bool)
        own[rows[rows >= 0]] = True
        if (own & seen).any():
            name = truth.images["file_name"][int(np.flatnonzero(own & seen)[0])]
            raise DataError(f"{file}: {name} is in a part before it too.")
        seen |= own
        its_truth = truth.select_images(own)
        matching = match(its_truth, align(its_truth, part), grid, ranges, max_dets[-1], oriented=oriented)
        kept.add(matching, np.sort(places[own]))
        counts += _truth_counts(matching)
        dropped += matching.dropped
    rest = truth.select_images(~seen)
    counts += _truth_counts(match(rest, rest.with_boxes(frame(BOX_SCHEMA, {})), grid, ranges, max_dets[-1]))
    curves, detections = kept.curves(counts, max_dets)
    numbers = numbers_of(truth, curves, detections, max_dets, grid)
    notes = notes_of(truth, tell_unseen(truth.images, seen), total > 0 and not angled, dropped, max_dets)
    return Numbers(**numbers, notes=notes)


class _Kept:
    """What is kept of every detection, in arrays of one size that are filled part by part."""

    def __init__(self, most: int, areas: int, thresholds: int):
        self.areas, self.thresholds, self.count = areas, thresholds, 0
        self.score = np.empty(most)
        self.category, self.place, self.rank = (np.empty(most, dtype=np.int32) for _ in range(3))
        width = -(-areas * thresholds // 8)
        self.true, self.false = (np.empty((most, width), dtype=np.uint8) for _ in range(2))

    def add(self, matching: Matching, places: np.ndarray) -> None:
        """Detections of a part; `places` of its images among all, in their order."""
        now = slice(self.count, self.count + len(matching.det_row))
        self.score[now], self.category[now] = matching.det_score, matching.det_category
        self.place[now], self.rank[now] = places[matching.det_image], matching.det_rank
        outcomes = [matching.outcomes(t, a) for a in range(self.areas) for t in range(self.thresholds)]
        for bits, which in ((self.true, 0), (self.false, 1)):
            bits[now] = np.packbits(np.stack([outcome[which] for outcome in outcomes]), axis=0).T
        self.count = now.stop

    def curves(self, counts: np.ndarray, max_dets: tuple[int, ...]) -> tuple[PrecisionRecall, np.ndarray]:
        """As `coco.precision_recall` of all together, and (K,) detections of each category."""
        categories = len(counts)
        # Equal scores stand in the order of the images, those of one image in that of their part.
        order = np.argsort(self.place[: self.count], kind="stable")
        order = order[np.argsort(-self.score[order], kind="stable")]
        order = order[np.argsort(self.category[order], kind="stable")]
        starts = np.searchsorted(self.category[order], np.arange(categories + 1))
        defined = np.where(counts > 0, 0.0, -1.0)
        points = len(coco.RECALL_POINTS)
        precision = np.tile(defined, (self.thresholds, points, 1, 1))
        scores = precision.copy()
        recall = np.tile(defined[:, :, None], (self.thresholds, 1, 1, len(max_dets)))
        for k in range(categories):
            own = order[starts[k] : starts[k + 1]]
            true, false, score, rank = self.true[own], self.false[own], self.score[own], self.rank[own]
            for a in np.flatnonzero(counts[k]).tolist():
                for t in range(self.thresholds):
                    bit = a * self.thresholds + t
                    at = np.flatnonzero(_bit(true, bit))
                    found = np.arange(1, len(at) + 1)
                    wrong = np.cumsum(_bit(false, bit), dtype=np.int32)[at]
                    exact = found / (wrong + found + EPSILON)
                    exact = np.append(np.maximum.accumulate(exact[::-1])[::-1], 0.0)
                    reached = np.searchsorted(found / counts[k, a], coco.RECALL_POINTS)
                    precision[t, :, k, a] = exact[reached]
                    scores[t, :, k, a] = np.append(score[at], 0.0)[reached]
                    within = [np.count_nonzero(rank[at] < limit) for limit in max_dets]
                    recall[t, k, a] = np.array(within) / counts[k, a]
            if len(own):  # the first point is that of the best detection, right or wrong
                scores[:, 0, k, counts[k] > 0] = score[0]
        return PrecisionRecall(precision, recall, scores, counts), np.diff(starts)


def _bit(packed: np.ndarray, bit: int) -> np.ndarray:
    """(D,) 0 or 1, of bits packed in rows (D, B)."""
    return (packed[:, bit // 8] >> (7 - bit % 8)) & 1


def _count(file: Path) -> tuple[int, int]:
    """Boxes of a part, and those with an angle."""
    counts = pl.scan_parquet(file).select(pl.len(), pl.col("angle").count().alias("angled"))
    return counts.collect().row(0)


def _truth_counts(matching: Matching) -> np.ndarray:
    """(K, A)."""
    return np.stack([matching.truth_counts(a) for a in range(len(matching.gt_ignored))], axis=1)
