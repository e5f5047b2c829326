"""Oriented boxes as sources spell them: angles of some convention, or four corners.

What contradicts a spelling is reported: angles outside its range, a width that is the shorter side where it
should be the longer one, radians that look like degrees, corners that are none of a rectangle.
"""

import numpy as np
import polars as pl

from boxwright.data.tables import Tables
from boxwright.errors import Fault
from boxwright.geometry.conventions import (
    CONVENTIONS,
    QUARTER,
    corners,
    from_convention,
    from_corners,
    respell,
)

FIT_TOLERANCE = 0.5  # px that corners may move when a rectangle is fitted; whole pixels round by as much
ROUNDING = 1e-3  # of angles in text, radians
FEW = 10  # angles, of which nothing can be guessed


def read_spelled(
    spelled: np.ndarray, places: list[str], convention: str | None, headings: bool = False
) -> tuple[np.ndarray, list[Fault]]:
    """Oriented boxes in our spelling, and what is odd about them.

    Args:
        spelled: (N, 5) cx, cy, w, h, angle.
        places: (N,) where each was read.
        convention: a key of `CONVENTIONS`; None: clockwise, degrees if an angle is no radian, else radians.
        headings: front and back are told apart: angles in [-pi, pi), else in [-pi/2, pi/2).

    Raises:
        ConfigError: an unknown convention.
    """
    angle = np.where(np.isfinite(spelled[:, 4]), spelled[:, 4], 0.0)
    faults = []
    beyond = np.abs(angle) > 2 * np.pi + ROUNDING
    if convention is None:
        convention = "degrees" if beyond.any() else "radians"
        message = (
            f"{len(spelled):,} angles from {angle.min():g} to {angle.max():g} are taken as {convention}, "
            "clockwise on the screen, the width along them; --angles gives another convention."
        )
        faults.append(Fault("angle-convention", "warning", places[0], message))
    boxes = from_convention(spelled, convention)
    kind = CONVENTIONS[convention]
    if kind.degrees and len(angle) >= FEW and (angle % 1 != 0).any() and (np.abs(angle) <= np.pi).all():
        message = f"all {len(angle):,} angles lie within pi of 0: radians, read as {convention}?"
        faults.append(Fault("angle-unit", "warning", places[0], message))
    if not kind.degrees and beyond.any():
        n = int(np.flatnonzero(beyond)[0])
        message = (
            f"{beyond.sum():,} angles are beyond a turn, first {angle[n]:g}: degrees, read as {convention}?"
        )
        faults.append(Fault("angle-unit", "warning", places[n], message))
    if kind.start is not None:
        turn = np.radians(angle) if kind.degrees else angle
        end = kind.start + (2 * QUARTER if kind.long_edge else QUARTER)
        outside = (turn < kind.start - ROUNDING) | (turn > end + ROUNDING)
        faults += _tell(outside, angle, places, "angle-range", f"angles are outside of {convention}'s range")
    if kind.long_edge:
        short = spelled[:, 2] < spelled[:, 3] * (1 - ROUNDING)
        words = f"boxes are narrower along their angle than across, which {convention} never is"
        faults += _tell(short, spelled[:, 2] / np.maximum(spelled[:, 3], 1e-12), places, "angle-side", words)
    boxes[:, 4] = wrap(boxes[:, 4], 2 * np.pi if headings else np.pi)
    boxes[~np.isfinite(spelled[:, 4]), 0] = np.nan  # told with whatever else isn't finite
    return boxes, faults


