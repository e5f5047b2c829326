"""How likely a row is of a kind that was planted, where an unknown share of all rows is of it already."""

import math

import numpy as np
from sklearn.isotonic import IsotonicRegression

DOUBT = 0.1  # of the bound on the error of a share
GAMMA = 0.01  # weight of that bound beyond 1
LEAST = 1e-6  # of a share of rows
TELLING = 0.7  # chance that a planted row has a greater score than another, below which scores tell nothing


def share_of_kind(planted: np.ndarray, rows: np.ndarray) -> float:
    """Which share of `rows` is of the planted kind.

    The share of rows whose score is above a bound is at least the kind's share times that of the planted: the
    bound where this says most, as in Garg et al., Mixture Proportion Estimation and PU Learning: A Modern
    Approach, NeurIPS 2021, algorithm 1.

    Args:
        planted: (P,) scores of those that are surely of the kind.
        rows: (U,) scores of all.
    """
    if not len(planted) or not len(rows):
        return 0.0
    bounds = np.unique(planted)
    above_planted = 1 - np.searchsorted(np.sort(planted), bounds, side="left") / len(planted)
    above_rows = 1 - np.searchsorted(np.sort(rows), bounds, side="left") / len(rows)
    error = math.sqrt(math.log(4 / DOUBT) / (2 * len(rows))) + math.sqrt(
        math.log(4 / DOUBT) / (2 * len(planted))
    )
    place = np.argmin((above_rows + (1 + GAMMA) * error) / above_planted)
    return float(min(1.0, above_rows[place] / above_planted[place]))


def chance_of_more(planted: np.ndarray, rows: np.ndarray) -> float:
    """The chance that a planted row has a greater score than one of all, ties by half: the area under ROC."""
    order = np.sort(rows)
    below = np.searchsorted(order, planted, side="left") + np.searchsorted(order, planted, side="right")
    return float(below.mean() / (2 * len(rows)))


def probabilities(planted: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(U,) the probability of each row to be of the planted kind.

    The density of the planted over that of all rows, of which a rising function of the score is learnt, times
    the kind's share.

    Args:
        planted, rows: see `share_of_kind`.
    """
    share = share_of_kind(planted, rows)
    # Where the planted look like all others a share of 1 can't be refuted, and nothing is known.
    if share < LEAST or chance_of_more(planted, rows) < TELLING:
        return np.zeros(len(rows))
    scores = np.concatenate([planted, rows])
    target = np.repeat([1.0, 0.0], [len(planted), len(rows)])
    weight = np.repeat([1 / len(planted), 1 / len(rows)], [len(planted), len(rows)])
    rising = IsotonicRegression(y_min=0, y_max=1).fit(scores, target, sample_weight=weight)
    mixed = np.clip(rising.predict(rows), 0, 1 - LEAST)
    told = np.minimum(1.0, share * mixed / (1 - mixed))
    # A rising function has steps; within one the score still tells which is likelier.
    place = np.searchsorted(np.sort(rows), rows, side="right") / len(rows)
    return told * (1 - LEAST * (1 - place))
