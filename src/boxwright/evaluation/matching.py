"""Match predictions to truth once; every metric is a reading of the result."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.evaluation import kernels
from boxwright.geometry.iou import aligned_iou, prepare

FEW = 20_000  # detections; below this, threads cost more than they bring
EVERY_AREA = np.array([[0.0, np.inf]])
NO_LIMIT = np.iinfo(np.int32).max

Rule = Literal["coco", "voc"]


@dataclass(frozen=True)
class Matching:
    """Which truth each detection found, for every area range and IoU threshold.

    Detections are sorted by category, image and descending score (ties in the order of the table), truth
    by category and image. D detections, G truths, A area ranges, T thresholds, K categories, and C detections
    that overlap any truth enough to matter.

    Attributes:
        det_row: (D,) row in the predictions' box table.
        det_category: (D,) row of the category table.
        det_image: (D,) place of the image in the order of the source's ids, see `image_places`.
        det_rank: (D,) place within image and category, 0 the best score.
        det_score: (D,) float64.
        det_outside: (A, D) bool, its area lies outside the range.
        gt_row, gt_category, gt_image: (G,) of the truth.
        gt_ignored: (A, G) bool, doesn't count.
        order: (D,) detections by category and descending score.
        starts: (K + 1,) first detection of each category, and D.
        candidate: (D,) row of `matches`, or -1.
        matches: (C, A, T) int32, index into the truth's order; -1 for none, -2 for one that was taken (VOC).
        thresholds: (T,) IoU.
        dropped: detections beyond the limit in an image and category, left out of the match.
        boxes: of the detections and of the truth, in the orders above, as `geometry.iou` takes them.
    """

    det_row: np.ndarray
    det_category: np.ndarray
    det_image: np.ndarray
    det_rank: np.ndarray
    det_score: np.ndarray
    det_outside: np.ndarray
    gt_row: np.ndarray
    gt_category: np.ndarray
    gt_image: np.ndarray
    gt_ignored: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    candidate: np.ndarray
    matches: np.ndarray
    thresholds: np.ndarray
    dropped: int
    boxes: tuple[np.ndarray, np.ndarray]

    def found(self, threshold: int = 0, area: int = 0) -> np.ndarray:
        """(D,) index of the truth each detection found at a threshold (by its place), negative for none."""
        if len(self.matches) == 0:
            return np.full(len(self.det_row), -1, dtype=np.int32)
        return np.where(self.candidate >= 0, self.matches[self.candidate, area, threshold], -1)

    def outcomes(self, threshold: int = 0, area: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(D,) true positive and (D,) false positive; neither is one that doesn't count."""
        found = self.found(threshold, area)
        # A column of False stands behind the truth for index -1.
        hit = found >= 0
        ignored = np.append(self.gt_ignored[area], False)[np.maximum(found, -1)]
        return hit & ~ignored, ~hit & ~self.det_outside[area]

    def truth_counts(self, area: int = 0) -> np.ndarray:
        """(K,) truth that counts in each category."""
        counted = self.gt_category[~self.gt_ignored[area]]
        return np.bincount(counted, minlength=len(self.starts) - 1)

    def iou_of_found(self, threshold: int = 0, area: int = 0) -> np.ndarray:
        """(D,) IoU of each detection with the truth it found; NaN without one."""
        found = self.found(threshold, area)
        result = np.full(len(found), np.nan)
        hit = np.flatnonzero(found >= 0)
        result[hit] = aligned_iou(self.boxes[0][hit], self.boxes[1][found[hit]])
        return result


