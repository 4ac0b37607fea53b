"""What the ratings that bases were fitted on say of items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metarec.bases import item_offsets
from metarec.episodes._features import ItemFacts
from metarec.episodes._split import Cut
from metarec.ratings import Domain

__all__ = ["KnownItems", "item_facts", "task_facts"]

_DAY = 86_400.0


class KnownItems:
    """Items' facts, looked up by their ids. Called with [n] items, and when they are rated (None: not dated).

    It answers [n, 5], in the order of :class:`~metarec.episodes._features.ItemFacts`.

    Args:
        items: [I] those that are known.
        table: [I + 1, 4] their facts but for the age; the last row is that of an unknown item.
        first: [I + 1] when each was first rated, in seconds; infinite for what is not known or not dated.
    """

    def __init__(self, items: pd.Index, table: np.ndarray, first: np.ndarray) -> None:
        self.items = items
        self.table = table
        self.first = first

    def __call__(self, items: np.ndarray, times: np.ndarray | None) -> np.ndarray:
        rows = self.items.get_indexer(items)
        now = np.zeros(len(rows)) if times is None else times
        age = np.log1p(np.maximum(now - self.first[rows], 0.0) / _DAY)
        return np.column_stack([self.table[rows], age])


def item_facts(fit_on: Domain, damping: float) -> KnownItems:
    """What the ratings of `fit_on` say of its items."""
    ratings = fit_on.ratings
    items = fit_on.item_index
    codes = items.get_indexer(ratings["item"])
    unit = fit_on.scale.to_unit(ratings["rating"].to_numpy())
    offsets = item_offsets(codes, unit, len(items), damping=damping)
    known = np.stack([np.full(len(items), offsets.mean), offsets.offsets, offsets.counts, offsets.spreads], axis=1)
    table = np.concatenate([known, [[offsets.mean, 0.0, 0.0, 0.0]]])
    # What is not known, or not dated, is as new as can be.
    first = np.full(len(items) + 1, np.inf)
    if fit_on.has_timestamps:
        np.minimum.at(first, codes, ratings["timestamp"].to_numpy(dtype=np.float64))
    return KnownItems(items, table, first)


def task_facts(known: KnownItems, cuts: Sequence[Cut], shots: int, queries: int) -> dict[str, np.ndarray]:
    """``support_facts`` [T, shots, 5] and ``query_facts`` [T, queries, 5] of T tasks, 0 in padding."""
    width = len(ItemFacts._fields)
    support, query = np.zeros((len(cuts), shots, width)), np.zeros((len(cuts), queries, width))
    for row, cut in enumerate(cuts):
        support[row, : len(cut.task.support_items)] = known(cut.task.support_items, cut.support_times)
        query[row, : len(cut.task.query_items)] = known(cut.task.query_items, cut.query_times)
    return {"support_facts": support, "query_facts": query}
