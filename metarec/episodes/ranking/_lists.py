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
    table = torch.from_numpy(np.array(scores, dtype=np.float32))
    for row, codes in enumerate(excluded):
        table[row, torch.from_numpy(codes)] = -torch.inf
    table = torch.where(table.isnan(), -torch.inf, table)
    best = torch.topk(table, min(most, table.shape[1]), dim=1)
    return best.indices.numpy(), np.isfinite(best.values.numpy())


def standard_scores(values: np.ndarray) -> np.ndarray:
    """[N, A] scores of the candidates -> standard scores on the unit scale; equal scores become 0.5, NaN stays."""
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
    ranks = np.full(own.shape, most, dtype=np.int64)
    for base, (codes, real) in enumerate(zip(tops, proposed, strict=True)):
        ranks[np.searchsorted(items, codes[real]), base] = np.flatnonzero(real)
    order = np.sort(own, axis=0)
    lower = np.stack([np.searchsorted(order[:, base], own[:, base]) for base in range(len(scores))], axis=1)
    percentiles = np.where(np.isnan(own), 0.5, lower / max(len(items) - 1, 1))
    # Small types, because all users' lists are in memory together.
    return UserList(
        items, standard_scores(own).astype(np.float32), ranks.astype(np.int16), percentiles.astype(np.float32)
    )
