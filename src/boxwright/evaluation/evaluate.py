"""`boxwright.evaluate`: two tables in, COCO's numbers out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, Fault
from boxwright.evaluation import coco
from boxwright.evaluation.coco import PrecisionRecall
from boxwright.evaluation.matching import Matching, any_oriented, match
from boxwright.evaluation.pairing import UNSEEN, notes_on, read_pair

DEFAULT_MAX_DETS = (1, 10, 100)
BARE = 0.05  # of the images with objects, those without a detection that are worth a word


@dataclass(frozen=True)
class Numbers:
    """COCO's numbers of one model.

    Attributes:
        coco: the twelve numbers by name; -1 where there is no truth for one.
        per_class: a dict a category: id (of the source where it has one), name, truth, detections, AP,
            AP50, AP75 (None: no truth).
        ap_by_iou: AP at each IoU threshold, by the threshold.
        curves: precision over recall, of every category.
        max_dets: the limits of detections an image and category.
        notes: what the reader should know before believing a number.
    """

    coco: dict[str, float]
    per_class: list[dict[str, Any]]
    ap_by_iou: dict[float, float]
    curves: PrecisionRecall
    max_dets: tuple[int, ...]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain values: `coco`, `per_class` (by id), `ap_by_iou`, `notes`."""
        return {
            "coco": self.coco,
            "per_class": {str(c["id"]): {k: v for k, v in c.items() if k != "id"} for c in self.per_class},
            "ap_by_iou": {f"{t:.2f}": ap for t, ap in self.ap_by_iou.items()},
            "notes": self.notes,
        }


@dataclass(frozen=True)
class Evaluation(Numbers):
    """What `evaluate` found.

    Attributes:
        matching: the match all this was read from.
        truth, predictions: the aligned tables.
    """

    matching: Matching
    truth: Tables
    predictions: Tables


def evaluate(
    truth: Tables | str | os.PathLike,
    predictions: Tables | str | os.PathLike,
    max_dets: tuple[int, ...] = DEFAULT_MAX_DETS,
    calibration: str | os.PathLike | None = None,
    iou_thresholds: Sequence[float] | None = None,
    area_edges: tuple[float, float] = coco.AREA_EDGES,
    relative_areas: bool = False,
    class_agnostic: bool = False,
) -> Evaluation:
    """Judge predictions by COCO's metric, as pycocotools computes it; oriented boxes by their own IoU.

    Args:
        truth: tables or a path in any known format.
        predictions: tables or a path; COCO results use the truth's ids.
        max_dets: limits of detections an image and category, ascending. AR is given for each, AP for the
            last.
        calibration: a file of `calibrate`, applied to the predictions first.
        iou_thresholds: the grid of AP; None: 0.50:0.05:0.95.
        area_edges: small is up to the first, large from the second; px^2.
        relative_areas: areas and edges are shares of the image instead.
        class_agnostic: a box is right whatever its class.

    Raises:
        DataError: a file can't be read, or the two don't belong together.
        ConfigError: `max_dets` isn't ascending and positive, or a grid or edges that can't be meant.

    Example:
        >>> boxwright.evaluate("truth.json", "predictions.parquet").coco["AP50"]
    """
    grid = checked_grid(max_dets, iou_thresholds, area_edges)
    truth, predictions = read_pair(truth, predictions, calibration)
    matching = match(
        truth, predictions, grid, coco.area_ranges(area_edges), max_dets[-1],
        relative_areas=relative_areas, class_agnostic=class_agnostic,
    )  # fmt: skip
    curves = coco.precision_recall(matching, max_dets)
    upright = len(predictions.boxes) > 0 and not any_oriented(predictions)
    notes = notes_of(truth, predictions.faults, upright, matching.dropped, max_dets)
    if not any(fault.code == UNSEEN for fault in predictions.faults):
        notes += _note_on_bare_images(truth, predictions)
    return Evaluation(
        **numbers_of(truth, curves, np.diff(matching.starts), max_dets, grid),
        notes=notes,
        matching=matching,
        truth=truth,
        predictions=predictions,
    )


