"""Tiles: they cover the image, and what they saw becomes one detection an object."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon
from shapely import box as rectangle

from boxwright.errors import ConfigError
from boxwright.geometry import tiling
from boxwright.geometry.conventions import corners, min_area_rectangle
from boxwright.geometry.tiling import choose_tile, hulls_of, is_cut, merge_tiles, tile_windows

lengths = st.integers(1, 900)


@given(lengths, lengths, st.integers(20, 300), st.integers(20, 300), st.floats(0, 0.9))
@settings(max_examples=200, deadline=None)
def test_every_object_no_larger_than_the_overlap_is_whole_in_a_tile(width, height, tile_w, tile_h, share):
    overlap = (tile_w * share, tile_h * share)
    windows = tile_windows((width, height), (tile_w, tile_h), overlap)
    covered = np.zeros((height, width), dtype=bool)
    for x1, y1, x2, y2 in windows:
        assert x1 >= 0
        assert y1 >= 0
        assert x2 <= max(width, tile_w)
        assert y2 <= max(height, tile_h)
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    rng = np.random.default_rng(0)
    for _ in range(20):
        size = np.minimum(np.floor(overlap), (width, height))
        start = rng.uniform(0, np.array([width, height]) - size)
        inside = (windows[:, :2] <= start) & (start + size <= np.maximum(windows[:, 2:], 0))
        assert inside.all(axis=1).any()


@given(
    st.integers(20, 9000),
    st.integers(20, 9000),
    st.sampled_from([0.0, 31.5, 300.0]),
    st.integers(18, 23),
    st.sampled_from([0, 64, 300]),
)
@settings(max_examples=100, deadline=None)
def test_no_other_tiles_have_fewer_pixels(width, height, overlap, power, least):
    stride, area = 32, 2**power
    chosen = choose_tile((width, height), area, overlap, stride, least)
    assert chosen[0] * chosen[1] <= area
    assert chosen[0] % stride == chosen[1] % stride == 0
    assert min(chosen) >= least

    def all_sides(length):
        """Every side there is, and how many tiles of it cover the length."""
        first = max(least, min(int(overlap) + 1, length))
        sides = np.arange(-(-first // stride), -(-max(length, least) // stride) + 1) * stride
        return sides, np.array([len(tile_windows((length, 1), (s, 1), (overlap, 0.0))) for s in sides])

    (widths, columns), (heights, rows) = all_sides(width), all_sides(height)
    pixels = np.outer(columns * (widths + stride), rows * (heights + stride))
    allowed = np.outer(widths, heights) <= area
    assert pixels[widths == chosen[0], heights == chosen[1]] == pixels[allowed].min()


def seen(truth: np.ndarray, windows: np.ndarray, size: tuple[int, int], oriented: bool):
    """Each object as every tile sees it: whole, or a piece."""
    rows, labels, cut_windows = [], [], []
    for n, box in enumerate(truth):
        hull = hulls_of(box[None])[0]
        for window in windows:
            part = np.concatenate([np.maximum(hull[:2], window[:2]), np.minimum(hull[2:], window[2:])])
            if (part[2:] - part[:2] < 2).any():
                continue
            if oriented and not (part == hull).all():
                visible = Polygon(corners(box[None])[0]).intersection(rectangle(*window))
                if visible.area < 0.3 * box[2] * box[3]:  # too little to be told
                    continue
                rows.append(min_area_rectangle(np.array(visible.exterior.coords)))
            else:
                rows.append(box if oriented else part)
            labels.append(n % 3)
            cut_windows.append(window)
    boxes, labels, cut_windows = np.array(rows), np.array(labels), np.array(cut_windows)
    scores = np.random.default_rng(1).uniform(0.3, 1, len(boxes))
    return boxes, scores, labels, is_cut(boxes, cut_windows, size, 1.0)


@pytest.mark.parametrize("merge", ["nms", "fuse"])
@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("pairs", [tiling.PAIRS, 100])  # at once: 100 are fewer than one piece has
def test_pieces_go_and_whole_objects_stay_once(merge, oriented, pairs, monkeypatch):
    monkeypatch.setattr(tiling, "PAIRS", pairs)
    rng = np.random.default_rng(0)
    size, tile = (900, 700), (200, 200)
    windows = tile_windows(size, tile, (60.0, 60.0))
    # A grid with room between, so that no two objects touch.
    places = np.stack(np.meshgrid(np.arange(30, 880, 70), np.arange(30, 680, 70)), -1).reshape(-1, 2)
    sides = rng.uniform([30, 12], [48, 24], (len(places), 2))
    angles = rng.uniform(-1.5, 1.5, (len(places), 1))
    truth = np.concatenate([places, sides, angles], axis=1)
    if not oriented:
        truth = hulls_of(truth)
    boxes, scores, labels, cut = seen(truth, windows, size, oriented)
    assert cut.any()
    assert len(boxes) > 1.5 * len(truth)
    found, best, found_labels, place = merge_tiles(boxes, scores, labels, cut, merge, 0.5)
    assert len(found) == len(truth)
    assert (np.diff(best) <= 0).all()
    order, own = (np.lexsort(np.round(b[:, :2]).T) for b in (hulls_of(found), hulls_of(truth)))
    assert np.allclose(found[order], truth[own])
    # Each is at the place of one of those that it was made of.
    assert np.abs(hulls_of(boxes[place]) - hulls_of(found)).max() < 1e-6
    assert (scores[place] == best).all()
    assert (found_labels[order] == (np.arange(len(truth)) % 3)[own]).all()


def test_what_no_tile_saw_whole_stays_in_pieces():
    size = (400, 100)
    windows = tile_windows(size, (200, 100), (20.0, 20.0))
    truth = np.array([[50.0, 40.0, 350.0, 60.0]])
    boxes, scores, labels, cut = seen(truth, windows, size, oriented=False)
    found, _, _, _ = merge_tiles(boxes, scores, labels, cut, "nms", 0.5)
    assert len(found) == len(windows)
    assert found[:, 0].min() == 50
    assert found[:, 2].max() == 350


def test_soft_merging_lowers_scores_and_keeps_neighbours():
    boxes = np.array([[0.0, 0, 20, 20], [1, 0, 21, 20], [40, 0, 60, 20]])
    scores = np.array([0.9, 0.8, 0.7])
    found, soft, _, _ = merge_tiles(boxes, scores, np.zeros(3, int), np.zeros(3, bool), "soft", 0.5)
    assert len(found) == 3
    assert soft[0] == 0.9
    assert soft.min() < 0.5


def test_tiles_that_can_not_be_are_refused():
    with pytest.raises(ConfigError, match="larger than what they share"):
        tile_windows((100, 100), (20, 20), (20.0, 5.0))
    with pytest.raises(ConfigError, match="tiles of 4,096 px in all that share 64 px"):
        choose_tile((1000, 1000), 64 * 64, 64.0, 32)
    with pytest.raises(ConfigError, match="merge 'best'"):
        merge_tiles(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), np.zeros(0, bool), "best", 0.5)
