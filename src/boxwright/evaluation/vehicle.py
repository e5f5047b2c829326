"""How far the sides of a found vehicle lie from where they should, along its own axes."""

from typing import Any

import numpy as np

from boxwright.data.tables import Tables
from boxwright.evaluation.matching import match
from boxwright.evaluation.reading import Curves, Reading
from boxwright.evaluation.slices import SIZE_EDGES, size_names

ERRORS = ("left", "right", "head", "back", "heading")
PERCENTILES = (5, 50, 95)


def vehicle(
    truth: Tables,
    predictions: Tables,
    iou: float = 0.5,
    metres_per_pixel: float | None = None,
    directed: bool = False,
) -> Reading:
    """Errors of the four bounds and of the heading over true positives, by class and by size.

    The width lies along the heading. A bound's error is how far the middle of that side of the detection lies
    outside the truth's side (inside: negative), along the truth's axis; left and right are as seen in the
    heading. The heading's error is in degrees, clockwise positive.

    Args:
        truth, predictions: aligned tables.
        iou: from which a detection is true.
        metres_per_pixel: bounds are given in metres; None: in pixels.
        directed: front and back are told apart, and a heading may be wrong by up to 180 degrees; else by up
            to 90, and front means the end that lies nearer the truth's.
    """
    matching = match(truth, predictions, np.array([iou]))
    hit = np.flatnonzero(matching.outcomes()[0])
    gt = matching.found()[hit]
    boxes = [_oriented(b) for b in (matching.boxes[0][hit], matching.boxes[1][gt])]
    errors = bound_errors(*boxes, directed=directed)
    errors[:, :4] *= metres_per_pixel or 1.0
    unit = "px" if metres_per_pixel is None else "m"
    category = matching.gt_category[gt]
    area = truth.boxes["area"].to_numpy()[matching.gt_row[gt]]
    size = np.digitize(area, SIZE_EDGES)
    rows: list[dict[str, Any]] = []
    groups = [(name, category == k) for k, name in enumerate(truth.categories["name"])]
    groups += [(name, size == n) for n, name in enumerate(size_names())]
    for name, members in groups:
        for n, error in enumerate(ERRORS):
            values = errors[members, n]
            spread = np.percentile(values, PERCENTILES) if len(values) else [None] * len(PERCENTILES)
            rows.append(
                {"group": name, "error": error, "unit": "deg" if error == "heading" else unit}
                | {"count": len(values), "mean": float(values.mean()) if len(values) else None}
                | {"std": float(values.std()) if len(values) else None}
                | {f"{p} %": None if v is None else float(v) for p, v in zip(PERCENTILES, spread)}
            )
    overall = {f"mean |{e}|": float(np.abs(errors[:, n]).mean()) if len(errors) else None
               for n, e in enumerate(ERRORS)}  # fmt: skip
    return Reading(
        title=f"Bounds in {unit} and heading in degrees of {len(hit):,} true positives, IoU {iou:g}",
        overall=overall,
        rows=rows,
        curves={
            "Bounds": Curves(f"error, {unit}", "share", _histograms(errors[:, :4], ERRORS[:4])),
            "Heading": Curves("error, degrees", "share", _histograms(errors[:, 4:], ERRORS[4:])),
        },
    )


def bound_errors(found: np.ndarray, truth: np.ndarray, directed: bool = False) -> np.ndarray:
    """Errors (N, 5) in the order of ERRORS of boxes (N, 5) cxcywh and angle; pixels and degrees."""
    turn = found[:, 4] - truth[:, 4]
    half = np.pi if not directed else 2 * np.pi
    heading = (turn + half / 2) % half - half / 2
    dx, dy = found[:, 0] - truth[:, 0], found[:, 1] - truth[:, 1]
    cos, sin = np.cos(truth[:, 4]), np.sin(truth[:, 4])
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    # Half sides of the detection on the axes of the truth; for a heading the wrong way round they swap.
    reach, spread = found[:, 2] / 2 * np.cos(heading), found[:, 3] / 2 * np.cos(heading)
    half_w, half_h = truth[:, 2] / 2, truth[:, 3] / 2
    return np.column_stack(
        [
            np.abs(spread) - across - half_h,
            np.abs(spread) + across - half_h,
            along + np.abs(reach) - half_w,
            np.abs(reach) - along - half_w,
            np.degrees(heading),
        ]
    )


def _oriented(boxes: np.ndarray) -> np.ndarray:
    if boxes.shape[1] == 5:
        return boxes
    return np.column_stack([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:], np.zeros(len(boxes))])


def _histograms(errors: np.ndarray, names: tuple[str, ...]) -> dict[str, tuple[list[float], list[float]]]:
    if len(errors) == 0:
        return {}
    limit = max(float(np.percentile(np.abs(errors), 99)), 1e-6)
    edges = np.linspace(-limit, limit, 42)
    middle = ((edges[1:] + edges[:-1]) / 2).tolist()
    shares = (np.histogram(errors[:, n], edges)[0] / len(errors) for n in range(len(names)))
    return {name: (middle, share.tolist()) for name, share in zip(names, shares)}
