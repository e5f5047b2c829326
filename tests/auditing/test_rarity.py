"""Crops as vectors, and which are like which: beside a plain loop, and on groups that are known."""

import math

import cv2
import numpy as np
import pytest

pytest.importorskip("sklearn")

from boxwright.auditing.embedding import BINS, CELLS, embed_crops, gradients
from boxwright.auditing.rarity import arrange

SIDE = 24


def plain_gradients(grey):
    """The same by a loop over pixels."""
    down, right = np.gradient(grey)
    cells = np.zeros((CELLS, CELLS, BINS))
    for y in range(SIDE):
        for x in range(SIDE):
            turn = math.atan2(down[y, x], right[y, x]) % math.pi / math.pi * BINS
            low = math.floor(turn)
            cell = cells[y * CELLS // SIDE, x * CELLS // SIDE]
            strength = math.hypot(down[y, x], right[y, x])
            cell[low % BINS] += strength * (1 - (turn - low))
            cell[(low + 1) % BINS] += strength * (turn - low)
    parts = []
    for y in range(CELLS - 1):
        for x in range(CELLS - 1):
            block = np.concatenate([cells[y, x], cells[y, x + 1], cells[y + 1, x], cells[y + 1, x + 1]])
            parts.append(block / (np.linalg.norm(block) + (SIDE / CELLS) ** 2))
    return np.concatenate(parts) / (CELLS - 1)


def test_gradients_are_those_of_a_plain_loop():
    grey = np.random.default_rng(0).uniform(0, 255, (3, SIDE, SIDE)).astype(np.float64)
    wanted = np.stack([plain_gradients(one) for one in grey])
    np.testing.assert_allclose(gradients(grey), wanted, atol=1e-9)


def test_an_edge_is_the_same_in_black_and_white_and_flat_pictures_have_none():
    half = np.zeros((1, SIDE, SIDE))
    half[:, :, SIDE // 2 :] = 200
    np.testing.assert_allclose(gradients(half), gradients(200 - half), atol=1e-9)
    assert np.abs(gradients(np.full((1, SIDE, SIDE), 77.0))).max() == 0
    assert np.linalg.norm(gradients(half)) <= 1


def shapes(count, seed):
    """Crops of bright discs, dark bars and striped squares."""
    rng = np.random.default_rng(seed)
    crops, kinds = [], rng.permutation(np.arange(count) % 3)
    for kind in kinds:
        crop = rng.integers(90, 130, (96, 96, 3)).astype(np.uint8)
        at = tuple(int(v) for v in rng.integers(40, 56, 2))
        if kind == 0:
            cv2.circle(crop, at, 30, (240, 240, 200), -1)
        elif kind == 1:
            cv2.rectangle(crop, (8, at[1] - 8), (88, at[1] + 8), (10, 10, 60), -1)
        else:
            crop[20:76:8, 20:76] = (0, 200, 0)
        crops.append(crop)
    return np.array(crops), kinds


def test_kinds_are_told_apart_and_strange_ones_stand_out():
    crops, kinds = shapes(90, 0)
    crops[0] = np.random.default_rng(9).integers(0, 255, (96, 96, 3))
    category = kinds.copy()
    category[1] = (kinds[1] + 1) % 3  # labelled as another class
    vectors = embed_crops(crops, np.full((90, 2), 40.0))
    found = arrange(vectors, category, clusters=3)
    assert found.oddness.argmax() in (0, 1)
    assert set(np.argsort(-found.oddness)[:2].tolist()) == {0, 1}
    assert found.strangers[1] == 1
    assert np.median(found.oddness) == pytest.approx(1)
    sizes = np.bincount(found.clusters)
    assert (np.diff(sizes) >= 0).all()
    near = found.places[:, None] - found.places[None]
    near = np.linalg.norm(near, axis=2) + 1e9 * np.eye(90)
    assert (kinds[near.argmin(axis=1)] == kinds)[1:].mean() > 0.95
    assert np.array_equal(found.places, arrange(vectors, category, clusters=3).places)


def test_the_only_one_of_a_class_is_as_odd_as_the_oddest():
    crops, kinds = shapes(40, 1)
    category = np.where(np.arange(40) == 7, 9, kinds)
    found = arrange(embed_crops(crops, np.full((40, 2), 40.0)), category)
    assert found.oddness[7] == found.oddness.max()


def test_size_is_part_of_what_a_crop_is_like():
    crops, _ = shapes(3, 2)
    small, large = (embed_crops(crops[:1], np.full((1, 2), side)) for side in (20.0, 80.0))
    assert np.linalg.norm(small - large) == pytest.approx(0.5 * 2 * math.sqrt(2), rel=1e-5)
