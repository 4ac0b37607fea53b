"""Nearest neighbours in sparse tables of similarities. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy import sparse

__all__ = ["ITEMS_AT_ONCE", "row_norms", "strongest", "strongest_shared"]

ITEMS_AT_ONCE = 1000
"""Rows of a table of similarities that exist at the same time before all but the strongest are dropped."""


def row_norms(rows: sparse.csr_array) -> np.ndarray:
    """[N] the Euclidean length of each row."""
    return np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1), dtype=np.float64).ravel())


def strongest(table: sparse.csr_array, most: int) -> sparse.csr_array:
    """The table with the `most` largest entries of each row. Of equal ones the first in the order of columns stay."""
    table.sort_indices()
    kept = []
    for first, last in _bounds(table):
        if last - first <= most:
            kept.append(np.arange(first, last))
        else:
            kept.append(first + np.sort(np.argsort(-table.data[first:last], kind="stable")[:most]))
    lengths = [len(places) for places in kept]
    places = np.concatenate([np.zeros(0, dtype=np.int64), *kept])
    bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return sparse.csr_array((table.data[places], table.indices[places], bounds), shape=table.shape)


def strongest_shared(table: sparse.csr_array, most: int) -> sparse.csr_array:
    """As :func:`strongest`, but equal entries share the last places, so the order of columns does not matter."""
    table = table.copy()
    for first, last in _bounds(table):
        if last - first > most:
            row = table.data[first:last]
            least = np.partition(row, -most)[-most]
            larger, equal = row > least, row == least
            share = (most - np.count_nonzero(larger)) / np.count_nonzero(equal)
            table.data[first:last] = row * (larger + equal * share)
    table.eliminate_zeros()
    return table


def _bounds(table: sparse.csr_array) -> Iterator[tuple[int, int]]:
    bounds = table.indptr.tolist()
    return pairwise(bounds)
