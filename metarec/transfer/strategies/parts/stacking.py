"""Stacking weights of several predictions, from the products of their errors."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from metarec.episodes import Episodes

__all__ = ["error_products", "exchangeable", "squared_error", "stacking_weights"]


def error_products(episodes: Episodes, predictions: np.ndarray) -> np.ndarray:
    """[T, K, K] products of the errors of K predictions, summed over each user's query rows.

    With weights w the squared error of a user is w' P w.

    Args:
        predictions: [T, N, K] of the query rows, on the unit scale.
    """
    query = episodes.batch.query
    errors = np.where(query.mask.numpy()[..., None], predictions - query.targets.numpy()[..., None], 0.0)
    products: np.ndarray = np.einsum("tnk,tnl->tkl", errors, errors)
    return products


def squared_error(products: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[...] the squared error of the mean with weights [K], from error products [..., K, K]."""
    error: np.ndarray = np.einsum("...kl,k,l->...", products, weights, weights)
    return error


def exchangeable(products: np.ndarray) -> np.ndarray:
    """[K, K] the error products averaged over all orders of the predictions; the best weights for them are equal.

    >>> exchangeable(np.array([[1.0, 0.5], [0.5, 3.0]])).tolist()
    [[2.0, 0.5], [0.5, 2.0]]
    """
    number = len(products)
    own = np.trace(products) / number
    between = (products.sum() - np.trace(products)) / (number * (number - 1))
    return np.where(np.eye(number, dtype=bool), own, between)


def stacking_weights(products: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """[K] weights >= 0 that sum to 1, with the smallest squared error (stacked regressions, Breiman 1996).

    Args:
        products: [K, K] error products, positive semi-definite.
        allowed: [K] which may have a weight above 0; by default all.

    >>> stacking_weights(np.array([[1.0, 0.0], [0.0, 3.0]])).round(6).tolist()
    [0.75, 0.25]
    """
    places = np.arange(len(products)) if allowed is None else np.flatnonzero(allowed)
    inner = products[np.ix_(places, places)]
    # Nearly equal predictions make the products singular; any weights will do for them.
    inner = inner + 1e-9 * max(float(np.trace(inner)), 1e-12) * np.eye(len(inner))
    # The minimum of w' P w on the simplex is proportional to that of w' (P + 11') w - 2 1'w for w >= 0, a least
    # squares problem: with P = L L' both have the same optimality conditions up to the length of w.
    scale = float(np.trace(inner)) / len(inner)
    rows = np.vstack([np.linalg.cholesky(inner / scale).T, np.ones(len(inner))])
    found, _ = nnls(rows, np.append(np.zeros(len(inner)), 1.0))
    weights = np.zeros(len(products))
    weights[places] = found / found.sum()
    return weights
