"""Traffic: vehicles drive along their headings, and are where the truth says."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from boxwright.data import traffic
from boxwright.data.builder import unpack
from boxwright.data.scenery import SUPERSAMPLE
from boxwright.data.synthetic import corners
from boxwright.data.traffic import drive, make_traffic
from boxwright.errors import ConfigError


def test_vehicles_drive_along_their_headings():
    frames = [{v[0]: v for v in vehicles} for _, vehicles in drive(12, (320, 240), seed=1)]
    off = []
    for before, after in pairwise(frames):
        # What is parked moves as the camera does: the rest of a way is the vehicle's own.
        parked = [np.array(after[t][3:5]) - before[t][3:5] for t in before if t in after and before[t][1]]
        assert parked
        for track in before.keys() & after.keys():
            way = np.array(after[track][3:5]) - before[track][3:5] - np.mean(parked, axis=0)
            if not before[track][1] and np.linalg.norm(way) > 1.0:
                ahead = np.array([np.cos(before[track][7]), np.sin(before[track][7])])
                off.append(float(way @ ahead / np.linalg.norm(way)))
    assert len(off) > 30
    assert np.median(off) > 0.97
    assert min(off) > 0.5


def test_the_truth_is_where_the_picture_differs_from_the_empty_ground():
    size = (480, 360)
    world = traffic._make_world(size, np.random.default_rng(2))
    view, _ = traffic._view(world, size, 3)
    ground = cv2.resize(
        world.canvas, None, fx=1 / SUPERSAMPLE, fy=1 / SUPERSAMPLE, interpolation=cv2.INTER_AREA
    )
    empty = cv2.warpAffine(ground, view, size, borderMode=cv2.BORDER_REFLECT)
    *_, (pixels, vehicles) = drive(4, size, seed=2)
    changed = np.abs(pixels.astype(int) - empty).max(axis=2) > 25
    inside, around = np.zeros(changed.shape, np.uint8), np.zeros(changed.shape, np.uint8)
    for vehicle in vehicles:
        cv2.fillPoly(inside, [np.rint(corners(vehicle[2:], -2)).astype(np.int32)], 1)
        cv2.fillPoly(around, [np.rint(corners(vehicle[2:], 14)).astype(np.int32)], 1)  # with its shadow
    assert len(vehicles) > 20
    assert changed[inside > 0].mean() > 0.7
    assert changed[around == 0].mean() < 0.002


def test_a_seed_gives_the_same_frames_and_tables(tmp_path):
    first, second = (make_traffic(tmp_path / name, 2, (160, 120), seed=4) for name in ("a", "b"))
    assert first.boxes.equals(second.boxes)
    for n in (1, 2):
        assert (tmp_path / f"a/{n:06d}.png").read_bytes() == (tmp_path / f"b/{n:06d}.png").read_bytes()
    assert unpack(first.images["attributes"][1])["frame"] == 2
    with pytest.raises(ConfigError, match="expected 1 or more of 100 x 100"):
        make_traffic(tmp_path / "c", 0)
