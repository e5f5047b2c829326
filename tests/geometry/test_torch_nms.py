"""Suppression of whole groups at once against torchvision's, one group after another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from boxwright.geometry import torch_nms
from boxwright.geometry.torch_nms import grouped_nms


def one_by_one(boxes, scores, group, threshold) -> torch.Tensor:
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    for g in group.unique():
        places = (group == g).nonzero()[:, 0]
        kept[places[nms(boxes[places], scores[places], threshold)]] = True
    by_score = scores.argsort(descending=True, stable=True)
    return by_score[kept[by_score]]


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 120),
    groups=st.integers(1, 9),
    threshold=st.sampled_from([0.0, 0.31, 0.52, 0.71]),  # quotients of such boxes are none of these
)
@settings(max_examples=100, deadline=None)
def test_groups_are_suppressed_as_one_by_one(seed, count, groups, threshold):
    at_random = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 20, (count, 2), generator=at_random)
    boxes = torch.cat([corner, corner + torch.randint(0, 12, (count, 2), generator=at_random)], 1).float()
    # Few scores, so that many are equal.
    scores = torch.randint(0, 9, (count,), generator=at_random) / 8
    group = torch.randint(0, groups, (count,), generator=at_random) * 3
    expected = one_by_one(boxes, scores, group, threshold)
    assert torch.equal(grouped_nms(boxes, scores, group, threshold), expected)


@pytest.mark.parametrize("pairs", [1, 500, 3000])
def test_tables_of_few_pairs_change_nothing(monkeypatch, pairs):
    monkeypatch.setattr(torch_nms, "PAIRS", pairs)
    test_groups_are_suppressed_as_one_by_one()


def test_a_long_chain_is_followed_to_its_end():
    # Each box lies on its two neighbours alone: the first strikes the second, so that the third stays.
    left = torch.arange(101.0)
    boxes = torch.stack([left, left * 0, left + 1.9, left * 0 + 1], 1)
    kept = grouped_nms(boxes, -left, torch.zeros(101, dtype=torch.int64), 0.2)
    assert torch.equal(kept, torch.arange(0, 101, 2))
