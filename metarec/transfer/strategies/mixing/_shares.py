"""How much of each of several predictions to take. Pure functions on numbers."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from metarec.episodes import Episodes

__all__ = ["best_shares", "error_products", "exchangeable", "squared_error"]


def error_products(episodes: Episodes, predictions: np.ndarray) -> np.ndarray:
    """[T, K, K] products of the errors of K predictions, summed over each user's query rows.

    With shares w the squared error of a user is w' P w, so that rows are needed only here.

    Args:
        predictions: [T, N, K] of the query rows, on the unit scale.
    """
    query = episodes.batch.query
    errors = np.where(query.mask.numpy()[..., None], predictions - query.targets.numpy()[..., None], 0.0)
    products: np.ndarray = np.einsum("tnk,tnl->tkl", errors, errors)
    return products


def squared_error(products: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """[...] the squared error of the mean with these shares [K], from error products [..., K, K]."""
    error: np.ndarray = np.einsum("...kl,k,l->...", products, shares, shares)
    return error


def exchangeable(products: np.ndarray) -> np.ndarray:
    """[K, K] what is to be expected before it is known which prediction is which: all as good, and as far apart.

    The shares that suit it are equal ones.

    >>> exchangeable(np.array([[1.0, 0.5], [0.5, 3.0]])).tolist()
    [[2.0, 0.5], [0.5, 2.0]]
    """
    number = len(products)
    own = np.trace(products) / number
    between = (products.sum() - np.trace(products)) / (number * (number - 1))
    return np.where(np.eye(number, dtype=bool), own, between)


def best_shares(products: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """[K] shares >= 0 that sum to 1, with the smallest squared error (stacked regressions, Breiman 1996).

    Predictions that are equally good and differ are averaged; one that is worse still gets a share, if it errs where
    the others do not.

    Args:
        products: [K, K] error products, positive semi-definite. allowed: [K] which may have a share; by default all.

    >>> best_shares(np.array([[1.0, 0.0], [0.0, 3.0]])).round(6).tolist()
    [0.75, 0.25]
    """
    places = np.arange(len(products)) if allowed is None else np.flatnonzero(allowed)
    inner = products[np.ix_(places, places)]
    # Predictions that are all but the same leave the products without a root; any share will do there.
    inner = inner + 1e-9 * max(float(np.trace(inner)), 1e-12) * np.eye(len(inner))
    # The minimum of w' P w on the simplex lies along that of w' (P + 11') w - 2 1'w for w >= 0, a least squares
    # problem: with P = L L' they have the same conditions of optimality but for the length of w.
    scale = float(np.trace(inner)) / len(inner)
    rows = np.vstack([np.linalg.cholesky(inner / scale).T, np.ones(len(inner))])
    found, _ = nnls(rows, np.append(np.zeros(len(inner)), 1.0))
    shares = np.zeros(len(products))
    shares[places] = found / found.sum()
    return shares
