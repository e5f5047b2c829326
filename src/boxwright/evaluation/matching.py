"""Match predictions to truth once; every metric is a reading of the result."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.geometry.kernels import match_groups


@dataclass(frozen=True)
class Matching:
    """Which truth each detection found, for every area range and IoU threshold.

    Detections are sorted by category, image and descending score (ties in the order of the table), truth
    by category and image. D detections, G truths, A area ranges, T thresholds.

    Attributes:
        det_row: (D,) row in the predictions' box table.
        det_category, det_image: (D,) int64.
        det_rank: (D,) place within image and category, 0 the best score.
        det_score: (D,) float64.
        det_outside: (A, D) bool, its area lies outside the range.
        gt_row, gt_category, gt_image: (G,) of the truth.
        gt_ignored: (A, G) bool, doesn't count.
        matched: (A, T, D) int32, index into the truth's order, -1 for none.
        dropped: detections beyond `max_dets` in an image and category, left out of the match.
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
    matched: np.ndarray
    dropped: int

    def ignored(self) -> np.ndarray:
        """(A, T, D) bool: neither true nor false positive."""
        return _ignored(self.matched, self.gt_ignored, self.det_outside)


def match(
    truth: Tables,
    predictions: Tables,
    iou_thresholds: np.ndarray,
    area_ranges: np.ndarray,
    max_dets: int,
) -> Matching:
    """Match by COCO's rule (pycocotools.cocoeval.COCOeval.evaluateImg).

    Crowd and ignored truth absorbs any number of detections, by intersection over the detection's area.

    Args:
        truth: the tables judged against.
        predictions: tables over the same images and categories, see `align`.
        iou_thresholds: (T,).
        area_ranges: (A, 2) least and greatest area in square pixels, both inclusive.
        max_dets: detections kept an image and category, best first.
    """
    categories = max(len(truth.categories), 1)
    groups = len(truth.images) * categories
    gts, gt_group = _sorted_by_group(truth)
    dets, det_group = _sorted_by_group(predictions)
    rank = np.arange(len(dets)) - np.searchsorted(det_group, det_group)
    kept = rank < max_dets
    dropped = int((~kept).sum())
    dets, det_group, rank = dets.filter(kept), det_group[kept], rank[kept]

    absorbs = (gts["crowd"] | gts["ignore"]).to_numpy()
    gt_area = gts["area"].to_numpy()
    det_xywh = _xywh(dets)
    det_area = det_xywh[:, 2] * det_xywh[:, 3]
    low, high = area_ranges[:, :1], area_ranges[:, 1:]
    gt_ignored = absorbs | (gt_area < low) | (gt_area > high)
    matched = np.full((len(area_ranges), len(iou_thresholds), len(dets)), -1, dtype=np.int32)
    boundaries = np.arange(groups + 1)
    match_groups(
        det_xywh,
        np.searchsorted(det_group, boundaries),
        _xywh(gts),
        np.searchsorted(gt_group, boundaries),
        absorbs,
        gt_ignored,
        iou_thresholds,
        matched,
    )
    return Matching(
        det_row=dets["row"].to_numpy(),
        det_category=dets["category_id"].to_numpy(),
        det_image=dets["image_id"].to_numpy(),
        det_rank=rank,
        det_score=dets["score"].to_numpy(),
        det_outside=(det_area < low) | (det_area > high),
        gt_row=gts["row"].to_numpy(),
        gt_category=gts["category_id"].to_numpy(),
        gt_image=gts["image_id"].to_numpy(),
        gt_ignored=gt_ignored,
        matched=matched,
        dropped=dropped,
    )


def align(truth: Tables, predictions: Tables) -> Tables:
    """The predictions over the truth's images and categories.

    Images are joined by file name where both have names, else by the id of their source; categories by
    name, else by the id of their source.

    Raises:
        DataError: a prediction is for an image or a category that the truth doesn't have, or has no score.
    """
    if predictions.boxes["score"].null_count():
        count = predictions.boxes["score"].null_count()
        raise DataError(f"{count:,} of the predicted boxes have no score; is this truth?")
    image_of = _join(truth.images, predictions.images, "file_name", "image")
    category_of = _join(truth.categories, predictions.categories, "name", "category")
    boxes = predictions.boxes
    image_id, category_id = (
        image_of[boxes["image_id"].to_numpy()],
        category_of[boxes["category_id"].to_numpy()],
    )
    for what, ids, table, key in (
        ("image", image_id, predictions.images, "file_name"),
        ("category", category_id, predictions.categories, "name"),
    ):
        if (ids < 0).any():
            row = int(np.flatnonzero(ids < 0)[0])
            own = table.row(int(boxes[f"{what}_id"][row]), named=True)
            name = own[key] if own[key] is not None else own["source_id"]
            raise DataError(
                f"{int((ids < 0).sum()):,} predictions are for an {what} that the truth doesn't have, "
                f"first '{name}' (of {predictions.boxes['source'][row]})."
            )
    columns = {
        "image_id": pl.Series(image_id, dtype=pl.Int64),
        "category_id": pl.Series(category_id, dtype=pl.Int32),
    }
    return Tables(truth.images, boxes.with_columns(**columns), truth.categories, predictions.faults)


def _join(truth: pl.DataFrame, predictions: pl.DataFrame, key: str, what: str) -> np.ndarray:
    """(rows of `predictions`,) row of `truth` or -1."""
    named = truth[key].null_count() == 0 and predictions[key].null_count() == 0
    # Results alone hold ids where names would be; then the ids speak.
    if (
        named
        and what == "category"
        and predictions["name"].to_list() == [str(i) for i in predictions["source_id"]]
    ):
        named = truth["name"].to_list() == predictions["name"].to_list()
    column = key if named else "source_id"
    if truth[column].null_count() == 0 and truth[column].n_unique() < len(truth):
        repeated = truth.filter(truth[column].is_duplicated())[column][0]
        raise DataError(
            f"two {what} rows of the truth are both '{repeated}'; predictions can't be told apart."
        )
    row_of = {value: n for n, value in enumerate(truth[column]) if value is not None}
    return np.array([row_of.get(v, -1) for v in predictions[column]], dtype=np.int64)


def _sorted_by_group(tables: Tables) -> tuple[pl.DataFrame, np.ndarray]:
    """Boxes as upright hulls with their row, by category, image and descending score, and their group."""
    boxes = tables.boxes
    category, image = boxes["category_id"].to_numpy().astype(np.int64), boxes["image_id"].to_numpy()
    group = category * len(tables.images) + image
    score = boxes["score"].fill_null(0.0).to_numpy()
    order = np.lexsort((-score, group))
    hulls = {c: pl.Series(c, column) for c, column in zip("xywh", tables.upright().T)}
    return boxes.with_columns(**hulls).with_row_index("row")[order], group[order]


def _xywh(boxes: pl.DataFrame) -> np.ndarray:
    return np.ascontiguousarray(boxes.select("x", "y", "w", "h").to_numpy(), dtype=np.float64)


def _ignored(matched: np.ndarray, gt_ignored: np.ndarray, det_outside: np.ndarray) -> np.ndarray:
    result = np.empty(matched.shape, dtype=bool)
    for a in range(len(matched)):
        # A column of False stands behind the truth for index -1.
        flags = np.append(gt_ignored[a], False)
        result[a] = np.where(matched[a] >= 0, flags[matched[a]], det_outside[a])
    return result
