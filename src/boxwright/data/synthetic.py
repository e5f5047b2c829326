"""Synthetic aerial scenes: vehicles at any heading on roads and car parks, from a seed.

The truth is oriented: `w` lies along the heading, `angle` points to the front. Vehicles are drawn as
polygons at three times the size and shrunk, so that their edges are as soft as a camera's.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame

CLASSES = ("car", "truck", "bus")
SHARES = (0.5, 0.28, 0.22)
SIZES = {"car": (27, 12), "truck": (40, 15), "bus": (56, 16)}  # length and width in pixels
SUPERSAMPLE = 3
PAINT = (
    (225, 225, 228),
    (35, 37, 42),
    (150, 155, 160),
    (170, 35, 35),
    (35, 60, 130),
    (200, 190, 160),
    (60, 95, 70),
)
MOST_VEHICLES = 40


def make_scenes(
    folder: str | os.PathLike,
    count: int,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
    tell: Callable[[int], None] = lambda count: None,
) -> Tables:
    """Draw scenes and write them as PNG.

    Args:
        folder: for the images.
        count: of scenes.
        size: (width, height) of each.
        seed: same seed, same pixels and truth.
        tell: called with 1 after each scene, for a progress bar.

    Returns:
        Tables with oriented truth.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    images, rows = [], []
    for n in range(count):
        pixels, vehicles = draw_scene(size, np.random.default_rng([seed, n]))
        path = Path(folder) / f"{n:05d}.png"
        cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        images.append((path.name, str(path), *size))
        rows += [(n, *vehicle) for vehicle in vehicles]
        tell(1)
    names, paths, widths, heights = zip(*images)
    image_columns = {"file_name": names, "path": paths, "width": widths, "height": heights}
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    _, category, cx, cy, length, width, angle = table.T
    box_columns = {"image_id": table[:, 0].astype(np.int64), "category_id": category.astype(np.int32)} | {
        "x": cx - length / 2,
        "y": cy - width / 2,
        "w": length,
        "h": width,
        "angle": angle,
        "area": length * width,
        "source": ["synthetic"] * len(table),
    }
    return Tables(
        frame(IMAGE_SCHEMA, {"image_id": np.arange(count)} | image_columns),
        frame(BOX_SCHEMA, box_columns),
        frame(CATEGORY_SCHEMA, {"category_id": np.arange(len(CLASSES)), "name": CLASSES}),
    )


def draw_scene(size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, list[tuple]]:
    """One scene.

    Returns:
        pixels: (H, W, 3) uint8 RGB.
        vehicles: (category, cx, cy, length, width, angle) each, in pixels and radians.
    """
    width, height = size
    canvas = np.empty((height * SUPERSAMPLE, width * SUPERSAMPLE, 3), np.uint8)
    canvas[:] = rng.choice(np.array([(104, 118, 84), (122, 116, 98), (92, 108, 80)]))
    _draw_texture(canvas, rng, 10)
    sun = rng.uniform(0, 2 * math.pi)
    shadow = np.array([math.cos(sun), math.sin(sun)])
    slots = _draw_roads(canvas, size, rng) + _draw_car_park(canvas, size, rng)
    _draw_roofs(canvas, size, rng, shadow, slots)
    vehicles: list[tuple] = []
    for n in rng.permutation(len(slots)):
        if len(vehicles) == MOST_VEHICLES or rng.random() < 0.35:
            continue
        vehicle = _place(slots[n], rng)
        if _is_free(vehicle, vehicles, size):
            vehicles.append(vehicle)
    for vehicle in vehicles:
        _draw_shadow(canvas, vehicle, shadow)
    for vehicle in vehicles:
        _draw_vehicle(canvas, vehicle, rng)
    _draw_trees(canvas, size, rng, shadow, vehicles)
    pixels = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    pixels = pixels * rng.uniform(0.8, 1.15) + rng.normal(0, 4, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8), vehicles


def corners(vehicle: tuple, grow: float = 0.0) -> np.ndarray:
    """(4, 2) corners of a vehicle, front first, clockwise on screen."""
    _, cx, cy, length, width, angle = vehicle
    return _turned(np.array([cx, cy]), length + grow, width + grow, angle)


def _turned(center: np.ndarray, length: float, width: float, angle: float) -> np.ndarray:
    half = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]]) * np.array([length, width]) / 2
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return half @ turn + center


