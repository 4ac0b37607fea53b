"""The metrics of ranking, of each user, from the ranks of the relevant candidates. Pure functions on arrays.

A candidate is an item that some base proposed. A relevant item that no base proposed has no rank, and counts as missed:
the number of relevant items is that of the whole catalogue.

Shapes: T users, N candidates, P relevant candidates of all users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from metarec.episodes import FusionInputs
from metarec.errors import InputError

__all__ = ["RankingJudge", "RelevantRanks", "hit", "mrr", "ndcg", "recall", "standard_scores"]

CUT = 10
"""The length of the list by which everything is chosen."""

_COMPARED = 4_000_000
"""Scores that are compared at once."""


class RelevantRanks(NamedTuple):
    """The ranks of the relevant candidates.

    Attributes:
        task: [P] the user of each, a position in `relevant`. rank: [P] from 1. Of candidates with equal scores, the one
            in the earlier column is ranked first.
        relevant: [T] the number of relevant items of each user in the whole catalogue, >= 1.
    """

    task: np.ndarray
    rank: np.ndarray
    relevant: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, targets: np.ndarray, mask: np.ndarray, relevant: np.ndarray) -> RelevantRanks:
        """Rank the candidates by their scores.

        Args:
            scores: [T, N], higher is better. targets: [T, N], above 0 for a relevant candidate. mask: [T, N], false in
                padding. relevant: [T] see above.

        Raises:
            InputError: a user without relevant items, or with fewer of them than relevant candidates.
            FloatingPointError: the score of a candidate is not finite.
        """
        is_relevant = (targets > 0) & mask
        relevant = np.asarray(relevant)
        wrong = np.flatnonzero((relevant < 1) | (relevant < is_relevant.sum(1)))
        if len(wrong):
            raise InputError(
                "a user must have at least one relevant item, and as many as relevant candidates, but the user at "
                f"place {wrong[0]} has {relevant[wrong[0]]} and {int(is_relevant[wrong[0]].sum())}"
            )
        if not np.isfinite(scores[mask]).all():
            raise FloatingPointError(f"{int((~np.isfinite(scores[mask])).sum())} scores of candidates are not finite")
        ordered = np.where(mask, scores, -np.inf)
        task, column = np.nonzero(is_relevant)
        rank = np.empty(len(task), dtype=np.int64)
        columns = np.arange(scores.shape[1])
        step = max(1, _COMPARED // max(scores.shape[1], 1))
        for first in range(0, len(task), step):
            part = slice(first, first + step)
            others, own = ordered[task[part]], ordered[task[part], column[part]][:, None]
            ahead = (others > own) | ((others == own) & (columns < column[part][:, None]))
            rank[part] = 1 + ahead.sum(1)
        return cls(task, rank, relevant)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """[T] the sums over each user's relevant candidates of `values` [P]."""
        return np.bincount(self.task, weights=values, minlength=len(self.relevant))


def ndcg(ranks: RelevantRanks, k: int = CUT) -> np.ndarray:
    """[T] normalised discounted cumulative gain of the first k, with binary relevance.

    The discount is 1 / log2(rank + 1); the ideal list has min(k, relevant items) relevant items at its top (K. Järvelin
    and J. Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002).
    """
    gained = ranks.sums(np.where(ranks.rank <= k, 1 / np.log2(ranks.rank + 1), 0.0))
    ideal = np.cumsum(1 / np.log2(np.arange(k) + 2))
    found: np.ndarray = gained / ideal[np.minimum(k, ranks.relevant) - 1]
    return found


def recall(ranks: RelevantRanks, k: int) -> np.ndarray:
    """[T] the share of a user's relevant items that are among the first k."""
    found: np.ndarray = ranks.sums((ranks.rank <= k).astype(float)) / ranks.relevant
    return found


def mrr(ranks: RelevantRanks) -> np.ndarray:
    """[T] the reciprocal rank of the first relevant candidate; 0 where there is none."""
    best = np.zeros(len(ranks.relevant))
    np.maximum.at(best, ranks.task, 1 / ranks.rank)
    return best


def hit(ranks: RelevantRanks, k: int) -> np.ndarray:
    """[T] 1 where a relevant item is among the first k, else 0."""
    return (ranks.sums((ranks.rank <= k).astype(float)) > 0).astype(float)


def standard_scores(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[T, N, ...] each user's scores with the mean 0 and the standard deviation 1 over the candidates; 0 in padding.

    Scores that are all equal become 0.
    """
    inside = mask.reshape(*mask.shape, *[1] * (scores.ndim - 2))
    values = np.where(inside, scores, 0.0).astype(np.float64)
    count = np.maximum(inside.sum(1, keepdims=True), 1)
    centred = np.where(inside, values - values.sum(1, keepdims=True) / count, 0.0)
    spread = np.sqrt((centred**2).sum(1, keepdims=True) / count)
    # Rounding leaves a spread of about 1e-16 of the scores where all are equal.
    least = 1e-9 * np.abs(values).max(1, keepdims=True, initial=0.0)
    return np.where(spread > least, centred / np.where(spread > least, spread, 1.0), 0.0)


class RankingJudge:
    """The error of predictions for early stopping: 1 minus the mean nDCG@10 over all users of all domains.

    Args:
        relevant: for each domain, [T] the number of relevant items of each user, see :class:`RelevantRanks`.
    """

    name = "ndcg"

    def __init__(self, relevant: Sequence[np.ndarray]) -> None:
        self._relevant = list(relevant)

    def __call__(self, predictions: Sequence[Tensor], queries: Sequence[FusionInputs]) -> float:
        """The error in [0, 1]; predictions: [T, N] of each domain, not clipped. queries: their rows."""
        users = [
            ndcg(
                RelevantRanks.of(
                    own.detach().cpu().numpy(), query.targets.cpu().numpy(), query.mask.cpu().numpy(), relevant
                )
            )
            for own, query, relevant in zip(predictions, queries, self._relevant, strict=True)
        ]
        return 1 - float(np.concatenate(users).mean())
