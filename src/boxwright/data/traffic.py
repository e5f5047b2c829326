"""Synthetic traffic: a drone's video of vehicles that drive along their headings, with the truth of tracks.

Bent roads of two lanes lie side by side, car parks between them; the camera drifts and turns. Everything is
drawn as in `synthetic`, lengths are pixels where a car is 27 long.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from boxwright.data.builder import pack
from boxwright.data.scenery import SUPERSAMPLE, draw_bays, draw_texture
from boxwright.data.synthetic import (
    CLASSES,
    SHARES,
    SIZES,
    corners,
    draw_shadow,
    draw_vehicle,
    vehicle_columns,
    write_png,
)
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame
from boxwright.data.video import VIDEO_SUFFIXES, VideoWriter
from boxwright.errors import ConfigError

MARGIN = 1.6  # of the ground to the picture
BAND = 170.0  # px of ground for each road and what lies beside it
LANE = 24.0
RATE = 25  # frames a second
SPEED = (1.0, 4.0)  # px a frame
DRIFT = 0.12  # of the camera, in pictures
TURN = 0.25  # of the camera, radians
PERIOD = (150, 400)  # frames in which the camera comes back, and vehicles are slow and fast again


@dataclass(frozen=True)
class _Lane:
    points: np.ndarray  # (P, 2) a pixel apart
    speed: float
    phase: float
    vehicles: list[tuple[int, int, float, float, float]]  # track, category, length, width, place at frame 0


@dataclass(frozen=True)
class _World:
    canvas: np.ndarray
    lanes: list[_Lane]
    parked: list[tuple]  # track, vehicle
    shadow: np.ndarray
    period: tuple[float, float]
    turn: float


def make_traffic(
    place: str | os.PathLike,
    count: int,
    size: tuple[int, int] = (640, 480),
    seed: int = 0,
    tell: Callable[[int], None] = lambda count: None,
) -> Tables:
    """Draw traffic and write it as a video, or as images into a folder.

    Args:
        place: a folder, or a video by its suffix.
        count: of frames, 25 a second.
        size: (width, height).
        seed: same seed, same pixels and truth.
        tell: called with 1 after each frame, for a progress bar.

    Returns:
        Tables with oriented truth, a "track_id" each, and "parked" where one is; vehicles whose centre is
        outside are ignore regions.

    Raises:
        ConfigError: no frame, or a size too small for a road.
        DataError: a file can't be written.
    """
    if count < 1 or min(size) < 100:
        raise ConfigError(
            f"{count} frames of {size[0]} x {size[1]}, expected 1 or more of 100 x 100 or more."
        )
    path = Path(place)
    as_video = path.suffix.lower() in VIDEO_SUFFIXES
    rows = []
    if not as_video:
        path.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, size, RATE) if as_video else nullcontext() as writer:
        for n, (pixels, vehicles) in enumerate(drive(count, size, seed)):
            if writer is not None:
                writer.write(pixels)
            else:
                write_png(path / f"{n + 1:06d}.png", pixels)
            rows += [(n, *vehicle) for vehicle in vehicles]
            tell(1)
    return _tables(path, as_video, count, size, np.array(rows, dtype=np.float64).reshape(-1, 9))


def drive(count: int, size: tuple[int, int], seed: int) -> Iterator[tuple[np.ndarray, list[tuple]]]:
    """Each frame: pixels (H, W, 3) uint8 RGB, and of every vehicle that is at least partly in it track,
    parked, category, cx, cy, length, width, angle, in pixels and radians."""
    rng = np.random.default_rng(seed)
    world = _make_world(size, rng)
    for n in range(count):
        view, turn = _view(world, size, n)
        seen = {
            track: _seen(vehicle, view, turn) for track, vehicle in world.parked + _driving(world.lanes, n)
        }
        seen = {track: vehicle for track, vehicle in sorted(seen.items()) if _is_in(vehicle[1], size)}
        canvas = world.canvas.copy()
        for on_ground, _ in seen.values():
            draw_shadow(canvas, on_ground, world.shadow)
        for track, (on_ground, _) in seen.items():
            draw_vehicle(canvas, on_ground, np.random.default_rng([seed, track]))
        ground = cv2.resize(
            canvas, None, fx=1 / SUPERSAMPLE, fy=1 / SUPERSAMPLE, interpolation=cv2.INTER_AREA
        )
        pixels = cv2.warpAffine(ground, view, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        noise = 3 * np.random.default_rng([seed, n, 1]).standard_normal(pixels.shape, dtype=np.float32)
        shown = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        yield shown, [(track, track <= len(world.parked), *vehicle) for track, (_, vehicle) in seen.items()]


def _make_world(size: tuple[int, int], rng: np.random.Generator) -> _World:
    width, height = (round(side * MARGIN) for side in size)
    canvas = np.empty((height * SUPERSAMPLE, width * SUPERSAMPLE, 3), np.uint8)
    canvas[:] = rng.choice(np.array([(104, 118, 84), (122, 116, 98), (92, 108, 80)]))
    draw_texture(canvas, rng, 10)
    roads = max(1, round(height / BAND))
    middles = [(n + 0.5) * height / roads for n in range(roads)]
    curves = [_curve(width, middle, rng) for middle in middles]
    slots = [slot for _ in range(2 * roads) for slot in draw_bays(canvas, (width, height), rng)]
    for curve in curves:
        _draw_road(canvas, curve)
    # Vehicles stay clear of roads, and of each other.
    parked: list[tuple] = []
    for cx, cy, angle, _ in slots:
        clear = min(float(np.hypot(*(curve - (cx, cy)).T).min()) for curve in curves) > LANE + 24
        apart = all(math.hypot(cx - v[1], cy - v[2]) > 15 for _, v in parked)
        if clear and apart and rng.random() < 0.8:
            length, across = np.array(SIZES["car"]) * rng.uniform(0.92, 1.08, 2)
            parked.append((len(parked) + 1, (0, cx, cy, float(length), float(across), float(angle))))
    lanes: list[_Lane] = []
    for curve in curves:
        lanes += _fill_lanes(curve, len(parked) + 1 + sum(len(lane.vehicles) for lane in lanes), rng)
    sun = rng.uniform(0, 2 * math.pi)
    period = (float(rng.uniform(*PERIOD)), float(rng.uniform(*PERIOD)))
    shadow = np.array([math.cos(sun), math.sin(sun)])
    return _World(canvas, lanes, parked, shadow, period, float(rng.uniform(0, 2 * math.pi)))


def _curve(width: int, middle: float, rng: np.random.Generator) -> np.ndarray:
    """(P, 2) points a pixel apart of a bent road from the left to beyond the right."""
    x = np.arange(-100.0, width + 100.0, 0.25)
    bend, length, start = rng.uniform(12, 26), rng.uniform(180, 320), rng.uniform(0, 2 * math.pi)
    points = np.stack([x, middle + bend * np.sin(2 * math.pi * x / length + start)], axis=1)
    along = np.concatenate([[0.0], np.hypot(*np.diff(points, axis=0).T).cumsum()])
    even = np.arange(0.0, along[-1], 1.0)
    return np.stack([np.interp(even, along, points[:, k]) for k in (0, 1)], axis=1)


def _draw_road(canvas: np.ndarray, curve: np.ndarray) -> None:
    points = np.rint(curve * SUPERSAMPLE).astype(np.int32)
    cv2.polylines(canvas, [points], False, (98, 98, 102), round((2 * LANE + 6) * SUPERSAMPLE), cv2.LINE_AA)
    for at in range(0, len(points) - 12, 24):
        cv2.polylines(canvas, [points[at : at + 10]], False, (215, 215, 205), SUPERSAMPLE, cv2.LINE_AA)


def _fill_lanes(curve: np.ndarray, track: int, rng: np.random.Generator) -> list[_Lane]:
    lanes = []
    for side in (1, -1):
        tangent = np.gradient(curve, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        points = (curve + side * LANE / 2 * np.stack([-tangent[:, 1], tangent[:, 0]], axis=1))[::side]
        vehicles, at = [], float(len(points))
        while at > -8 * len(points):
            category = int(rng.choice(len(CLASSES), p=SHARES))
            length, across = np.array(SIZES[CLASSES[category]]) * rng.uniform(0.92, 1.08, 2)
            vehicles.append((track, category, float(length), float(across), at - length / 2))
            at -= length + rng.uniform(12, 140)
            track += 1
        lanes.append(_Lane(points, float(rng.uniform(*SPEED)), float(rng.uniform(0, 2 * math.pi)), vehicles))
    return lanes


def _driving(lanes: list[_Lane], n: int) -> list[tuple]:
    """(track, vehicle) of those that are on the ground at frame `n`."""
    found = []
    for lane in lanes:
        period = PERIOD[0] / (2 * math.pi)
        slow = 0.7 * period * (math.cos(lane.phase) - math.cos(n / period + lane.phase))
        for track, category, length, across, at in lane.vehicles:
            place = at + lane.speed * (n + slow)
            if place < length / 3 or place + length / 3 > len(lane.points) - 1:
                continue
            back, front = (lane.points[round(end)] for end in (place - length / 3, place + length / 3))
            on, rest = divmod(place, 1.0)
            cx, cy = (
                lane.points[int(on)] * (1 - rest) + lane.points[min(int(on) + 1, len(lane.points) - 1)] * rest
            )
            dx, dy = front - back
            found.append((track, (category, float(cx), float(cy), length, across, math.atan2(dy, dx))))
    return found


def _view(world: _World, size: tuple[int, int], n: int) -> tuple[np.ndarray, float]:
    """(2, 3) matrix from the ground to frame `n`, and the angle it adds."""
    first, second = (2 * math.pi * n / p for p in world.period)
    turn = TURN * math.sin(first + world.turn)
    center = np.array(size) * MARGIN / 2
    drift = DRIFT * np.array(size) * (math.sin(second), math.cos(second + world.turn))
    matrix = cv2.getRotationMatrix2D(tuple(center.tolist()), -math.degrees(turn), 1.0)
    matrix[:, 2] += np.array(size) / 2 - center + drift
    return matrix, turn


def _seen(vehicle: tuple, view: np.ndarray, turn: float) -> tuple[tuple, tuple]:
    """A vehicle as it is on the ground, and as in the picture."""
    category, cx, cy, length, width, angle = vehicle
    x, y = view @ (cx, cy, 1.0)
    heading = (angle + turn + math.pi) % (2 * math.pi) - math.pi
    return vehicle, (category, float(x), float(y), length, width, heading)


def _is_in(vehicle: tuple, size: tuple[int, int]) -> bool:
    points = corners(vehicle)
    return bool((points.max(axis=0) > 0).all() and (points.min(axis=0) < np.array(size)).all())


def _tables(path: Path, as_video: bool, count: int, size: tuple[int, int], rows: np.ndarray) -> Tables:
    image, track, parked, category, cx, cy, length, width, angle = rows.T
    names = [f"{n + 1:06d}" if as_video else f"{n + 1:06d}.png" for n in range(count)]
    seconds = [{"seconds": n / RATE} if as_video else {} for n in range(count)]
    images = {
        "image_id": np.arange(count),
        "file_name": [f"{path.name}/{name}" for name in names],
        "path": [None if as_video else str(path / name) for name in names],
        "width": [size[0]] * count,
        "height": [size[1]] * count,
        "attributes": [pack({"video": path.name, "frame": n + 1} | s) for n, s in enumerate(seconds)],
    }
    boxes = {
        "image_id": image.astype(np.int64),
        **vehicle_columns(category, cx, cy, length, width, angle),
        "ignore": (cx < 0) | (cy < 0) | (cx >= size[0]) | (cy >= size[1]),
        "source": ["traffic"] * len(rows),
        "attributes": [
            pack({"track_id": int(t)} | ({"parked": True} if p else {})) for t, p in zip(track, parked)
        ],
    }
    classes = {"category_id": np.arange(len(CLASSES)), "name": CLASSES}
    return Tables(frame(IMAGE_SCHEMA, images), frame(BOX_SCHEMA, boxes), frame(CATEGORY_SCHEMA, classes))
