"""A convex combination of several models, chosen on validation users. Pure functions on arrays."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from metarec.errors import InputError

__all__ = ["PULL", "convex_weights"]

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