def match(
    truth: Tables,
    predictions: Tables,
    iou_thresholds: np.ndarray,
    area_ranges: np.ndarray = EVERY_AREA,
    max_dets: int = NO_LIMIT,
    *,
    rule: Rule = "coco",
    skip_difficult: bool = False,
    relative_areas: bool = False,
    class_agnostic: bool = False,
    plus_one: bool = False,
    oriented: bool | None = None,
) -> Matching:
    """Match every detection to the truth of its image and category, best score first.

    Upright boxes are compared as they stand; where any box of either table has an angle, all are compared as
    oriented ones.

    Args:
        truth: the tables judged against.
        predictions: tables over the same images and categories, see `align`.
        iou_thresholds: (T,).
        area_ranges: (A, 2) least and greatest area, both inclusive.
        max_dets: detections kept an image and category, best first.
        rule: "coco" (COCOeval.evaluateImg: the best free truth at or above the threshold; crowd and ignored
            truth absorbs any number, by intersection over the detection's area; equal scores stand in the
            order of the images) or "voc" (VOCevaldet.m and DOTA's kit: the best truth of all, above the
            threshold, or none; equal scores stand in the order of the table).
        skip_difficult: truth marked difficult doesn't count and takes any number of detections, by IoU.
        relative_areas: areas are shares of the image's, not square pixels.
        class_agnostic: every box is of one category.
        plus_one: sides are one pixel longer, as VOC's and DOTA's kits have them.
        oriented: whether boxes are compared as oriented ones; None: where any of these has an angle.

    Raises:
        DataError: the tables aren't over the same images and categories, or `relative_areas` where an image
            has no size.
    """
    sizes = [(len(t.images), len(t.categories)) for t in (truth, predictions)]
    if sizes[0] != sizes[1]:
        raise DataError(f"{sizes[0]} images and categories beside {sizes[1]}: align the predictions first.")
    angled = any_oriented(truth, predictions) if oriented is None else oriented
    det_w, det_h = (predictions.boxes[c].to_numpy() + plus_one for c in "wh")
    gt_area, det_area = truth.boxes["area"].to_numpy(), det_w * det_h
    if relative_areas:
        gt_area = gt_area / _image_areas(truth, truth.boxes["image_id"].to_numpy())
        det_area = det_area / _image_areas(truth, predictions.boxes["image_id"].to_numpy())
    categories = 1 if class_agnostic else max(len(truth.categories), 1)
    ranges, places = np.asarray(area_ranges, dtype=np.float64), image_places(truth)
    gt = _Sorted(
        truth,
        categories,
        class_agnostic,
        NO_LIMIT,
        places,
        box_columns(truth, angled, plus_one),
        gt_area,
        ranges,
    )
    columns = box_columns(predictions, angled, plus_one)
    det = _Sorted(predictions, categories, class_agnostic, max_dets, places, columns, det_area, ranges)

    flags = truth.boxes.select("crowd", "ignore", "difficult").to_numpy()[gt.row]
    regions = flags[:, 0] | flags[:, 1]
    absorbs = regions | (flags[:, 2] & skip_difficult)
    ignored = gt.outside | absorbs
    thresholds = np.asarray(iou_thresholds, dtype=np.float64)
    if rule == "voc":
        order = np.lexsort((det.row, -det.score, det.category))
    else:
        order = stable_order(det.category, categories, by_score(det.score))
    candidate, matches = _find_matches(rule, det, gt, regions, absorbs, ignored, thresholds)
    return Matching(
        det_row=det.row,
        det_category=det.category,
        det_image=det.image,
        det_rank=det.rank,
        det_score=det.score,
        det_outside=det.outside,
        gt_row=gt.row,
        gt_category=gt.category,
        gt_image=gt.image,
        gt_ignored=ignored,
        order=order,
        starts=det.starts,
        candidate=candidate,
        matches=matches,
        thresholds=thresholds,
        dropped=det.dropped,
        boxes=(det.boxes, gt.boxes),
    )


class _Sorted:
    """The boxes of tables by category, image and descending score, the first `limit` of each group."""

    def __init__(
        self,
        tables: Tables,
        categories: int,
        class_agnostic: bool,
        limit: int,
        places,
        columns,
        areas,
        ranges,
    ):
        boxes = tables.boxes
        image, category = (
            places[boxes["image_id"].to_numpy()],
            boxes["category_id"].to_numpy().astype(np.int64),
        )
        if class_agnostic:
            category = np.zeros_like(category)
        score = boxes["score"].fill_null(0.0).to_numpy()
        images = max(len(tables.images), 1)
        row = stable_order(image, images, by_score(score))
        row = stable_order(category, categories, row)
        group = category[row] * images + image[row]
        first = np.flatnonzero(np.diff(group, prepend=-1))  # of each image and category
        rank = (np.arange(len(row)) - np.repeat(first, np.diff(first, append=len(row)))).astype(np.int32)
        kept = rank < limit
        self.dropped = len(kept) - int(np.count_nonzero(kept))
        if self.dropped:
            row, rank, group = row[kept], rank[kept], group[kept]
        self.row, self.rank, self.group = row, rank, group
        self.category, self.image = category[row], image[row]
        self.starts = np.searchsorted(self.category, np.arange(categories + 1))
        self.boxes = np.empty((len(row), len(columns)))
        for n, column in enumerate(columns):
            self.boxes[:, n] = column[row]
        own = areas[row]
        self.outside = (own < ranges[:, :1]) | (own > ranges[:, 1:])
        self.score = score[row]


