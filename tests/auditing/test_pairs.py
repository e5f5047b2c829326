"""Pairs of boxes against a loop over images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxwright.auditing import pairs
from boxwright.auditing.pairs import best, greatest, overlapping
from boxwright.geometry.iou import pairwise_iou


def boxes(rng, count, angle):
    size = rng.uniform(5, 40, (count, 2))
    turn = rng.uniform(-3, 3, count) if angle else np.zeros(count)
    return np.column_stack([rng.uniform(0, 100, (count, 2)), size, turn]), rng.integers(0, 7, count)


@pytest.mark.parametrize("angle", [False, True])
@pytest.mark.parametrize("most", [10, 1_000_000])
def test_pairs_are_those_of_a_loop(monkeypatch, angle, most):
    monkeypatch.setattr(pairs, "MOST", most)
    rng = np.random.default_rng(0)
    (a, a_image), (b, b_image) = boxes(rng, 90, angle), boxes(rng, 70, angle)
    found = overlapping(a, a_image, b, b_image, 0.1)
    iou = pairwise_iou(a, b)
    expected = np.argwhere((iou > 0.1) & (a_image[:, None] == b_image))
    assert (np.diff(found.first) >= 0).all()
    order = np.lexsort((found.second, found.first))
    assert np.array_equal(np.column_stack([found.first, found.second])[order], expected)
    assert np.allclose(found.iou[order], iou[tuple(expected.T)], atol=1e-12)


def test_nothing_has_no_pairs():
    none, image = np.zeros((0, 5)), np.zeros(0, dtype=int)
    some, its = boxes(np.random.default_rng(0), 5, False)
    for a, b in (((none, image), (some, its)), ((some, its), (none, image)), ((none, image),) * 2):
        assert len(overlapping(*a, *b, 0.0).first) == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-5, 5)), max_size=30))
def test_greatest_of_groups(rows):
    groups = np.array([group for group, _ in rows], dtype=int)
    values = np.array([value for _, value in rows])
    found, place = greatest(values, groups, 5, blank=-9.0), best(values, groups, 5)
    for group in range(5):
        own = values[groups == group]
        assert found[group] == (own.max() if len(own) else -9.0)
        assert (place[group] == -1) if not len(own) else values[place[group]] == own.max()
        assert not len(own) or groups[place[group]] == group
