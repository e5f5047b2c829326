"""What synthetic scenes are made of beside vehicles: ground, roads, car parks, roofs, trees, bridges.

Everything is drawn at `SUPERSAMPLE` times the size. What vehicles may stand on gives places for them.
"""

import math

import cv2
import numpy as np

SUPERSAMPLE = 3
UNIT = 320 * 240  # px of ground that the numbers below are meant for; a larger scene holds as many more


def rectangle(center: np.ndarray, length: float, width: float, angle: float) -> np.ndarray:
    half = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]]) * np.array([length, width]) / 2
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return half @ turn + center


def fill(canvas: np.ndarray, polygon: np.ndarray, color) -> None:
    points = np.rint(polygon * SUPERSAMPLE * 16).astype(np.int32)
    cv2.fillPoly(canvas, [points], tuple(int(c) for c in color), cv2.LINE_AA, shift=4)


def draw_texture(canvas: np.ndarray, rng: np.random.Generator, strength: float) -> None:
    """Soft blotches, as grass and earth have."""
    height, width = canvas.shape[:2]
    coarse = rng.normal(0, strength, (height // 40 + 2, width // 40 + 2)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    canvas[:] = np.clip(canvas + smooth[:, :, None], 0, 255).astype(np.uint8)


def draw_roads(canvas: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> list[tuple]:
    """Two-lane roads across the image; gives places (cx, cy, angle, room) in their lanes."""
    slots = []
    for _ in range(round(rng.integers(1, 3) * _units(size) ** 0.5)):
        angle = rng.uniform(0, math.pi)
        center = np.array(size) * rng.uniform(0.25, 0.75, 2)
        along = np.array([math.cos(angle), math.sin(angle)])
        across = np.array([-along[1], along[0]])
        length, lane = 2 * sum(size), rng.uniform(22, 26)
        fill(
            canvas,
            rectangle(center, length, 2 * lane + 6, angle),
            np.array([96, 96, 100]) + rng.uniform(-14, 14),
        )
        for at in np.arange(-length / 2, length / 2, 24):
            fill(canvas, rectangle(center + along * at, 10, 1.4, angle), (215, 215, 205))
        for side in (-1, 1):
            at = -length / 2 + rng.uniform(0, 40)
            while at < length / 2:
                place = center + along * at + across * side * lane / 2
                heading = angle + (math.pi if side < 0 else 0) + rng.normal(0, 0.04)
                slots.append((*place, heading, 70.0))
                at += rng.uniform(62, 130)
    return slots


def draw_car_park(canvas: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> list[tuple]:
    """Rows of marked bays at some angle; gives places in them, for cars."""
    slots = []
    for _ in range(round(_units(size))):
        if rng.random() >= 0.3:
            slots += draw_bays(canvas, size, rng)
    return slots


def draw_bays(canvas: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> list[tuple]:
    """A car park anywhere; gives places in its bays."""
    angle, center = rng.uniform(0, math.pi), np.array(size) * rng.uniform(0.2, 0.8, 2)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    bays, rows = int(rng.integers(4, 10)), int(rng.integers(1, 4))
    bay, depth, aisle = 17.0, 34.0, 30.0
    extent = rows * (depth + aisle)
    fill(
        canvas,
        rectangle(center, bays * bay + 12, extent + 6, angle),
        np.array([112, 112, 114]) + rng.uniform(-12, 12),
    )
    slots = []
    for row in range(rows):
        across_at = (row + 0.5) * (depth + aisle) - extent / 2
        for n in range(bays + 1):
            middle = center + along * ((n - bays / 2) * bay) + across * across_at
            fill(canvas, rectangle(middle, 1.2, depth, angle), (220, 220, 215))
            if n < bays:
                heading = angle + math.pi / 2 + (math.pi if rng.random() < 0.5 else 0) + rng.normal(0, 0.05)
                slots.append((*(middle + along * bay / 2), heading, 32.0))
    return slots


def draw_roofs(canvas, size, rng: np.random.Generator, shadow: np.ndarray, slots: list[tuple]) -> None:
    """Roofs with skylights and vents, which look like vehicles and aren't; places under them are dropped."""
    for _ in range(round(rng.integers(0, 4) * _units(size))):
        center, angle = np.array(size) * rng.uniform(0, 1, 2), rng.uniform(0, math.pi)
        length, width = rng.uniform(40, 90), rng.uniform(30, 60)
        reach = math.hypot(length, width) / 2 + 32
        if any(math.hypot(s[0] - center[0], s[1] - center[1]) < reach for s in slots):
            continue
        darken(canvas, rectangle(center + shadow * 10, length, width, angle))
        color = rng.choice(np.array([(150.0, 82.0, 66.0), (128.0, 128.0, 132.0), (176.0, 168.0, 154.0)]))
        fill(canvas, rectangle(center, length, width, angle), color)
        along = np.array([math.cos(angle), math.sin(angle)])
        across = np.array([-along[1], along[0]])
        for _ in range(rng.integers(1, 6)):
            at = center + along * rng.uniform(-0.4, 0.4) * length + across * rng.uniform(-0.35, 0.35) * width
            fill(
                canvas,
                rectangle(at, rng.uniform(4, 14), rng.uniform(3, 9), angle),
                color + rng.uniform(-50, 50),
            )


def draw_trees(
    canvas: np.ndarray,
    cover: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
    shadow: np.ndarray,
    vehicles: list[tuple],
    occlusion: float,
) -> None:
    """Round crowns with shadows, beside the vehicles but for some."""
    for _ in range(round(rng.integers(3, 14) * _units(size))):
        center, radius = np.array(size) * rng.uniform(0, 1, 2), rng.uniform(5, 13)
        above = occlusion > 0 and rng.random() < occlusion
        if not above and any(
            math.hypot(v[1] - center[0], v[2] - center[1]) < radius + v[3] / 2 + 8 for v in vehicles
        ):
            continue
        angles = np.linspace(0, 2 * math.pi, 14, endpoint=False)
        spokes = radius * rng.uniform(0.75, 1.1, 14)
        crown = np.stack([np.cos(angles), np.sin(angles)], axis=1) * spokes[:, None]
        darken(canvas, crown + center + shadow * 5)
        green = np.array([52, 82, 44]) + rng.uniform(-16, 16, 3)
        fill(canvas, crown + center, green)
        fill(canvas, crown * 0.55 + center - shadow * 2, green + 18)
        cv2.fillPoly(cover, [np.rint(crown + center).astype(np.int32)], 1)


def draw_bridge(
    canvas: np.ndarray,
    cover: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
    shadow: np.ndarray,
) -> None:
    """A deck over whatever is below, with rails and its shadow."""
    center, angle = np.array(size) * rng.uniform(0.2, 0.8, 2), rng.uniform(0, math.pi)
    length, width = 2.0 * sum(size), rng.uniform(14, 26)
    darken(canvas, rectangle(center + shadow * 9, length, width, angle))
    grey = np.array([128, 126, 122]) + rng.uniform(-14, 14)
    fill(canvas, rectangle(center, length, width, angle), grey)
    across = np.array([-math.sin(angle), math.cos(angle)])
    for side in (-1, 1):
        fill(canvas, rectangle(center + across * side * (width / 2 - 1), length, 1.2, angle), grey + 40)
    cv2.fillPoly(cover, [np.rint(rectangle(center, length, width, angle)).astype(np.int32)], 1)


def _units(size: tuple[int, int]) -> float:
    """How many scenes of 320 x 240 one of `size` is, at least one."""
    return max(1.0, size[0] * size[1] / UNIT)


def darken(canvas: np.ndarray, polygon: np.ndarray, factor: float = 0.55) -> None:
    """A cast shadow; only the polygon's surroundings are touched."""
    points = np.rint(polygon * SUPERSAMPLE).astype(np.int32)
    low = np.maximum(points.min(axis=0) - 1, 0)
    high = np.minimum(points.max(axis=0) + 2, canvas.shape[1::-1])
    if (high <= low).any():
        return
    part = canvas[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros(part.shape[:2], np.uint8)
    cv2.fillPoly(mask, [points - low], 1)
    part[mask == 1] = (part[mask == 1] * factor).astype(np.uint8)
