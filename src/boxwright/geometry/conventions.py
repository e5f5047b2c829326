"""The spellings of an oriented rectangle that toolboxes and formats use, from and to ours.

Ours is cx, cy, w, h in pixels and an angle in radians, positive from x towards y (clockwise on the screen),
not limited to a range. One rectangle has many spellings: half a turn changes nothing, a quarter turn
exchanges width and height.
"""

from dataclasses import dataclass

import numpy as np

from boxwright.errors import ConfigError

QUARTER = np.pi / 2


@dataclass(frozen=True)
class Convention:
    """How a toolbox spells a rectangle.

    Attributes:
        start: of the range of its angles, in radians of its own sense of turning; None: any angle.
        closed_above: the range holds its upper end, not its lower one.
        long_edge: the width is the longer side and the range half a turn; else the range is a quarter turn
            and either side may be longer.
        degrees: angles are in degrees.
        sign: -1 where angles count against the clock.
    """

    start: float | None = None
    closed_above: bool = False
    long_edge: bool = False
    degrees: bool = False
    sign: int = 1


CONVENTIONS = {
    "radians": Convention(),
    "degrees": Convention(degrees=True),
    "radians-ccw": Convention(sign=-1),
    "degrees-ccw": Convention(degrees=True, sign=-1),
    "le90": Convention(-QUARTER, long_edge=True),  # mmrotate, [-pi/2, pi/2)
    "le135": Convention(-QUARTER / 2, long_edge=True),  # mmrotate, [-pi/4, 3 pi/4)
    "oc": Convention(0.0, closed_above=True),  # mmrotate, (0, pi/2]
    "opencv-new": Convention(0.0, closed_above=True, degrees=True),  # minAreaRect of 4.5.1 to 4.12
    "opencv-old": Convention(-QUARTER, degrees=True),  # minAreaRect before 4.5.1 and from 4.13
    "torchvision": Convention(degrees=True, sign=-1),  # cxcywhr
    "detectron2": Convention(degrees=True, sign=-1),
    "ultralytics": Convention(0.0),  # regularize_rboxes, [0, pi/2)
}


def to_convention(boxes: np.ndarray, name: str) -> np.ndarray:
    """Our boxes (N, 5) in another spelling.

    Raises:
        ConfigError: a convention we don't know.
    """
    convention = _find(name)
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 5)
    if convention.start is not None:
        boxes = respell(boxes, convention.start, convention.long_edge, convention.closed_above)
    boxes[:, 4] *= convention.sign
    if convention.degrees:
        boxes[:, 4] = np.degrees(boxes[:, 4])
    return boxes


def from_convention(boxes: np.ndarray, name: str) -> np.ndarray:
    """Boxes (N, 5) of another spelling as ours. Angles outside its range are taken as they stand.

    Raises:
        ConfigError: a convention we don't know.
    """
    convention = _find(name)
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 5)
    if convention.degrees:
        boxes[:, 4] = np.radians(boxes[:, 4])
    boxes[:, 4] *= convention.sign
    return boxes


def respell(
    boxes: np.ndarray, start: float = -QUARTER, long_edge: bool = True, closed_above: bool = False
) -> np.ndarray:
    """The same rectangles (N, 5) with angles in the range from `start`; see `Convention`."""
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 5)
    width, height, angle = boxes[:, 2].copy(), boxes[:, 3].copy(), boxes[:, 4].copy()
    period = np.pi if long_edge else QUARTER
    if long_edge:
        swapped = width < height
        angle = np.where(swapped, angle + QUARTER, angle)
    turns = np.ceil((angle - start) / period) - 1 if closed_above else np.floor((angle - start) / period)
    angle = angle - turns * period
    # Rounding may leave an angle on the wrong side of an end.
    low, high = (angle <= start, angle > start + period) if closed_above else (
        angle < start, angle >= start + period)  # fmt: skip
    angle, turns = angle + period * low - period * high, turns - low + high
    if not long_edge:
        swapped = turns % 2 == 1
    boxes[:, 2], boxes[:, 3] = np.where(swapped, height, width), np.where(swapped, width, height)
    boxes[:, 4] = angle
    return boxes


