"""Synthetic aerial scenes: vehicles at any heading on roads and car parks, from a seed.

The truth is oriented: `w` lies along the heading, `angle` points to the front. Vehicles are drawn as
polygons at three times the size and shrunk, so that their edges are as soft as a camera's. Lengths here are
pixels at resolution 1, where a car is 27 long.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from boxwright.data.scenery import (
    SUPERSAMPLE,
    UNIT,
    darken,
    draw_bridge,
    draw_car_park,
    draw_roads,
    draw_roofs,
    draw_texture,
    draw_trees,
    fill,
    rectangle,
)
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame
from boxwright.errors import ConfigError, DataError

CLASSES = ("car", "truck", "big truck", "bus")
SHARES = (0.3, 0.25, 0.2, 0.25)
RARE = (1.0, 0.1, 0.02, 0.001)  # of each class to cars, as on real roads
SIZES = {"car": (27, 12), "truck": (40, 15), "big truck": (66, 18), "bus": (56, 16)}  # length and width
PAINT = (
    (225, 225, 228),
    (35, 37, 42),
    (150, 155, 160),
    (170, 35, 35),
    (35, 60, 130),
    (200, 190, 160),
    (60, 95, 70),
)
MOST_VEHICLES = 40  # in an area of `UNIT`; larger scenes hold as many more
HIDDEN = 0.6  # share of a vehicle under trees and bridges from which nobody is judged by it


@dataclass(frozen=True)
class SceneOptions:
    """What scenes hold.

    Attributes:
        shares: of the classes where there is room for all, any positive numbers; `RARE` for one bus in a
            thousand cars.
        resolution: factor on all lengths: 2 sees the same ground with four times the pixels.
        occlusion: probability that a tree may stand over vehicles, and that a bridge crosses the scene.
    """

    shares: tuple[float, ...] = SHARES
    resolution: float = 1.0
    occlusion: float = 0.0


def make_scenes(
    folder: str | os.PathLike,
    count: int,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
    tell: Callable[[int], None] = lambda count: None,
    options: SceneOptions = SceneOptions(),
) -> Tables:
    """Draw scenes and write them as PNG.

    Args:
        folder: for the images.
        count: of scenes.
        size: (width, height) of each.
        seed: same seed, same pixels and truth.
        tell: called with 1 after each scene, for a progress bar.
        options: what they hold.

    Returns:
        Tables with oriented truth; vehicles that are mostly hidden are ignore regions.

    Raises:
        ConfigError: shares or a resolution that can't be meant.
    """
    if len(options.shares) != len(CLASSES) or min(options.shares) < 0 or options.shares[0] <= 0:
        raise ConfigError(f"shares {options.shares}, expected {len(CLASSES)} numbers, cars' above 0.")
    if options.resolution <= 0 or not 0 <= options.occlusion <= 1:
        raise ConfigError(f"{options}: expected a positive resolution, and an occlusion of 0 to 1.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    images, rows = [], []
    for n in range(count):
        pixels, vehicles, hidden = draw_scene(size, np.random.default_rng([seed, n]), options)
        path = Path(folder) / f"{n:05d}.png"
        write_png(path, pixels)
        images.append((path.name, str(path), *size))
        rows += [(n, *vehicle, share) for vehicle, share in zip(vehicles, hidden)]
        tell(1)
    names, paths, widths, heights = zip(*images)
    image_columns = {"file_name": names, "path": paths, "width": widths, "height": heights}
    table = np.array(rows, dtype=np.float64).reshape(-1, 8)
    _, category, cx, cy, length, width, angle, hidden = table.T
    box_columns = vehicle_columns(category, cx, cy, length, width, angle) | {
        "image_id": table[:, 0].astype(np.int64),
        "ignore": hidden >= HIDDEN,
        "source": ["synthetic"] * len(table),
    }
    return Tables(
        frame(IMAGE_SCHEMA, {"image_id": np.arange(count)} | image_columns),
        frame(BOX_SCHEMA, box_columns),
        frame(CATEGORY_SCHEMA, {"category_id": np.arange(len(CLASSES)), "name": CLASSES}),
    )


def vehicle_columns(category, cx, cy, length, width, angle) -> dict[str, np.ndarray]:
    """Columns of a box table of vehicles, each argument (N,)."""
    return {
        "category_id": category.astype(np.int32),
        "x": cx - length / 2,
        "y": cy - width / 2,
        "w": length,
        "h": width,
        "angle": angle,
        "area": length * width,
    }


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write an image (H, W, 3) uint8 RGB.

    Raises:
        DataError: it can't be written.
    """
    if not cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)):
        raise DataError(f"{path}: can't be written.")


