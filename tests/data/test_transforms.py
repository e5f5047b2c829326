"""Boxes move with pixels, and come home."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright.config.augment import AugmentConfig
from boxwright.data.transforms import (
    PAD_VALUE,
    compose,
    fit_matrix,
    fitted_size,
    invert,
    jitter_colors,
    random_matrix,
    resize,
    transform_boxes,
    transform_points,
    warp,
)

AXIS_ALIGNED = AugmentConfig(flip_vertical=0.5, quarter_turn=0.5, scale=(0.5, 2.0), aspect=0.3)
ANY_ANGLE = AugmentConfig(rotate=180, scale=(0.5, 2.0))


@pytest.mark.parametrize("seed", range(20))
def test_a_drawn_rectangle_lies_where_its_box_goes(seed):
    rng = np.random.default_rng(seed)
    pixels = np.zeros((120, 160, 3), np.uint8)
    x1, y1 = rng.integers(30, 60, 2)
    x2, y2 = x1 + rng.integers(20, 60), y1 + rng.integers(20, 50)
    pixels[y1:y2, x1:x2, 0] = 255  # red: the grey beside the content has no share in red less green
    matrix = random_matrix((160, 120), (160, 120), AXIS_ALIGNED, rng)
    warped = warp(pixels, matrix, (160, 120))
    box = transform_boxes(np.array([[x1, y1, x2, y2]], dtype=float), matrix)[0]
    inside = np.clip(box, 0, [160, 120, 160, 120])
    # Sums of brightness are areas: the oracle for edges between pixels.
    bright = (warped[..., 0].astype(float) - warped[..., 1]) / 255.0
    assert bright.sum() == pytest.approx(np.prod(inside[2:] - inside[:2]), rel=0.04, abs=25)
    ys, xs = np.nonzero(bright > 0.5)
    if len(xs):
        found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert np.abs(found - inside).max() <= 1.0


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_the_inverse_matrix_brings_points_home(seed):
    rng = np.random.default_rng(seed)
    matrix = compose(
        fit_matrix((1920, 1080), (640, 640)), random_matrix((640, 360), (640, 640), ANY_ANGLE, rng)
    )
    points = rng.uniform(0, 1920, (50, 2))
    home = transform_points(transform_points(points, matrix), invert(matrix))
    assert np.abs(home - points).max() < 1e-3


@given(width=st.integers(1, 5000), height=st.integers(1, 5000))
@settings(max_examples=200, deadline=None)
def test_a_fitted_image_fills_the_canvas_in_one_direction_and_leaves_it_in_none(width, height):
    fitted = fitted_size((width, height), (320, 240))
    assert fitted[0] <= 320
    assert fitted[1] <= 240
    assert fitted[0] == 320 or fitted[1] == 240


def test_boxes_follow_the_rounding_of_the_fitted_size():
    size = (333, 501)
    pixels = np.zeros((501, 333, 3), np.uint8)
    fitted = fitted_size(size, (100, 100))
    resized = resize(pixels, fitted)
    whole = transform_boxes(np.array([[0, 0, 333, 501.0]]), fit_matrix(size, (100, 100)))[0]
    assert whole.tolist() == pytest.approx([0, 0, resized.shape[1], resized.shape[0]])


def test_the_content_always_meets_the_canvas():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        matrix = random_matrix((100, 80), (160, 120), ANY_ANGLE, rng)
        corners = transform_points(np.array([[0, 0], [100, 0], [100, 80], [0, 80.0]]), matrix)
        low, extent = corners.min(axis=0), np.ptp(corners, axis=0)
        room = np.array([160, 120]) - extent
        assert (low >= np.minimum(room, 0) - 1e-9).all()
        assert (low <= np.maximum(room, 0) + 1e-9).all()


@given(seed=st.integers(0, 2**32 - 1), away=st.sampled_from([0, 90, 500]))
@settings(max_examples=100, deadline=None)
def test_a_warp_looks_at_all_of_the_source_that_the_canvas_shows(seed, away):
    rng = np.random.default_rng(seed)
    pixels = cv2.resize(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), (120, 90))
    matrix = random_matrix((120, 90), (64, 48), ANY_ANGLE, rng)
    matrix[:, 2] += (away, -away)
    half = matrix[:, 2] + matrix[:, :2] @ [0.5, 0.5] - 0.5
    border = (PAD_VALUE,) * 3
    whole = cv2.warpAffine(pixels, np.column_stack([matrix[:, :2], half]), (64, 48), borderValue=border)
    assert np.abs(warp(pixels, matrix, (64, 48)).astype(int) - whole).max() <= 2


def test_colours_change_by_gain_and_around_the_middle_grey():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    augment = AugmentConfig(brightness=0.4, contrast=0.5, color=0.3)
    for seed in range(20):
        draws = np.random.default_rng(seed)
        gain = 1 + 0.4 * draws.uniform(-1, 1)
        gains = gain * (1 + 0.3 * draws.uniform(-1, 1, 3))
        wanted = (pixels * gains - 128) * (1 + 0.5 * draws.uniform(-1, 1)) + 128
        found = jitter_colors(pixels, augment, np.random.default_rng(seed))
        assert np.abs(found - wanted.clip(0, 255)).max() < 0.51


def test_colours_stay_as_they_are_without_jitter():
    plain = AugmentConfig(brightness=0, contrast=0, color=0)
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(jitter_colors(pixels, plain, np.random.default_rng(0)), pixels)
