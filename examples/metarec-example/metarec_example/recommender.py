"""A base recommender: what an item's ratings have in their middle."""

from typing import Self

import numpy as np
import pandas as pd

from metarec.errors import InputError
from metarec.ratings import Domain

__all__ = ["ItemMedian"]


class ItemMedian:
    """Predicts an item's median rating, moved by how far the user's ratings lie from the medians of what they rated.

    Args:
        least: an item with fewer ratings has no median.
    """

    name = "item-median"

    def __init__(self, least: int = 1) -> None:
        if least < 1:
            raise InputError(f"bases.item-median.least must be an integer >= 1 but got {least!r}")
        self.least = least

    def fit(self, domain: Domain) -> Self:
        by_item = domain.ratings.groupby("item")["rating"]
        self.medians = by_item.median()[by_item.size() >= self.least]
        return self

    def predict(self, history: pd.DataFrame, items: np.ndarray) -> np.ndarray:
        """[n] in the domain's units; NaN for an item without a median: metarec then leans on the other recommenders."""
        apart = history["rating"].to_numpy() - self.medians.reindex(history["item"]).to_numpy()
        known = apart[np.isfinite(apart)]
        shift = known.sum() / (len(known) + 5)  # a few ratings say little about a user
        return self.medians.reindex(items).to_numpy(dtype=np.float64) + shift

    def evidence(self, history: pd.DataFrame, items: np.ndarray) -> np.ndarray:
        """[n] optional: how much a prediction rests on; here, how many of the user's ratings could be compared."""
        return np.full(len(items), float(history["item"].isin(self.medians.index).sum()))