def draw_scene(
    shape: tuple[int, int], rng: np.random.Generator, options: SceneOptions = SceneOptions()
) -> tuple[np.ndarray, list[tuple], list[float]]:
    """One scene of `shape` (width, height).

    Returns:
        pixels: (H, W, 3) uint8 RGB.
        vehicles: (category, cx, cy, length, width, angle) each, in pixels and radians.
        hidden: the share of each that is under something.
    """
    size = (max(1, round(shape[0] / options.resolution)), max(1, round(shape[1] / options.resolution)))
    width, height = size
    most = MOST_VEHICLES * max(1.0, width * height / UNIT)
    canvas = np.empty((height * SUPERSAMPLE, width * SUPERSAMPLE, 3), np.uint8)
    canvas[:] = rng.choice(np.array([(104, 118, 84), (122, 116, 98), (92, 108, 80)]))
    draw_texture(canvas, rng, 10)
    sun = rng.uniform(0, 2 * math.pi)
    shadow = np.array([math.cos(sun), math.sin(sun)])
    slots = draw_roads(canvas, size, rng) + draw_car_park(canvas, size, rng)
    draw_roofs(canvas, size, rng, shadow, slots)
    vehicles: list[tuple] = []
    for n in rng.permutation(len(slots)):
        if len(vehicles) >= most or rng.random() < 0.35:
            continue
        vehicle = _place(slots[n], rng, options.shares)
        if _is_free(vehicle, vehicles, size):
            vehicles.append(vehicle)
    for vehicle in vehicles:
        draw_shadow(canvas, vehicle, shadow)
    for vehicle in vehicles:
        draw_vehicle(canvas, vehicle, rng)
    cover = np.zeros((height, width), np.uint8)
    draw_trees(canvas, cover, size, rng, shadow, vehicles, options.occlusion)
    if rng.random() < options.occlusion:
        draw_bridge(canvas, cover, size, rng, shadow)
    hidden = [_covered(cover, vehicle) for vehicle in vehicles]
    pixels = cv2.resize(canvas, shape, interpolation=cv2.INTER_AREA).astype(np.float32)
    pixels = pixels * rng.uniform(0.8, 1.15) + rng.normal(0, 4, pixels.shape).astype(np.float32)
    factor = np.array([1, shape[0] / width, shape[1] / height, options.resolution, options.resolution, 1])
    seen = [(v[0], *(np.array(v[1:]) * factor[1:]).tolist()) for v in vehicles]
    return np.clip(pixels, 0, 255).astype(np.uint8), seen, hidden


def corners(vehicle: tuple, grow: float = 0.0) -> np.ndarray:
    """(4, 2) corners of a vehicle, front first, clockwise on screen."""
    _, cx, cy, length, width, angle = vehicle
    return rectangle(np.array([cx, cy]), length + grow, width + grow, angle)


def _covered(cover: np.ndarray, vehicle: tuple) -> float:
    """The share of a vehicle under something."""
    points = np.rint(corners(vehicle)).astype(np.int32)
    low = np.maximum(points.min(axis=0), 0)
    part = cover[low[1] : points[:, 1].max() + 1, low[0] : points[:, 0].max() + 1]
    own = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(own, [points - low], 1)
    return float((part & own).sum() / max(1, int(own.sum())))


def _place(slot: tuple, rng: np.random.Generator, shares: tuple[float, ...]) -> tuple:
    """A vehicle for a place: long ones only where there is room."""
    cx, cy, angle, room = slot
    likely = np.array(shares) / sum(shares)
    category = int(rng.choice(len(CLASSES), p=likely)) if room > 60 else 0
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


def draw_shadow(canvas: np.ndarray, vehicle: tuple, shadow: np.ndarray) -> None:
    reach = 3.0 if vehicle[0] == 0 else 5.0
    darken(canvas, corners(vehicle) + shadow * reach)


def draw_vehicle(canvas: np.ndarray, vehicle: tuple, rng: np.random.Generator) -> None:
    """Body, and what shows the heading: windscreens, a truck's cab, a bus's roof hatches."""
    category, cx, cy, length, width, angle = vehicle
    along = np.array([math.cos(angle), math.sin(angle)])
    paint = np.clip(np.array(PAINT[rng.integers(len(PAINT))]) + rng.uniform(-12, 12, 3), 0, 255)

    def part(at: float, part_length: float, part_width: float, color) -> None:
        center = np.array([cx, cy]) + along * at * length
        fill(
            canvas, rectangle(center, part_length * length, part_width * width, angle), np.clip(color, 0, 255)
        )

    glass = (30, 36, 44)
    if CLASSES[category] == "car":
        part(0, 1, 1, paint)
        part(0.16, 0.13, 0.82, glass)
        part(-0.30, 0.09, 0.78, glass)
        part(-0.07, 0.32, 0.84, paint * 0.93 + 8)
    elif CLASSES[category] == "big truck":
        part(0.41, 0.17, 0.92, paint)
        part(0.465, 0.05, 0.8, glass)
        part(0.3, 0.06, 0.3, (52, 52, 54))
        part(-0.12, 0.76, 1, (72, 70, 68))
        for at in np.arange(-0.44, 0.2, 0.16):  # cargo on an open bed
            part(at, 0.13, rng.uniform(0.55, 0.9), np.array(PAINT[rng.integers(len(PAINT))]) * 0.9)
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