def by_score(score: np.ndarray) -> np.ndarray:
    """Places by descending score, stable."""
    return np.argsort(-score, kind="stable")


def stable_order(key: np.ndarray, keys: int, rows: np.ndarray) -> np.ndarray:
    """`rows` by their key of 0 to `keys`, stable; of 16 bits, where these do, NumPy's radix sort takes it."""
    own = key[rows]
    return rows[np.argsort(own.astype(np.uint16) if keys <= 1 << 16 else own, kind="stable")]


def _ranges(queries: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) first and last + 1 of the sorted `groups` that are each of the sorted `queries`."""
    at = np.flatnonzero(np.diff(queries, prepend=-1))
    repeats = np.diff(at, append=len(queries))
    begin, end = (np.searchsorted(groups, queries[at], side) for side in ("left", "right"))
    return np.repeat(begin, repeats), np.repeat(end, repeats)


def _find_matches(rule, det: _Sorted, gt: _Sorted, regions, absorbs, ignored, thresholds):
    """(D,) candidate and (C, A, T) matches of `Matching`."""
    if rule == "voc":
        regions = np.zeros_like(regions)
    dets, gts, starts = prepare(det.boxes), prepare(gt.boxes), det.starts
    begin, end = _ranges(det.group, gt.group)
    overlaps = np.zeros(len(dets), dtype=bool)
    least = min(thresholds.min(), 1 - 1e-10)
    in_parts(
        starts,
        lambda first, last: kernels.find_candidates(
            dets, gts, regions, begin, end, least, starts[first], starts[last], overlaps
        ),
    )
    rows = np.flatnonzero(overlaps)
    candidate = np.full(len(dets), -1, dtype=np.int32)
    candidate[rows] = np.arange(len(rows), dtype=np.int32)
    matches = np.full((len(rows), len(ignored), len(thresholds)), -1, dtype=np.int32)
    row_starts = np.searchsorted(rows, starts)

    def match_part(first: int, last: int) -> None:
        part = (rows, row_starts[first], row_starts[last], matches)
        if rule == "voc":
            kernels.match_voc(dets, gts, ignored, begin, end, thresholds, *part)
        else:
            kernels.match_coco(dets, gts, regions, absorbs, ignored, begin, end, thresholds, *part)

    in_parts(starts, match_part)
    return candidate, matches


def in_parts(starts: np.ndarray, work: Callable[[int, int], None]) -> None:
    """Call `work(first, last)` in threads, for parts of the categories with about equally many detections."""
    categories, total = len(starts) - 1, int(starts[-1])
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if total < FEW or categories < 2 or threads == 1:
        work(0, categories)
        return
    edges = np.searchsorted(starts, np.linspace(0, total, 4 * threads + 1)[1:-1])
    edges = np.unique([0, *edges.tolist(), categories])
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, int(a), int(b)) for a, b in pairwise(edges)]:
            done.result()


def image_places(truth: Tables) -> np.ndarray:
    """(I,) place of each image by its source's id, which decides between equal scores as in pycocotools; the
    rows' own order where an image has no such id."""
    ids = truth.images["source_id"]
    if ids.null_count():
        return np.arange(len(ids))
    places = np.empty(len(ids), dtype=np.int64)
    places[np.argsort(ids.to_numpy(), kind="stable")] = np.arange(len(ids))
    return places


def any_oriented(*tables: Tables) -> bool:
    """Whether any box has an angle; then all are compared as oriented ones."""
    return not all(t.boxes["angle"].is_null().all() for t in tables)


def box_columns(tables: Tables, oriented: bool, plus_one: bool = False) -> list[np.ndarray]:
    """The boxes as `geometry.iou` takes them, by column: xywh, or cxcywh and angle where `oriented`."""
    x, y, w, h = (tables.boxes[c].to_numpy() for c in "xywh")
    if plus_one:
        w, h = w + 1, h + 1
    if not oriented:
        return [x, y, w, h]
    return [x + w / 2, y + h / 2, w, h, tables.boxes["angle"].fill_null(0.0).to_numpy()]


def _image_areas(truth: Tables, image: np.ndarray) -> np.ndarray:
    sizes = truth.images.select("width", "height")
    if sizes.null_count().sum_horizontal().item():
        raise DataError("areas relative to the image need the size of every image; some are unknown.")
    width, height = (sizes[c].to_numpy().astype(np.float64) for c in ("width", "height"))
    return (width * height)[image]
