"""LensKit's classical recommenders as base recommenders.

LensKit fits and folds in; this file only translates. Ratings reach LensKit on a scale of width 4, as stars, so that
its regularisation means the same in every domain (and the published defaults, tuned on 1..5, stay sensible).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from lenskit.als import BiasedMFScorer
from lenskit.basic import BiasScorer
from lenskit.data import ItemList, RecQuery, from_interactions_df
from lenskit.knn import ItemKNNScorer, UserKNNScorer
from lenskit.training import TrainingOptions
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from metarec.bases._base import BaseConfig, HistoryQuery, Recommender
from metarec.ratings import Domain

__all__ = ["BiasRecommender", "BiasedMFRecommender", "ItemKNNRecommender", "UserKNNRecommender"]

STARS = 4.0


class LensKitRecommender(Recommender):
    """A LensKit scorer behind the contract of base recommenders."""

    empty_history_says = False
    """Whether the scorer has something to say about a user with no known history."""

    @abstractmethod
    def make_scorer(self) -> Any:
        """A LensKit scorer with this recommender's settings, not yet trained."""

    def fit(self, domain: Domain) -> Self:
        ratings = domain.ratings
        frame = ratings[["user", "item"]].rename(columns={"user": "user_id", "item": "item_id"})
        frame["rating"] = STARS * domain.scale.to_unit(ratings["rating"].to_numpy())
        self._scale = domain.scale
        self._scorer = self.make_scorer()
        # Its own seed, not LensKit's global one: the same fit gives the same model in any process.
        options = TrainingOptions(rng=np.random.default_rng(getattr(self.config, "seed", 0)))
        self._scorer.train(from_interactions_df(frame), options)
        self._known = frozenset(ratings["item"].unique())
        return self

    def predict_queries(self, queries: Sequence[HistoryQuery]) -> list[np.ndarray]:
        return [self._predict_query(query) for query in queries]

    def _predict_query(self, query: HistoryQuery) -> np.ndarray:
        scores = np.full(len(query.items), np.nan)
        # Asked for an item that it never saw, the item-kNN panics: ask for known ones only, in both directions.
        asked = np.fromiter((item in self._known for item in query.items), bool, len(query.items))
        seen = np.fromiter((item in self._known for item in query.history_items), bool, len(query.history_items))
        if not asked.any() or not (seen.any() or self.empty_history_says):
            return scores
        user = RecQuery()
        if seen.any():
            stars = STARS * self._scale.to_unit(query.history_ratings[seen])
            user = RecQuery(history_items=ItemList(item_ids=query.history_items[seen], rating=stars))
        answer = self._scorer(user, ItemList(item_ids=query.items[asked])).scores()
        scores[asked] = self._scale.to_ratings(np.asarray(answer, dtype=np.float64) / STARS)
        return scores


class BiasConfig(BaseConfig):
    """Settings of :class:`BiasRecommender`."""

    damping: NonNegativeFloat = 5.0
    "How many ratings of average size every user and item is given beforehand."


class BiasRecommender(LensKitRecommender):
    """The mean rating, plus the item's and the user's shrunk deviation from it (Koren, Bell, Volinsky 2009)."""

    name = "bias"
    Config = BiasConfig
    config: BiasConfig
    empty_history_says = True

    def make_scorer(self) -> BiasScorer:
        return BiasScorer(damping=self.config.damping)


class ItemKNNConfig(BaseConfig):
    """Settings of :class:`ItemKNNRecommender`."""

    neighbours: PositiveInt = 40
    "How many of the user's rated items speak for an item."
    min_neighbours: PositiveInt = 2
    "With fewer it cannot say."


class ItemKNNRecommender(LensKitRecommender):
    """Item-based nearest neighbours on centred ratings (Sarwar et al. 2001; Deshpande, Karypis 2004)."""

    name = "item-knn"
    Config = ItemKNNConfig
    config: ItemKNNConfig

    def make_scorer(self) -> ItemKNNScorer:
        return ItemKNNScorer(max_nbrs=self.config.neighbours, min_nbrs=self.config.min_neighbours)


class UserKNNConfig(BaseConfig):
    """Settings of :class:`UserKNNRecommender`."""

    neighbours: PositiveInt = 40
    "How many similar users who rated the item speak for it."
    min_neighbours: PositiveInt = 1
    "With fewer it cannot say."


class UserKNNRecommender(LensKitRecommender):
    """User-based nearest neighbours on centred ratings (Resnick et al. 1994; Herlocker et al. 1999)."""

    name = "user-knn"
    Config = UserKNNConfig
    config: UserKNNConfig

    def make_scorer(self) -> UserKNNScorer:
        return UserKNNScorer(max_nbrs=self.config.neighbours, min_nbrs=self.config.min_neighbours)


class BiasedMFConfig(BaseConfig):
    """Settings of :class:`BiasedMFRecommender`."""

    features: PositiveInt = 16
    "Length of the user and item vectors."
    epochs: PositiveInt = 10
    "Rounds of alternating least squares."
    regularization: PositiveFloat = 0.2
    "L2 penalty per rating."
    damping: NonNegativeFloat = 5.0
    "As in :class:`BiasConfig`."
    seed: int = 0
    "Of the vectors' start."


class BiasedMFRecommender(LensKitRecommender):
    """Biased matrix factorisation by alternating least squares; a new user's vector is one ridge solve (Zhou 2008)."""

    name = "biased-mf"
    Config = BiasedMFConfig
    config: BiasedMFConfig

    def make_scorer(self) -> BiasedMFScorer:
        return BiasedMFScorer(
            embedding_size=self.config.features,
            epochs=self.config.epochs,
            regularization=self.config.regularization,
            damping=self.config.damping,
        )
