"""Shrunk item means on the unit scale, the baseline predictor of Koren, Bell and Volinsky (2009). Pure functions.

Bases that learn residuals start from it, and episodes use it as the fallback of rows without a prediction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["ItemOffsets", "item_offsets"]


class ItemOffsets(NamedTuple):
    """Item statistics on the unit scale; I items in the order of their codes.

    Attributes:
        mean: the mean rating.
        offsets: [I] each item's shrunk deviation from the mean.
        counts: [I] the number of ratings of each item.
        spreads: [I] standard deviation of each item's ratings, shrunk to that of all ratings.
    """

    mean: float
    offsets: np.ndarray
    counts: np.ndarray
    spreads: np.ndarray


def item_offsets(
    codes: np.ndarray, unit: np.ndarray, num_items: int, *, damping: float, prior: np.ndarray | float = 0.0
) -> ItemOffsets:
    """Shrunk item statistics.

    Args:
        codes: [R] item codes in 0..num_items-1; unit: [R] ratings on the unit scale.
        damping: the weight of the prior in ratings.
        prior: [I] or a number, the offset of an item without ratings.
    """
    mean = float(unit.mean())
    counts = np.bincount(codes, minlength=num_items)
    sums = np.bincount(codes, weights=unit - mean, minlength=num_items)
    offsets = (sums + damping * prior) / np.maximum(counts + damping, 1e-12)
    squares = np.bincount(codes, weights=(unit - mean - offsets[codes]) ** 2, minlength=num_items)
    variance = float(squares.sum() / len(unit))
    spreads = np.sqrt((squares + damping * variance) / np.maximum(counts + damping, 1e-12))
    return ItemOffsets(mean, offsets, counts, spreads)
