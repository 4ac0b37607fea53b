"""What the ratings that bases were fitted on say of items."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metarec.bases._offsets import item_offsets
from metarec.ratings import Domain

__all__ = ["item_facts"]


_DAY = 86_400.0


def item_facts(fit_on: Domain, damping: float) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
    """A function from [n] items, and when they were rated, to their facts, learned from `fit_on`.

    The facts are [n, 5], in the order of :class:`~metarec.episodes._features.ItemFacts`.
    """
    ratings = fit_on.ratings
    codes, names = ratings["item"].factorize(sort=True)
    unit = fit_on.scale.to_unit(ratings["rating"].to_numpy())
    offsets = item_offsets(codes, unit, len(names), damping=damping)
    where = {item: code for code, item in enumerate(names)}
    known = np.stack([np.full(len(names), offsets.mean), offsets.offsets, offsets.counts, offsets.spreads], axis=1)
    table = np.concatenate([known, [[offsets.mean, 0.0, 0.0, 0.0]]])
    # What is not known, or not dated, is as new as can be.
    first = np.full(len(names) + 1, np.inf)
    if fit_on.has_timestamps:
        np.minimum.at(first, codes, ratings["timestamp"].to_numpy(dtype=np.float64))

    def facts(items: np.ndarray, times: np.ndarray | None) -> np.ndarray:
        rows = np.array([where.get(item, len(names)) for item in items], dtype=int)
        now = np.zeros(len(rows)) if times is None else times
        age = np.log1p(np.maximum(now - first[rows], 0.0) / _DAY)
        return np.column_stack([table[rows], age])

    return facts