def checked_grid(
    max_dets: tuple[int, ...], iou_thresholds: Sequence[float] | None, area_edges: tuple[float, float]
) -> np.ndarray:
    """The IoU thresholds, once all three arguments of `evaluate` are seen to be meant.

    Raises:
        ConfigError: they aren't.
    """
    if not max_dets or list(max_dets) != sorted(set(max_dets)) or max_dets[0] < 1:
        raise ConfigError(f"max_dets is {max_dets}, expected ascending positive numbers.")
    grid = coco.IOU_THRESHOLDS if iou_thresholds is None else np.asarray(iou_thresholds, dtype=np.float64)
    if grid.ndim != 1 or len(grid) == 0 or (np.diff(grid) <= 0).any() or grid[0] <= 0 or grid[-1] > 1:
        raise ConfigError(f"IoU thresholds {grid.tolist()}, expected ascending numbers in (0, 1].")
    if not 0 < area_edges[0] < area_edges[1]:
        raise ConfigError(f"area edges {area_edges}, expected two ascending positive numbers.")
    return grid


def numbers_of(
    truth: Tables,
    curves: PrecisionRecall,
    detections: np.ndarray,
    max_dets: tuple[int, ...],
    grid: np.ndarray,
) -> dict[str, Any]:
    """The fields of `Numbers` that are read from curves; `detections` (K,) of each category."""
    overall = curves.precision[:, :, :, coco.ALL]
    return {
        "coco": coco.summary(curves, max_dets, grid),
        "per_class": _per_class(truth, detections, curves, grid),
        "ap_by_iou": {round(float(t), 4): coco.mean_where_defined(overall[i]) for i, t in enumerate(grid)},
        "curves": curves,
        "max_dets": max_dets,
    }


def _per_class(
    truth: Tables, detections: np.ndarray, curves: PrecisionRecall, grid: np.ndarray
) -> list[dict[str, Any]]:
    categories = truth.categories.to_dicts()
    if len(detections) != len(categories):
        categories = [{"category_id": 0, "source_id": None, "name": "any class"}]
    rows = []
    for row in categories if len(truth.categories) else []:
        k = row["category_id"]
        precision = curves.precision[:, :, k, coco.ALL]
        count = int(curves.truth_count[k, coco.ALL])
        numbers = {"AP": precision}
        numbers |= {name: precision[t] for name, t in coco.single_thresholds(grid)}
        rows.append(
            {
                "id": k if row["source_id"] is None else row["source_id"],
                "name": row["name"],
                "truth": count,
                "detections": int(detections[k]),
                **{n: coco.mean_where_defined(p) if count else None for n, p in numbers.items()},
            }
        )
    return rows


def _note_on_bare_images(truth: Tables, predictions: Tables) -> list[str]:
    """Results don't say which images were looked at; many with objects and no detection were perhaps not."""
    shown = truth.boxes.filter(~truth.boxes["crowd"] & ~truth.boxes["ignore"])["image_id"].unique()
    bare = int((~shown.is_in(predictions.boxes["image_id"].unique().implode())).sum())
    if bare <= BARE * len(shown):
        return []
    return [f"{bare:,} of {len(shown):,} images with objects have no detection: were all of them predicted?"]


def notes_of(
    truth: Tables, faults: Sequence[Fault], upright: bool, dropped: int, max_dets: tuple[int, ...]
) -> list[str]:
    """What the reader should know.

    Args:
        truth: of all images.
        faults: of the predictions.
        upright: there are predictions, and none of them has an angle.
        dropped: detections beyond the last of `max_dets`.
    """
    notes = notes_on(faults)
    for name, own in (("truth", truth.faults), ("predictions", faults)):
        left_out = [f for f in own if f.dropped]
        if left_out:
            notes.append(f"{len(left_out):,} records of the {name} were left out, first: {left_out[0]}")
    if upright and any_oriented(truth):
        notes.append(
            "the truth is oriented and no prediction is: upright boxes are compared with oriented "
            "rectangles, not with their hulls."
        )
    if dropped:
        notes.append(
            f"{dropped:,} detections lie beyond the limit of {max_dets[-1]} an image and class and "
            f"were not counted; raise it with --max-detections."
        )
    counted = truth.boxes.filter(~truth.boxes["crowd"] & ~truth.boxes["ignore"])
    if len(counted):
        crowded = int(counted.group_by("image_id", "category_id").len()["len"].to_numpy().max())
        if crowded > max_dets[-1]:
            notes.append(
                f"an image has {crowded:,} boxes of one class, more than the limit of {max_dets[-1]} "
                "detections: full recall can't be reached."
            )
    empty = int((counted["w"] * counted["h"] == 0).sum())
    if empty:
        notes.append(f"{empty:,} boxes of truth have no area: no detection can match them.")
    return notes
