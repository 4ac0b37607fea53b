"""Items that resemble those of the history in their features."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import PositiveInt

from metarec.bases._learned import Stored
from metarec.bases.content import feature_vectors
from metarec.bases.ranking._base import Choices, Histories, RankingBase, WeightedConfig, strengths
from metarec.ratings import Domain

__all__ = ["Content"]


class ContentConfig(WeightedConfig):
    """Settings of :class:`Content`."""

    components: PositiveInt = 256
    "Dimensions that the item features are reduced to."
    seed: int = 0
    "Of the reduction's randomised solver."


class Content(RankingBase):
    """The cosine between an item's features and the weighted mean of those of the history."""

    name = "content"
    Config = ContentConfig
    config: ContentConfig
    needs = "items"
    searched: ClassVar = {"components": Choices((32, 64, 128, 256, 512)), "weights": Choices(("binary", "log"))}
    learned: ClassVar = {"vectors": Stored("items factors")}

    def fit(self, domain: Domain) -> Self:
        index = domain.item_index
        self._vectors = np.zeros((len(index), 1), dtype=np.float32)
        if domain.items is not None:
            columns = domain.items.set_index("item").reindex(index)
            self._vectors = feature_vectors(columns, self.config.components, self.config.seed).astype(np.float32)
        return self

    def score_items(self, histories: Histories) -> np.ndarray:
        rows = histories.rows(strengths(histories.weights, self.config.weights), self.num_items)
        profiles = rows @ self._vectors
        lengths = np.linalg.norm(profiles, axis=1, keepdims=True)
        return np.divide(profiles, lengths, out=np.zeros_like(profiles), where=lengths > 0) @ self._vectors.T
