"""Implicit matrix factorisation. LensKit fits it, and this file folds in many users at once."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import pandas as pd
from lenskit.als import ImplicitMFScorer
from lenskit.data import from_interactions_df
from lenskit.training import TrainingOptions
from pydantic import PositiveFloat, PositiveInt

from metarec.bases._fold_in import ridge_vectors
from metarec.bases._learned import Stored
from metarec.bases._searched import Choices, Range
from metarec.bases.ranking._base import Histories, RankingBase, WeightedConfig, strengths, user_rows
from metarec.ratings import Domain

__all__ = ["ImplicitALS"]


class ImplicitALSConfig(WeightedConfig):
    """Settings of :class:`ImplicitALS`."""

    features: PositiveInt = 32
    "Length of the user and item vectors."
    epochs: PositiveInt = 10
    "Rounds of alternating least squares."
    regularization: PositiveFloat = 30.0
    "L2 penalty of a vector."
    confidence: PositiveFloat = 10.0
    "An event of value s has 1 + confidence * s times the weight of a missing one."
    seed: int = 0
    "Of the vectors' start."


class ImplicitALS(RankingBase):
    """Weighted matrix factorisation (Hu, Koren, Volinsky 2008); a new user's vector is one ridge solve."""

    name = "ials"
    Config = ImplicitALSConfig
    config: ImplicitALSConfig
    searched: ClassVar = {
        "features": Choices((16, 32, 64, 128)),
        "regularization": Range(0.1, 300.0, log=True),
        "confidence": Range(0.5, 100.0, log=True),
        "weights": Choices(("binary", "log")),
    }
    learned: ClassVar = {"vectors": Stored("items factors")}

    def fit(self, domain: Domain) -> Self:
        config = self.config
        events = user_rows(domain, config.weights).tocoo()
        # LensKit numbers items in the order of their ids, so with codes for ids its numbers are the codes.
        frame = pd.DataFrame({"user_id": events.row, "item_id": events.col, "rating": events.data})
        scorer = ImplicitMFScorer(
            embedding_size=config.features,
            epochs=config.epochs,
            regularization=config.regularization,
            weight=config.confidence,
            use_ratings=True,
        )
        # A seed of its own, not LensKit's global one, for the same model in any process.
        scorer.train(from_interactions_df(frame), TrainingOptions(rng=np.random.default_rng(config.seed)))
        self._vectors = scorer.item_embeddings.astype(np.float32)
        self._derive()
        return self

    def _derive(self) -> None:
        # All items count with weight 1 for every user. In coordinates in which they and the penalty are the identity,
        # a user's vector is a ridge regression on the history alone.
        vectors = self._vectors.astype(np.float64)
        root = np.linalg.cholesky(vectors.T @ vectors + self.config.regularization * np.eye(vectors.shape[1]))
        self._whitened = np.linalg.solve(root, vectors.T).T

    def score_items(self, histories: Histories) -> np.ndarray:
        confidence = self.config.confidence * strengths(histories.weights, self.config.weights).astype(np.float64)
        targets, penalties = 1 + 1 / confidence, np.ones(len(histories.lengths))
        users = ridge_vectors(self._whitened, histories.items, targets, histories.lengths, penalties, confidence)
        return users.astype(np.float32) @ self._whitened.T.astype(np.float32)
