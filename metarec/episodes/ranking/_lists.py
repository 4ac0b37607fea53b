"""Candidates of users, from the scores of all bases over the whole catalogue. Pure functions.

Shapes: A bases, R histories, I items of the catalogue, M best items of each base, N candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

__all__ = ["STEPS", "UserList", "make_list", "standard_scores", "top_items"]

STEPS = 12.0
"""Standard deviations across the unit scale: a standard score z is 0.5 + z / 12 there.

It is not clipped: a popular item may have a z of 15, and a clip would tie the top of such a base's list.
"""


class UserList(NamedTuple):
    """One history's candidates, in the order of their codes, which does not depend on what is relevant.

    Attributes:
        items: [N] codes of the candidates.
        scores: [N, A] the standard score of each over the candidates, on the unit scale; NaN in the whole column of a
            base without scores for this history.
        ranks: [N, A] the place of a candidate in the base's whole list, from 0; M for a candidate that the base does
            not propose.
        percentiles: [N, A] the share of the other candidates that have a lower score of this base; 0.5 for NaN.
    """

    items: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    percentiles: np.ndarray


def top_items(scores: np.ndarray, excluded: Sequence[np.ndarray], most: int) -> tuple[np.ndarray, np.ndarray]:
    """The best items of one base, for each history.

    Args:
        scores: [R, I] of the base; a row of NaN proposes nothing.
        excluded: the codes of each history, which are never candidates.
        most: M.

    Returns:
        [R, m] codes, the best first, with m = min(M, I), and [R, m] whether each is proposed.
    """
    table = np.array(scores, dtype=np.float32)
    table[np.isnan(table[:, 0])] = -np.inf
    for row, codes in enumerate(excluded):
        table[row, codes] = -np.inf
    best = torch.topk(torch.from_numpy(table), min(most, table.shape[1]), dim=1)
    return best.indices.numpy(), np.isfinite(best.values.numpy())


def standard_scores(values: np.ndarray) -> np.ndarray:
    """[N, A] scores of the candidates -> standard scores on the unit scale; equal scores become 0.5, NaN stays."""
    if not len(values):
        return values
    centred = values - values.mean(0)
    spread = centred.std(0)
    z = np.where(spread > 1e-9, centred / np.where(spread > 1e-9, spread, 1.0), centred * 0.0)
    return np.asarray(0.5 + z / STEPS)


def make_list(
    scores: np.ndarray, tops: np.ndarray, proposed: np.ndarray, most: int, more: np.ndarray | None = None
) -> UserList:
    """The candidates of one history: the union of what the bases propose.

    Args:
        scores: [A, I] of the bases. tops: [A, m] their best items; proposed: [A, m], see :func:`top_items`.
        most: M, the rank of an item that a base does not propose.
        more: codes that are candidates in any case.
    """
    items = np.unique(np.concatenate([tops[proposed], *([] if more is None else [more])]))
    own = scores[:, items].astype(np.float64).T
    # Small types, because all users' lists are in memory together.
    ranks = np.full(own.shape, most, dtype=np.int16)
    bases, places = np.nonzero(proposed)
    ranks[np.searchsorted(items, tops[proposed]), bases] = places
    percentiles = np.where(np.isnan(own), 0.5, _lower(own) / max(len(items) - 1, 1))
    return UserList(items, standard_scores(own).astype(np.float32), ranks, percentiles.astype(np.float32))


def _lower(values: np.ndarray) -> np.ndarray:
    """[N, A] the number of lower values in the same column."""
    order = np.argsort(values, axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    # Equal values have the place of the first one.
    places = np.arange(len(values))[:, None] * np.concatenate(
        [np.full((min(len(values), 1), values.shape[1]), True), ordered[1:] != ordered[:-1]]
    )
    lower = np.empty(values.shape, dtype=np.int64)
    np.put_along_axis(lower, order, np.maximum.accumulate(places, axis=0), axis=0)
    return lower