def fit_rectangles(quads: np.ndarray, places: list[str]) -> tuple[np.ndarray, list[Fault]]:
    """Rectangles (N, 5) of four corners each (N, 8), and how far from rectangles they are.

    What rounding explains gets the rectangle between its corners, anything else the smallest one around them,
    as DOTA's own tools have it. The width lies along the first edge, or next to it.
    """
    damaged = np.flatnonzero(~np.isfinite(quads).all(axis=1))
    points = quads.reshape(-1, 4, 2).copy()
    points[damaged] = 0.0
    boxes = from_corners(points)
    far = fit_error(points, boxes) > FIT_TOLERANCE
    boxes[far] = _smallest(points[far])
    boxes[damaged, 0] = np.nan  # told with whatever else isn't finite
    boxes[:, 4] = wrap(boxes[:, 4], np.pi)
    error = fit_error(points, boxes)
    faults = []
    if far.any():
        n = int(error.argmax())
        message = (
            f"{far.sum():,} of {len(error):,} quadrilaterals are none of a rectangle; one is fitted, and "
            f"corners move by {error[far].mean():.2f} px on average, {error[n]:.2f} px here."
        )
        faults.append(Fault("fitted", "warning", places[n], message))
    return boxes, faults


def fit_error(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) greatest distance in pixels between corners (N, 4, 2) and those of rectangles (N, 5), either way
    round and from whichever corner.
    """
    own = corners(boxes)
    orders = [np.roll(way, k, axis=1) for way in (own, own[:, ::-1]) for k in range(4)]
    return np.min([np.linalg.norm(points - order, axis=2).max(axis=1) for order in orders], axis=0)


def by_longer_side(tables: Tables) -> Tables:
    """The same boxes; the width of those with an angle is their longer side, and headings are lost."""
    cx, cy, w, h, angle = respell(tables.rotated()).T
    spelled = {"x": cx - w / 2, "y": cy - h / 2, "w": w, "h": h, "angle": angle}
    turned = pl.col("angle").is_not_null()
    return tables.with_boxes(
        tables.boxes.with_columns(
            pl.when(turned).then(pl.Series(values)).otherwise(pl.col(name)).alias(name)
            for name, values in spelled.items()
        )
    )


def wrap(angle: np.ndarray | np.float64, period: float) -> np.ndarray:
    """Angles within half a period of 0, its upper end left out; those that are there already stay."""
    half = period / 2
    with np.errstate(invalid="ignore"):
        wrapped = (angle + half) % period - half
        # What is next to nothing below an end rounds up to it.
        wrapped = np.where(wrapped >= half, -half, wrapped)
        return np.where((angle >= -half) & (angle < half), angle, wrapped)


def _smallest(points: np.ndarray) -> np.ndarray:
    """The smallest rectangles (N, 5) around four points each (N, 4, 2).

    One side lies along an edge of the convex hull (Freeman and Shapira, 1975), which joins two of the points.
    """
    first, second = np.triu_indices(4, 1)
    edges = points[:, second] - points[:, first]  # (N, 6, 2)
    angle = np.arctan2(edges[..., 1], edges[..., 0])
    # The spelling nearest to the first edge, by quarter turns.
    start = angle[:, :1]
    angle = angle - np.round((angle - start) / QUARTER) * QUARTER
    along = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # (N, 6, 2)
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    u, v = (np.einsum("nkc,nec->nek", points, axes) for axes in (along, across))  # (N, 6, 4)
    width, height = np.ptp(u, axis=2), np.ptp(v, axis=2)
    best = np.argmin(width * height + np.where((edges == 0).all(-1), np.inf, 0.0), axis=1)
    rows = np.arange(len(points))
    middle = [(p.max(axis=2) + p.min(axis=2))[rows, best, None] / 2 for p in (u, v)]
    center = middle[0] * along[rows, best] + middle[1] * across[rows, best]
    return np.column_stack([center, width[rows, best], height[rows, best], angle[rows, best]])


def _tell(wrong: np.ndarray, values: np.ndarray, places: list[str], code: str, words: str) -> list[Fault]:
    if not wrong.any():
        return []
    n = int(np.flatnonzero(wrong)[0])
    return [
        Fault(code, "warning", places[n], f"{wrong.sum():,} of {len(wrong):,} {words}, first {values[n]:g}.")
    ]
