"""How likely a row is of a kind that was planted, where an unknown share of all rows is of it already."""

import math

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

DOUBT = 0.1  # of the bound on the error of a share
GAMMA = 0.01  # weight of that bound beyond 1
LEAST = 1e-6  # of a share of rows
KNOTS = (0.05, 0.25, 0.5)  # quantiles of the planted at which the line may bend
STEADY = 3e-4  # weight of the log slopes' squares
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

    That is the density of the planted over that of all rows, times the kind's share, as a rising function of
    the score.

    Args:
        planted, rows: see `share_of_kind`.
    """
    share = share_of_kind(planted, rows)
    # Where the planted look like all others a share of 1 can't be refuted, and nothing is known.
    if share < LEAST or chance_of_more(planted, rows) < TELLING:
        return np.zeros(len(rows))
    scored = np.isfinite(rows)
    told = np.zeros(len(rows))
    told[scored] = _chances(planted, rows[scored], share)
    return told


def _chances(planted: np.ndarray, rows: np.ndarray, share: float) -> np.ndarray:
    """(U,) chances that make it likeliest, which of all scores are of the planted and which of the rows.

    Their log odds are a broken line that rises with the score. (A rising function of any shape follows every
    chance of the rows: where all are of the kind it would still say 0.7 of some.)
    """
    scores = np.concatenate([planted, rows])
    of_planted = np.repeat([1.0, 0.0], [len(planted), len(rows)])
    weight = np.repeat([1 / len(planted), 1 / len(rows)], [len(planted), len(rows)])
    knots = np.quantile(np.unique(planted), KNOTS)  # of ties only once
    lower, upper = np.append(-np.inf, knots), np.append(knots, np.inf)
    starts = np.append(knots[:1], knots)
    parts = (np.clip(scores[:, None], lower, upper) - starts) / max(float(planted.std()), LEAST)

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        """Of an offset and the log slopes: a score is of the planted with chance / (chance + share)."""
        slopes = np.exp(line[1:])
        odds = line[0] + parts @ slopes
        chance = expit(odds)
        value = weight @ (np.log(chance + share) - of_planted * log_expit(odds))
        pull = weight * (1 - chance) * (chance / (chance + share) - of_planted)
        gradient = np.append(pull.sum(), slopes * (pull @ parts) + 2 * STEADY * line[1:])
        return float(value + STEADY * line[1:] @ line[1:]), gradient

    found = [
        minimize(loss, [offset] + [0.0] * len(starts), jac=True, method="L-BFGS-B") for offset in (-3.0, 0.0)
    ]
    line = min(found, key=lambda result: result.fun).x
    return expit(line[0] + parts[len(planted) :] @ np.exp(line[1:]))
