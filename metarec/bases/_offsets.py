"""Shrunk means: the mean rating, and how far items and users deviate from it. Pure functions on arrays.

The baseline predictor of Koren, Bell and Volinsky (2009), on the unit scale. Bases that learn residuals start from it,
and the episodes take from it what is left to say when no base can.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["ItemOffsets", "item_offsets"]


class ItemOffsets(NamedTuple):
    """What the ratings say of items, on the unit scale; I items in the order of their codes.

    Attributes:
        mean: the mean rating.
        offsets: [I] each item's shrunk deviation from the mean.
        counts: [I] how many ratings each item has.
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
        damping: how many ratings the prior is worth.
        prior: [I] or a number, the offset that an item without ratings has.
    """
    mean = float(unit.mean())
    counts = np.bincount(codes, minlength=num_items)
    sums = np.bincount(codes, weights=unit - mean, minlength=num_items)
    offsets = (sums + damping * prior) / np.maximum(counts + damping, 1e-12)
    squares = np.bincount(codes, weights=(unit - mean - offsets[codes]) ** 2, minlength=num_items)
    variance = float(squares.sum() / len(unit))
    spreads = np.sqrt((squares + damping * variance) / np.maximum(counts + damping, 1e-12))
    return ItemOffsets(mean, offsets, counts, spreads)
