"""A base recommender: the median of an item's ratings."""

from typing import Self

import numpy as np
import pandas as pd

from metarec.errors import InputError
from metarec.ratings import Domain

__all__ = ["ItemMedian"]


class ItemMedian:
    """Predicts an item's median rating plus the user's mean deviation from the medians of the rated items.

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
        """[n] in the domain's units; NaN for an item without a median, where metarec uses the other recommenders."""
        deviations = history["rating"].to_numpy() - self.medians.reindex(history["item"]).to_numpy()
        deviations = deviations[np.isfinite(deviations)]
        shift = deviations.sum() / (len(deviations) + 5)  # shrunk towards 0 for users with few ratings
        return self.medians.reindex(items).to_numpy(dtype=np.float64) + shift

    def evidence(self, history: pd.DataFrame, items: np.ndarray) -> np.ndarray:
        """[n] optional: the evidence of each prediction; here the user's number of items with a median."""
        return np.full(len(items), float(history["item"].isin(self.medians.index).sum()))
