"""Samplers on small cases worked out by hand, and prime sample weights against the slow definition."""

import pytest
import torch

from boxwright.assign.samplers import ohem_sample, prime_weights, random_sample

POSITIVE = torch.tensor([[True, True, True, False, False, False, False], [False] * 7])
NEGATIVE = torch.tensor([[False, False, False, True, True, True, False], [True] * 7])


def test_ohem_takes_the_hardest_of_each_kind():
    losses = torch.tensor([[3.0, 1, 2, 9, 7, 8, 99], [1.0, 2, 3, 4, 5, 6, 7]])
    chosen = ohem_sample(losses, POSITIVE, NEGATIVE, 4, 0.5)
    assert chosen[0].tolist() == [True, False, True, True, False, True, False]
    # No positives: negatives fill the sample.
    assert chosen[1].tolist() == [False, False, False, True, True, True, True]


def test_random_samples_have_the_share_and_take_everyone_in_turn():
    generator = torch.Generator().manual_seed(0)
    seen = torch.zeros_like(POSITIVE, dtype=torch.long)
    for _ in range(200):
        chosen = random_sample(POSITIVE, NEGATIVE, 4, 0.25, generator)
        assert (chosen & POSITIVE).sum(1).tolist() == [1, 0]
        assert (chosen & NEGATIVE).sum(1).tolist() == [3, 4]
        seen += chosen
    assert (seen[0, :3] > 40).all()
    assert (seen[1] > 70).all()
    assert seen[0, 6] == 0


def slow_prime_weights(iou, matched_gt, labels, losses, power, bias):
    """ISR-P as the paper tells it, one class and box at a time."""
    weights = torch.ones_like(iou)
    rows = [(b, p) for b in range(len(iou)) for p in range(iou.shape[1]) if matched_gt[b, p] >= 0]
    by_class: dict[int, list] = {}
    for b, p in rows:
        by_class.setdefault(int(labels[b, matched_gt[b, p]]), []).append((b, p))
    most = max(len(v) for v in by_class.values())
    for members in by_class.values():
        in_box = {
            (b, p): sum(
                1
                for c, q in members
                if c == b and matched_gt[c, q] == matched_gt[b, p] and iou[c, q] > iou[b, p]
            )
            for b, p in members
        }
        order = sorted(members, key=lambda row: (in_box[row], -float(iou[row])))
        for rank, row in enumerate(order):
            weights[row] = (bias + (1 - bias) * (most - rank) / most) ** power
    scale = sum(losses[r] for r in rows) / sum(losses[r] * weights[r] for r in rows)
    for row in rows:
        weights[row] *= scale
    return weights


@pytest.mark.parametrize("seed", range(8))
def test_prime_weights_are_those_of_the_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    iou = torch.rand(3, 40, generator=generator)
    matched_gt = torch.randint(-3, 5, (3, 40), generator=generator).clamp(min=-1)
    labels = torch.randint(0, 3, (3, 5), generator=generator)
    losses = torch.rand(3, 40, generator=generator)
    found = prime_weights(iou, matched_gt, labels, losses, 2.0, 0.1)
    assert torch.allclose(found, slow_prime_weights(iou, matched_gt, labels, losses, 2.0, 0.1), atol=1e-5)
    positive = matched_gt >= 0
    assert (found * losses * positive).sum() == pytest.approx(float((losses * positive).sum()), rel=1e-4)


def test_prime_weights_without_boxes_or_positives_are_one():
    iou = torch.rand(2, 5)
    none = torch.full((2, 5), -1)
    for groups in (0, 3):
        assert (prime_weights(iou, none, torch.zeros(2, groups, dtype=torch.long), iou) == 1).all()
