"""How far AP could go, and how fast it falls: its upper bound, and what moved boxes do to it."""

import numpy as np
import polars as pl

from boxwright.data.tables import BOX_SCHEMA, Tables
from boxwright.evaluation import coco
from boxwright.evaluation.matching import match
from boxwright.evaluation.reading import Curves, Reading

SHIFTS = np.array([-0.3, -0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2, 0.3])  # of the side
SCALES = np.array([0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3])
ANGLES = np.array([-20.0, -10.0, -5.0, -2.0, 0.0, 2.0, 5.0, 10.0, 20.0])  # degrees


def upper_bound(truth: Tables, predictions: Tables, iou: float = 0.5, max_dets: int = 100) -> Reading:
    """AP of the truth's own boxes, each with the class and score of the best detection upon it.

    What is left below 1 is classification and recall; what lies between AP and it is localisation,
    duplicates and false positives. A truth without a detection of IoU >= `iou`, of any class, stays missed.

    Source: after Borji and Iranmanesh, Empirical Upper Bound in Object Detection, 2019, section 3.
    """
    matching = match(truth, predictions, np.array([iou]), class_agnostic=True, rule="coco")
    found = matching.found()
    rows = np.flatnonzero((found >= 0) & ~np.append(matching.gt_ignored[0], False)[found])
    gt_row, det_row = matching.gt_row[found[rows]], matching.det_row[rows]
    score, category = (predictions.boxes[c].gather(det_row) for c in ("score", "category_id"))
    perfect = truth.boxes[gt_row].with_columns(score=score, category_id=category)
    best = average_precisions(truth, predictions.with_boxes(perfect.select(list(BOX_SCHEMA))), max_dets)
    now = average_precisions(truth, predictions, max_dets)
    return Reading(
        title="Upper bound of AP",
        overall={f"{name} bound": best[name] for name in best} | {f"{n} now": now[n] for n in now},
        source="after Borji and Iranmanesh, Empirical Upper Bound in Object Detection, 2019",
    )


def sensitivity(truth: Tables, predictions: Tables, max_dets: int = 100) -> Reading:
    """AP when every predicted box is shifted along or across its heading, scaled, or rotated by one amount.

    A curve that rises away from zero tells of a detector that is systematically off: `calibrate` mends it.
    """
    oriented = not predictions.boxes["angle"].is_null().all()
    changes = {
        "shift along": ("shift, share of the width", SHIFTS, lambda v: {"along": v}),
        "shift across": ("shift, share of the height", SHIFTS, lambda v: {"across": v}),
        "scale": ("factor of both sides", SCALES, lambda v: {"width": v, "height": v}),
    }
    if oriented:
        changes["angle"] = ("turn, degrees", ANGLES, lambda v: {"turn": np.radians(v)})
    rows, curves = [], {}
    for name, (axis, values, change) in changes.items():
        aps = [average_precisions(truth, moved(predictions, **change(v)), max_dets) for v in values]
        rows += [{"change": name, "by": float(v)} | ap for v, ap in zip(values, aps)]
        lines = {key: (values.tolist(), [ap[key] or 0.0 for ap in aps]) for key in aps[0]}
        curves[f"AP after a {name}"] = Curves(axis, "AP", lines)
    now = next(row for row in rows if row["by"] == 0)
    best = max(rows, key=lambda row: row["AP"] or 0.0)
    return Reading(
        title="Sensitivity of AP to moved boxes",
        overall={"AP": now["AP"], "best AP": best["AP"]},
        rows=rows,
        curves=curves,
        notes=[f"AP is best after a {best['change']} of {best['by']:g}."] if best["AP"] != now["AP"] else [],
    )


def moved(
    tables: Tables,
    along: float = 0.0,
    across: float = 0.0,
    width: float | np.ndarray = 1.0,
    height: float | np.ndarray = 1.0,
    turn: float | np.ndarray = 0.0,
) -> Tables:
    """Boxes shifted by shares of their sides along and across the heading, scaled about their centre,
    rotated.

    Args:
        tables: stays as it is.
        along, across: shares of the width and height.
        width, height: factors, one or (N,).
        turn: radians, one or (N,).
    """
    x, y, w, h = (tables.boxes[c].to_numpy() for c in "xywh")
    angle = tables.boxes["angle"].fill_null(0.0).to_numpy()
    cos, sin = np.cos(angle), np.sin(angle)
    cx = x + w / 2 + along * w * cos - across * h * sin
    cy = y + h / 2 + along * w * sin + across * h * cos
    new_w, new_h = w * width, h * height
    columns = {"x": cx - new_w / 2, "y": cy - new_h / 2, "w": new_w, "h": new_h, "area": new_w * new_h}
    boxes = tables.boxes.with_columns(**{c: pl.Series(c, v, dtype=pl.Float64) for c, v in columns.items()})
    if np.any(turn):
        boxes = boxes.with_columns(angle=pl.Series(angle + turn, dtype=pl.Float64))
    return tables.with_boxes(boxes)


def average_precisions(
    truth: Tables, predictions: Tables, max_dets: int, iou_thresholds: np.ndarray = coco.IOU_THRESHOLDS
) -> dict[str, float | None]:
    """COCO's AP, and AP50 (or that at the least of other thresholds)."""
    matching = match(truth, predictions, iou_thresholds, max_dets=max_dets)
    precision = coco.precision_recall(matching, (max_dets,)).precision
    values = {"AP": coco.mean_where_defined(precision), "AP50": coco.mean_where_defined(precision[0])}
    return {name: None if value < 0 else value for name, value in values.items()}
