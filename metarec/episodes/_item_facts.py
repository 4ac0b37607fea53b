"""What the ratings that bases were fitted on say of items."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metarec.bases._offsets import item_offsets
from metarec.ratings import Domain

__all__ = ["item_facts"]


def item_facts(fit_on: Domain, damping: float) -> Callable[[np.ndarray], np.ndarray]:
    """A function from [n] items to their [n, 4] facts, in the order of :class:`ItemFacts`, learned from `fit_on`."""
    codes, names = fit_on.ratings["item"].factorize(sort=True)
    unit = fit_on.scale.to_unit(fit_on.ratings["rating"].to_numpy())
    offsets = item_offsets(codes, unit, len(names), damping=damping)
    where = {item: code for code, item in enumerate(names)}
    known = np.stack([np.full(len(names), offsets.mean), offsets.offsets, offsets.counts, offsets.spreads], axis=1)
    table = np.concatenate([known, [[offsets.mean, 0.0, 0.0, 0.0]]])

    def facts(items: np.ndarray) -> np.ndarray:
        return table[[where.get(item, len(names)) for item in items]]

    return facts
