"""Shares and probabilities of kinds against known mixtures."""

import numpy as np
import pytest

from boxwright.auditing.mixture import chance_of_more, probabilities, share_of_kind


def mixture(share, count=6000, apart=3.0, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.random(count) < share
    rows = rng.normal(0, 1, count) + apart * kind
    return rng.normal(apart, 1, 2000), rows, kind


@pytest.mark.parametrize("share", [0.0, 0.03, 0.1, 0.3])
def test_shares_are_found(share):
    planted, rows, _ = mixture(share)
    assert share_of_kind(planted, rows) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_probabilities_are_frequencies(share):
    planted, rows, kind = mixture(share, seed=1)
    found = probabilities(planted, rows)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found[np.argsort(rows)]) >= -1e-12).all()
    place = np.minimum((found * 10).astype(int), 9)
    off = [
        abs(found[place == n].mean() - kind[place == n].mean()) * (place == n).mean()
        for n in np.unique(place)
    ]
    assert sum(off) < 0.03


def test_faults_that_stand_apart_are_surely_faults():
    sure, unsure = [], []
    for seed in range(5):
        planted, rows, kind = mixture(0.05, count=2600, apart=7.0, seed=seed)
        found = probabilities(planted, rows)
        sure.append(found[kind].mean())
        unsure.append(found[~kind].mean())
    assert np.mean(sure) > 0.96
    assert np.mean(unsure) < 0.003


def test_rows_without_a_score_are_no_fault():
    planted, rows, kind = mixture(0.1, apart=7.0)
    rows[kind] = -np.inf
    assert not probabilities(planted, rows)[kind].any()


def test_nothing_planted_is_no_fault():
    rows = np.arange(5.0)
    assert not probabilities(np.zeros(0), rows).any()
    assert share_of_kind(np.zeros(0), rows) == 0
    assert len(probabilities(np.zeros(3), np.zeros(0))) == 0


def test_kinds_that_look_like_all_others_are_not_suspected():
    rng = np.random.default_rng(0)
    assert not probabilities(rng.normal(0, 1, 500), rng.normal(0, 1, 3000)).any()


def test_chance_of_more_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    planted, rows = rng.integers(0, 9, 40) + 1.0, rng.integers(0, 9, 70) * 1.0
    pairs = (planted[:, None] > rows).mean() + (planted[:, None] == rows).mean() / 2
    assert chance_of_more(planted, rows) == pytest.approx(pairs)


def test_scores_of_few_values_have_the_chance_of_each():
    rng, values = np.random.default_rng(0), np.array([-1.0, -0.8, -0.5, 0.0, 0.5, 1.0])
    of_kind, of_others = [0.06, 0.01, 0.01, 0.09, 0.04, 0.79], [0.83, 0.04, 0.02, 0.09, 0.015, 0.005]
    planted, share = rng.choice(values, 3000, p=of_kind), 0.06
    wrong = rng.random(20_000) < share
    rows = np.where(wrong, rng.choice(values, 20_000, p=of_kind), rng.choice(values, 20_000, p=of_others))
    told = probabilities(planted, rows)
    for value in (-1.0, 0.0, 1.0):
        assert told[rows == value].mean() == pytest.approx(wrong[rows == value].mean(), abs=0.16)
