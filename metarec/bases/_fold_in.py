"""Fold-in of many users at once, on padded arrays. Pure functions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
import torch

__all__ = ["BUDGET", "blocks", "flat", "nearest_means", "padded", "ridge_vectors"]

BUDGET = 1_000_000
"""Numbers in one padded array."""

SHORT = 40
"""Rows up to this length are padded together: the waste costs less than another block."""


def blocks(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Rows to pad together: at most `budget` numbers a block (but at least one row), of similar lengths.

    Past `SHORT` a row is padded to at most twice its length: a few long rows would make all others as long.

    Args:
        lengths: [N] the length of each row; empty rows are left out.
        budget: rows times the longest of them.

    >>> [list(rows) for rows in blocks(np.array([3, 0, 1, 2, 9]), 6)]
    [[2, 3], [0], [4]]
    """
    order = np.argsort(lengths, kind="stable")
    order = order[np.count_nonzero(lengths == 0) :]
    ascending = lengths[order].tolist()
    first = 0
    while first < len(order):
        counts = range(first + 1, len(order) + 1)
        fitting = bisect_right(counts, budget, key=lambda end: (end - first) * ascending[end - 1])
        alike = bisect_right(ascending, max(2 * ascending[first], SHORT), lo=first) - first
        last = first + max(min(fitting, alike), 1)
        yield order[first:last]
        first = last


def padded(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Non-empty runs in a flat array -> [N, L] positions in it, [N, L] true where real. Padding repeats the last."""
    steps = np.arange(lengths.max(initial=0))
    is_real = steps < lengths[:, None]
    return starts[:, None] + np.minimum(steps, lengths[:, None] - 1), is_real


def flat(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The positions of runs in a flat array, run after run, without padding.

    >>> flat(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) + np.repeat(starts - ends + lengths, lengths)


def ridge_vectors(
    table: np.ndarray,
    codes: np.ndarray,
    targets: np.ndarray,
    lengths: np.ndarray,
    penalties: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Each user's vector: the ridge regression of the user's targets on the vectors of the items.

    It is also the posterior mean of a Gaussian process with the linear kernel (Rasmussen, Williams 2006, eq. 2.11), so
    the smaller of the two systems is solved: as wide as the vectors, or as long as the history.

    Args:
        table: [I, F] item vectors.
        codes: [R] item codes and targets: [R], user after user.
        lengths: [B] the number of ratings of each user.
        penalties: [B] the squared norm's weight, above 0 for every user with a history.
        weights: [R] the weight of each squared error; None for 1.

    Returns:
        [B, F] vectors; zeros for users without a history.
    """
    width = table.shape[1]
    vectors = np.zeros((len(lengths), width))
    starts = np.cumsum(lengths) - lengths
    roots = np.ones(len(codes)) if weights is None else np.sqrt(weights)
    for rows in blocks(lengths, BUDGET // width):
        positions, is_real = padded(starts[rows], lengths[rows])
        factors = roots[positions] * is_real
        items = table[codes[positions]] * factors[..., None]
        wanted = (targets[positions] * factors)[..., None]
        transposed = items.swapaxes(1, 2)
        penalty = penalties[rows, None, None]
        if items.shape[1] < width:
            dual = np.linalg.solve(items @ transposed + penalty * np.eye(items.shape[1]), wanted)
            vectors[rows] = (transposed @ dual)[..., 0]
        else:
            vectors[rows] = np.linalg.solve(transposed @ items + penalty * np.eye(width), transposed @ wanted)[..., 0]
    return vectors


def nearest_means(weights: np.ndarray, values: np.ndarray, *, most: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of the values of the `most` heaviest neighbours, weighted.

    Neighbours that tie for the last places share them, so the result does not depend on their order.

    Args:
        weights: [N, L] similarities, 0 for no neighbour.
        values: [N, L].
        least: the mean of fewer neighbours is NaN.

    Returns:
        [N] means, NaN with too few neighbours, and [N] the sums of their weights, 0 where NaN.
    """
    counts = np.count_nonzero(weights, axis=1)
    if counts.max(initial=0) > most:
        top = torch.topk(torch.from_numpy(weights), most, dim=1, sorted=False).values
        last = top.amin(dim=1).numpy()[:, None]
        tied = weights == last
        places = most - np.count_nonzero(weights > last, axis=1)
        share = np.where(last[:, 0] > 0, places / np.maximum(np.count_nonzero(tied, axis=1), 1), 0)
        weights = np.where(weights > last, weights, 0) + tied * (last * share[:, None])
    can_say = np.minimum(counts, most) >= max(least, 1)
    sums = np.einsum("nl,nl->n", weights, values)
    totals = weights.sum(axis=1)
    means = np.divide(sums, totals, out=np.full(len(sums), np.nan), where=can_say)
    return means, np.where(can_say, totals, 0)