def _fill(canvas: np.ndarray, polygon: np.ndarray, color) -> None:
    points = np.rint(polygon * SUPERSAMPLE * 16).astype(np.int32)
    cv2.fillPoly(canvas, [points], tuple(int(c) for c in color), cv2.LINE_AA, shift=4)


def _draw_texture(canvas: np.ndarray, rng: np.random.Generator, strength: float) -> None:
    """Soft blotches, as grass and earth have."""
    height, width = canvas.shape[:2]
    coarse = rng.normal(0, strength, (height // 40 + 2, width // 40 + 2)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    canvas[:] = np.clip(canvas + smooth[:, :, None], 0, 255).astype(np.uint8)


def _draw_roads(canvas: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> list[tuple]:
    """Two-lane roads across the image; gives places (cx, cy, angle, room) in their lanes."""
    slots = []
    for _ in range(rng.integers(1, 3)):
        angle = rng.uniform(0, math.pi)
        center = np.array(size) * rng.uniform(0.25, 0.75, 2)
        along = np.array([math.cos(angle), math.sin(angle)])
        across = np.array([-along[1], along[0]])
        length, lane = 2 * sum(size), rng.uniform(22, 26)
        _fill(
            canvas,
            _turned(center, length, 2 * lane + 6, angle),
            np.array([96, 96, 100]) + rng.uniform(-14, 14),
        )
        for at in np.arange(-length / 2, length / 2, 24):
            _fill(canvas, _turned(center + along * at, 10, 1.4, angle), (215, 215, 205))
        for side in (-1, 1):
            at = -length / 2 + rng.uniform(0, 40)
            while at < length / 2:
                place = center + along * at + across * side * lane / 2
                heading = angle + (math.pi if side < 0 else 0) + rng.normal(0, 0.04)
                slots.append((*place, heading, 70.0))
                at += rng.uniform(62, 130)
    return slots


def _draw_car_park(canvas: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> list[tuple]:
    """Rows of marked bays at some angle; gives places in them, for cars."""
    if rng.random() < 0.3:
        return []
    angle, center = rng.uniform(0, math.pi), np.array(size) * rng.uniform(0.2, 0.8, 2)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    bays, rows = int(rng.integers(4, 10)), int(rng.integers(1, 4))
    bay, depth, aisle = 17.0, 34.0, 30.0
    extent = rows * (depth + aisle)
    _fill(
        canvas,
        _turned(center, bays * bay + 12, extent + 6, angle),
        np.array([112, 112, 114]) + rng.uniform(-12, 12),
    )
    slots = []
    for row in range(rows):
        across_at = (row + 0.5) * (depth + aisle) - extent / 2
        for n in range(bays + 1):
            middle = center + along * ((n - bays / 2) * bay) + across * across_at
            _fill(canvas, _turned(middle, 1.2, depth, angle), (220, 220, 215))
            if n < bays:
                heading = angle + math.pi / 2 + (math.pi if rng.random() < 0.5 else 0) + rng.normal(0, 0.05)
                slots.append((*(middle + along * bay / 2), heading, 32.0))
    return slots


def _draw_roofs(canvas, size, rng: np.random.Generator, shadow: np.ndarray, slots: list[tuple]) -> None:
    """Roofs with skylights and vents, which look like vehicles and aren't; places under them are dropped."""
    for _ in range(rng.integers(0, 4)):
        center, angle = np.array(size) * rng.uniform(0, 1, 2), rng.uniform(0, math.pi)
        length, width = rng.uniform(40, 90), rng.uniform(30, 60)
        reach = math.hypot(length, width) / 2 + 32
        if any(math.hypot(s[0] - center[0], s[1] - center[1]) < reach for s in slots):
            continue
        _darken(canvas, _turned(center + shadow * 10, length, width, angle))
        color = rng.choice(np.array([(150.0, 82.0, 66.0), (128.0, 128.0, 132.0), (176.0, 168.0, 154.0)]))
        _fill(canvas, _turned(center, length, width, angle), color)
        along = np.array([math.cos(angle), math.sin(angle)])
        across = np.array([-along[1], along[0]])
        for _ in range(rng.integers(1, 6)):
            at = center + along * rng.uniform(-0.4, 0.4) * length + across * rng.uniform(-0.35, 0.35) * width
            _fill(
                canvas,
                _turned(at, rng.uniform(4, 14), rng.uniform(3, 9), angle),
                color + rng.uniform(-50, 50),
            )


def _draw_trees(canvas, size, rng: np.random.Generator, shadow: np.ndarray, vehicles: list[tuple]) -> None:
    """Round crowns with shadows, beside the vehicles."""
    for _ in range(rng.integers(3, 14)):
        center, radius = np.array(size) * rng.uniform(0, 1, 2), rng.uniform(5, 13)
        if any(math.hypot(v[1] - center[0], v[2] - center[1]) < radius + v[3] / 2 + 8 for v in vehicles):
            continue
        angles = np.linspace(0, 2 * math.pi, 14, endpoint=False)
        spokes = radius * rng.uniform(0.75, 1.1, 14)
        crown = np.stack([np.cos(angles), np.sin(angles)], axis=1) * spokes[:, None]
        _darken(canvas, crown + center + shadow * 5)
        green = np.array([52, 82, 44]) + rng.uniform(-16, 16, 3)
        _fill(canvas, crown + center, green)
        _fill(canvas, crown * 0.55 + center - shadow * 2, green + 18)


def _place(slot: tuple, rng: np.random.Generator) -> tuple:
    """A vehicle for a place: long ones only where there is room."""
    cx, cy, angle, room = slot
    category = int(rng.choice(len(CLASSES), p=SHARES)) if room > 60 else 0
    length, width = np.array(SIZES[CLASSES[category]]) * rng.uniform(0.9, 1.1, 2)
    angle = (angle + math.pi) % (2 * math.pi) - math.pi
    return category, cx + rng.normal(0, 0.8), cy + rng.normal(0, 0.8), float(length), float(width), angle


def _is_free(vehicle: tuple, others: list[tuple], size: tuple[int, int]) -> bool:
    """Whole within the image, and clear of every other vehicle."""
    own = corners(vehicle, grow=1.5)
    if (own < 0).any() or (own > np.array(size)).any():
        return False
    own = own.astype(np.float32)
    near = (o for o in others if math.hypot(o[1] - vehicle[1], o[2] - vehicle[2]) < (o[3] + vehicle[3]))
    return not any(
        cv2.intersectConvexConvex(own, corners(o, grow=1.5).astype(np.float32))[0] > 0 for o in near
    )


def _darken(canvas: np.ndarray, polygon: np.ndarray, factor: float = 0.55) -> None:
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


def _draw_shadow(canvas: np.ndarray, vehicle: tuple, shadow: np.ndarray) -> None:
    reach = 3.0 if vehicle[0] == 0 else 5.0
    _darken(canvas, corners(vehicle) + shadow * reach)


def _draw_vehicle(canvas: np.ndarray, vehicle: tuple, rng: np.random.Generator) -> None:
    """Body, and what tells front from back: windscreens, a truck's cab, a bus's roof hatches."""
    category, cx, cy, length, width, angle = vehicle
    along = np.array([math.cos(angle), math.sin(angle)])
    paint = np.clip(np.array(PAINT[rng.integers(len(PAINT))]) + rng.uniform(-12, 12, 3), 0, 255)

    def part(at: float, part_length: float, part_width: float, color) -> None:
        center = np.array([cx, cy]) + along * at * length
        _fill(
            canvas, _turned(center, part_length * length, part_width * width, angle), np.clip(color, 0, 255)
        )

    glass = (30, 36, 44)
    if CLASSES[category] == "car":
        part(0, 1, 1, paint)
        part(0.16, 0.13, 0.82, glass)
        part(-0.30, 0.09, 0.78, glass)
        part(-0.07, 0.32, 0.84, paint * 0.93 + 8)
    elif CLASSES[category] == "truck":
        cargo = np.array(PAINT[rng.integers(3)]) * rng.uniform(0.8, 1.05)
        part(-0.14, 0.72, 1, cargo)
        part(-0.14, 0.66, 0.86, cargo * 0.94)
        part(0.37, 0.26, 0.94, paint)
        part(0.43, 0.07, 0.82, glass)
    else:
        part(0, 1, 1, paint)
        part(0.46, 0.05, 0.9, glass)
        for at in (-0.28, 0.02, 0.28):
            part(at, 0.1, 0.45, paint * 0.75)
