"""Scores that are probabilities: a logistic curve over the logit of the score.

A temperature alone can't do it: a detector whose correct detections score 0.3 to 0.6 needs a shift too.
"""

import numpy as np

ROUNDS = 50
LEAST_SLOPE = 0.05  # the order of scores has to stay
LEAST_SCORE = 1e-6  # whose logit is finite
RIDGE = 1e-6  # keeps the step finite where true and false don't overlap


def fit_platt(score: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Slope and shift of sigmoid(slope * logit(score) + shift), of greatest likelihood; (1, 0) where one of
    true and false is missing.

    Args:
        score: (N,) in [0, 1].
        true: (N,) bool.

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999, with its targets short of 0 and 1.
    """
    positives, negatives = int(true.sum()), int((~true).sum())
    if not positives or not negatives:
        return 1.0, 0.0
    x = logit(score)
    target = np.where(true, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    slope, shift = 1.0, float(np.log((positives + 1) / (negatives + 1)))
    loss = _surprise(x, target, slope, shift)
    for _ in range(ROUNDS):
        p = _sigmoid(slope * x + shift)
        weight, error = p * (1 - p), p - target
        gradient = np.array([(error * x).sum(), error.sum()])
        cross = (weight * x).sum()
        hessian = np.array([[(weight * x * x).sum(), cross], [cross, weight.sum()]]) + RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        factor = 1.0
        while factor > 1e-4:
            tried = max(slope - factor * step[0], LEAST_SLOPE), shift - factor * step[1]
            new = _surprise(x, target, *tried)
            if new <= loss:
                break
            factor /= 2
        else:
            break
        done = loss - new < 1e-10 * len(x)
        slope, shift, loss = float(tried[0]), float(tried[1]), new
        if done:
            break
    return slope, shift


def probability(score: np.ndarray, slope: np.ndarray | float, shift: np.ndarray | float) -> np.ndarray:
    """sigmoid(slope * logit(score) + shift)."""
    return _sigmoid(slope * logit(score) + shift)


def logit(score: np.ndarray) -> np.ndarray:
    """log(score / (1 - score)), finite at 0 and 1."""
    inner = np.clip(score, LEAST_SCORE, 1 - LEAST_SCORE)
    return np.log(inner) - np.log1p(-inner)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _surprise(x: np.ndarray, target: np.ndarray, slope: float, shift: float) -> float:
    z = slope * x + shift
    return float((np.logaddexp(0, z) - target * z).sum())
