"""Convex combinations of several models, chosen on users that no model learned from. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import nnls

from metarec.errors import InputError

__all__ = ["PULL", "bagged_greedy_weights", "convex_weights", "greedy_path"]

PULL = 0.1
"""The strength of the pull towards equal weights, per row, in units of the models' mean squared disagreement."""

_SUM = 1e4
"""The penalty on a sum other than 1: the sum is 1 to four digits before it is normalised."""


def convex_weights(predictions: np.ndarray, targets: np.ndarray, *, pull: float = PULL) -> np.ndarray:
    """[M] weights >= 0 with sum 1, of the combination with the smallest squared error.

    Stacked regression with weights that cannot be negative (Breiman, "Stacked regressions", Machine Learning, 1996),
    pulled towards the plain mean, which decides between models that agree.

    Args:
        predictions: [R, M] of M models. targets: [R] the true ratings, of users that no model learned from.
        pull: >= 0; 0 is the least squares alone, and infinity the plain mean.

    Raises:
        InputError: no rows or no models, shapes that do not fit, or numbers that are not finite.

    >>> convex_weights(np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.0]]), np.array([0.0, 1.0, 0.5]), pull=0.0)
    array([1., 0.])
    """
    predictions, targets = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if predictions.ndim != 2 or targets.shape != predictions.shape[:1] or predictions.size == 0:
        raise InputError(
            f"predictions [R, M] and targets [R] must have rows in common but got {list(predictions.shape)} "
            f"and {list(targets.shape)}"
        )
    if not (np.isfinite(predictions).all() and np.isfinite(targets).all()):
        raise InputError("predictions and targets must be finite to be combined")
    if not pull >= 0:
        raise InputError(f"pull must be >= 0 but got {pull}")
    rows, models = predictions.shape
    equal = np.full(models, 1 / models)
    mean = predictions.mean(1, keepdims=True)
    disagreement = float(((predictions - mean) ** 2).mean())
    if np.isinf(pull) or disagreement == 0:
        return equal
    # With weights that sum to 1, the mean of the models drops out of the error, and the rest is well conditioned.
    scale = np.sqrt(disagreement * rows)
    pulled = np.sqrt(pull) * scale
    left = np.vstack([predictions - mean, pulled * np.eye(models), np.full((1, models), _SUM * scale)])
    right = np.concatenate([targets - mean[:, 0], pulled * equal, [_SUM * scale]])
    weights, _ = nnls(left / scale, right / scale)
    return weights / weights.sum()


def bagged_greedy_weights(
    scores: np.ndarray,
    value: Callable[[np.ndarray], np.ndarray],
    *,
    steps: int,
    bags: int,
    seed: int,
    shares: np.ndarray | None = None,
) -> np.ndarray:
    """[M] weights >= 0 with sum 1: the mean of greedy selections on bootstrap samples of users.

    Each selection ends before the first step without a higher value (:func:`greedy_path`). One selection on few users
    fits their noise; the mean over samples is closer to equal weights where models are hard to tell apart.

    Args:
        scores: [M, T, ...] of M models on one scale. value: maps a sum of scores [T, ...] to the value of each user
            [T]. steps: the most steps of a selection. bags: bootstrap samples. seed: of their draw.
        shares: [T] the chance of each user in a draw; by default all have the same.
    """
    users = scores.shape[1]
    shares = np.full(users, 1 / users) if shares is None else shares
    draws = np.random.default_rng(seed).multinomial(users, shares, size=bags)
    selected = [
        greedy_path(scores, lambda total, draw=draw: float(draw @ value(total)), steps, early_end=True)[-1]  # type: ignore[misc]
        for draw in draws
    ]
    weights: np.ndarray = np.mean(selected, axis=0)
    return weights


def greedy_path(
    scores: np.ndarray, value: Callable[[np.ndarray], float], steps: int, *, early_end: bool = False
) -> np.ndarray:
    """[steps, M] weights after each step of a greedy selection with replacement; each step's sum is 1.

    The selection starts with the best model, and each step adds the model with which the sum has the highest value; the
    first one wins a tie (R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, "Ensemble selection from libraries of
    models", ICML 2004).

    Args:
        scores: [M, ...] of M models on one scale. value: maps a sum of scores [...] to its quality, whatever its scale.
        early_end: whether the selection ends, with fewer steps, before the first step without a higher value.
    """
    total, counts = np.zeros(scores.shape[1:]), np.zeros(len(scores))
    path: list[np.ndarray] = []
    highest = -np.inf
    for _ in range(steps):
        values = [value(total + own) for own in scores]
        best = int(np.argmax(values))
        if early_end and values[best] <= highest:
            break
        highest = values[best]
        total = total + scores[best]
        counts[best] += 1
        path.append(counts / counts.sum())
    return np.stack(path)