def respell_like(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The same rectangles (N, 5), spelled so that each angle is within an eighth turn of another's (N, 5)."""
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 5)
    turns = np.round((np.asarray(others)[:, 4] - boxes[:, 4]) / QUARTER)
    swapped = turns % 2 == 1
    boxes[swapped, 2:4] = boxes[swapped, 3:1:-1]
    boxes[:, 4] += turns * QUARTER
    return boxes


def corners(boxes: np.ndarray) -> np.ndarray:
    """Corners (N, 4, 2) of (N, 5), from the top-left one of the box before rotation, clockwise."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 5)
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    u = np.stack([cos, sin], axis=1) * boxes[:, 2:3] / 2
    v = np.stack([-sin, cos], axis=1) * boxes[:, 3:4] / 2
    center = boxes[:, :2]
    return np.stack([center - u - v, center + u - v, center + u + v, center - u + v], axis=1)


def from_corners(points: np.ndarray) -> np.ndarray:
    """Rectangles (N, 5) of corners (N, 4, 2) or (N, 8) in order; the width lies along the first edge.

    Corners that are none of a rectangle give the one with their mean centre, mean opposite sides and mean
    heading; `min_area_rectangle` gives the smallest around them instead.
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, 4, 2)
    along = (points[:, 1] - points[:, 0] + points[:, 2] - points[:, 3]) / 2
    down = (points[:, 3] - points[:, 0] + points[:, 2] - points[:, 1]) / 2
    angle = np.arctan2(along[:, 1], along[:, 0])
    width, height = np.hypot(along[:, 0], along[:, 1]), np.hypot(down[:, 0], down[:, 1])
    return np.column_stack([points.mean(axis=1), width, height, angle])


def min_area_rectangle(points: np.ndarray) -> np.ndarray:
    """The smallest rectangle (5,) around points (K, 2), K > 0, with angle in [-pi/2, pi/2) and w >= h.

    One of its sides lies along an edge of the convex hull (Freeman and Shapira, 1975), so each edge is tried.
    """
    points = np.unique(np.asarray(points, dtype=np.float64).reshape(-1, 2), axis=0)
    origin = points.mean(axis=0)
    hull = _convex_hull(points - origin)
    edges = np.roll(hull, -1, axis=0) - hull
    length = np.hypot(edges[:, 0], edges[:, 1])
    if not (length > 0).any():
        return np.array([*origin, 0.0, 0.0, 0.0])
    along = edges[length > 0] / length[length > 0, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    u, v = hull @ along.T, hull @ across.T  # (K, E)
    width, height = np.ptp(u, axis=0), np.ptp(v, axis=0)
    best = int(np.argmin(width * height))
    middle_u, middle_v = (u[:, best].max() + u[:, best].min()) / 2, (v[:, best].max() + v[:, best].min()) / 2
    center = origin + middle_u * along[best] + middle_v * across[best]
    angle = np.arctan2(along[best, 1], along[best, 0])
    return respell(np.array([[*center, width[best], height[best], angle]]))[0]


def _convex_hull(points: np.ndarray) -> np.ndarray:
    """Corners of the convex hull of distinct points sorted by x, then y (Andrew's monotone chain)."""
    if len(points) < 3:
        return points
    chains = []
    for ordered in (points, points[::-1]):
        chain: list[np.ndarray] = []
        for p in ordered:
            while len(chain) > 1 and _cross(chain[-1] - chain[-2], p - chain[-2]) <= 0:
                chain.pop()
            chain.append(p)
        chains += chain[:-1]
    return np.array(chains)


def _cross(a: np.ndarray, b: np.ndarray) -> float:
    return float(a[0] * b[1] - a[1] * b[0])


def _find(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise ConfigError(f"convention '{name}', expected one of {', '.join(CONVENTIONS)}.")
    return CONVENTIONS[name]
