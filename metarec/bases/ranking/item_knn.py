"""Item-based nearest neighbours on events."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt
from scipy import sparse

from metarec.bases._learned import Stored
from metarec.bases._searched import Choices, Range
from metarec.bases.ranking._base import Histories, RankingBase, WeightedConfig, strengths, user_rows
from metarec.bases.ranking._neighbours import ITEMS_AT_ONCE, row_norms, strongest
from metarec.ratings import Domain

__all__ = ["ItemKNN"]


class ItemKNNConfig(WeightedConfig):
    """Settings of :class:`ItemKNN`."""

    neighbours: PositiveInt = 300
    "The most similar items that an item is scored by."
    shrinkage: NonNegativeFloat = 10.0
    "Added to the denominator of the cosine, so that a similarity of few users is small."


class ItemKNN(RankingBase):
    """The sum of an item's similarities to those of the history (Deshpande, Karypis 2004).

    The similarity is a shrunk cosine: ``x·y / (|x||y| + shrinkage)`` for two items' columns of users.
    """

    name = "item-knn"
    Config = ItemKNNConfig
    config: ItemKNNConfig
    searched: ClassVar = {
        "neighbours": Range(10, 1000, log=True),
        "shrinkage": Range(0.0, 100.0),
        "weights": Choices(("binary", "log")),
    }
    learned: ClassVar = {"similarities": Stored("items items", is_sparse=True, low=0)}

    def fit(self, domain: Domain) -> Self:
        items = user_rows(domain, self.config.weights).T.tocsr()
        norms = row_norms(items)
        users = items.T.tocsr()
        parts = []
        for first in range(0, len(norms), ITEMS_AT_ONCE):
            rows = np.arange(first, min(first + ITEMS_AT_ONCE, len(norms)))
            products = (items[rows] @ users).tocoo()
            others, own = products.col, rows[products.row]
            values = products.data / (norms[own] * norms[others] + self.config.shrinkage)
            values[own == others] = 0
            similar = sparse.csr_array((values.astype(np.float32), (products.row, others)), shape=products.shape)
            similar.eliminate_zeros()
            parts.append(strongest(similar, self.config.neighbours))
        # A row for each item of a history, with its similarities to the items that it is a neighbour of.
        self._similarities = sparse.vstack(parts).T.tocsr()
        return self

    def score_items(self, histories: Histories) -> np.ndarray:
        values = strengths(histories.weights, self.config.weights)
        scores: np.ndarray = (histories.rows(values, self.num_items) @ self._similarities).toarray()
        return scores
