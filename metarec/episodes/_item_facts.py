"""Item facts from the ratings that bases were fitted on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metarec.bases import item_offsets
from metarec.episodes._features import ItemFacts
from metarec.episodes._split import Cut
from metarec.ratings import Domain

__all__ = ["ItemFactsTable", "item_facts", "task_facts"]

_DAY = 86_400.0


class ItemFactsTable:
    """The facts of items by id: maps [n] item ids and their times (or None) to [n, 5].

    The order is that of :class:`~metarec.episodes._features.ItemFacts`.

    Args:
        items: [I] item ids.
        table: [I + 1, 4] their facts without the age; the last row is that of an unknown item.
        first: [I + 1] the time of each item's first rating in seconds; infinite for an unknown item or time.
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


def item_facts(fit_on: Domain, damping: float) -> ItemFactsTable:
    """The facts of the items of `fit_on`."""
    ratings = fit_on.ratings
    items = fit_on.item_index
    codes = items.get_indexer(ratings["item"])
    unit = fit_on.scale.to_unit(ratings["rating"].to_numpy())
    offsets = item_offsets(codes, unit, len(items), damping=damping)
    rated = np.stack([np.full(len(items), offsets.mean), offsets.offsets, offsets.counts, offsets.spreads], axis=1)
    table = np.concatenate([rated, [[offsets.mean, 0.0, 0.0, 0.0]]])
    # An unknown item or time has age 0.
    first = np.full(len(items) + 1, np.inf)
    if fit_on.has_timestamps:
        np.minimum.at(first, codes, ratings["timestamp"].to_numpy(dtype=np.float64))
    return ItemFactsTable(items, table, first)


def task_facts(table: ItemFactsTable, cuts: Sequence[Cut], shots: int, queries: int) -> dict[str, np.ndarray]:
    """``support_facts`` [T, shots, 5] and ``query_facts`` [T, queries, 5] of T tasks, 0 in padding."""
    width = len(ItemFacts._fields)
    support, query = np.zeros((len(cuts), shots, width)), np.zeros((len(cuts), queries, width))
    for row, cut in enumerate(cuts):
        support[row, : len(cut.task.support_items)] = table(cut.task.support_items, cut.support_times)
        query[row, : len(cut.task.query_items)] = table(cut.task.query_items, cut.query_times)
    return {"support_facts": support, "query_facts": query}
