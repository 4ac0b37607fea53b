"""User-based nearest neighbours on events."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt
from scipy import sparse

from metarec.bases._learned import Stored
from metarec.bases._searched import Choices, Range
from metarec.bases.ranking._base import Histories, RankingBase, WeightedConfig, strengths, user_rows
from metarec.bases.ranking._neighbours import row_norms, strongest_shared
from metarec.ratings import Domain

__all__ = ["UserKNN"]


class UserKNNConfig(WeightedConfig):
    """Settings of :class:`UserKNN`."""

    neighbours: PositiveInt = 50
    "The most similar train users who count."
    shrinkage: NonNegativeFloat = 3.0
    "Added to the denominator of the cosine."


class UserKNN(RankingBase):
    """The events of the most similar train users, weighted by their similarity (Herlocker et al. 1999).

    The similarity is a shrunk cosine. Users with the same similarity share the last places.
    """

    name = "user-knn"
    Config = UserKNNConfig
    config: UserKNNConfig
    searched: ClassVar = {
        "neighbours": Range(10, 1000, log=True),
        "shrinkage": Range(0.0, 100.0),
        "weights": Choices(("binary", "log")),
    }
    learned: ClassVar = {"events": Stored("users items", is_sparse=True, low=0)}

    def fit(self, domain: Domain) -> Self:
        self._events = user_rows(domain, self.config.weights)
        self._derive()
        return self

    def _derive(self) -> None:
        self._norms = row_norms(self._events)
        self._columns = self._events.T.tocsr()

    def score_items(self, histories: Histories) -> np.ndarray:
        rows = histories.rows(strengths(histories.weights, self.config.weights), self.num_items)
        products = (rows @ self._columns).tocsr()
        owners = np.repeat(np.arange(len(histories.lengths)), np.diff(products.indptr))
        shrunk = row_norms(rows)[owners] * self._norms[products.indices] + self.config.shrinkage
        similar = sparse.csr_array(
            ((products.data / shrunk).astype(np.float32), products.indices, products.indptr), shape=products.shape
        )
        scores: np.ndarray = (strongest_shared(similar, self.config.neighbours) @ self._events).toarray()
        return scores
