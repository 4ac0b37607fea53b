"""LensKit's classical recommenders as base recommenders.

LensKit fits them, and this file folds in many users at once. LensKit gets ratings on a scale of width 4, as stars, so
that its regularisation means the same in every domain (and the published defaults, tuned on 1..5, stay sensible).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from lenskit.als import BiasedMFScorer
from lenskit.basic import BiasModel, BiasScorer
from lenskit.data import from_interactions_df
from lenskit.knn import ItemKNNScorer, UserKNNScorer
from lenskit.training import TrainingOptions
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import sparse

from metarec.bases._base import BaseConfig
from metarec.bases._fold_in import BUDGET, blocks, nearest_means, padded, ridge_vectors
from metarec.bases._learned import Stored
from metarec.bases._queries import CodedQueries, FoldInRecommender
from metarec.bases._raters import Raters
from metarec.bases._searched import Range
from metarec.ratings import Domain

__all__ = ["BiasRecommender", "BiasedMFRecommender", "ItemKNNRecommender", "UserKNNRecommender"]

STARS = 4.0

DAMPING = Range(0.5, 50.0, log=True)
"""Usual values lie between 5 and 25 (Koren, Bell, Volinsky 2009; LensKit)."""


class LensKitRecommender(FoldInRecommender):
    """A LensKit scorer as a base recommender."""

    @abstractmethod
    def make_scorer(self) -> Any:
        """A LensKit scorer with this recommender's settings, not yet trained."""

    @abstractmethod
    def predict_stars(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        """[P] the trained scorer's predictions, NaN for none, and [P] their evidence."""

    def fit(self, domain: Domain) -> Self:
        ratings = domain.ratings
        frame = ratings[["user", "item"]].rename(columns={"user": "user_id", "item": "item_id"})
        frame["rating"] = STARS * domain.scale.to_unit(ratings["rating"].to_numpy())
        data = from_interactions_df(frame)
        self._scale = domain.scale
        self._scorer = self.make_scorer()
        # A seed of its own, not LensKit's global one, for the same model in any process.
        options = TrainingOptions(rng=np.random.default_rng(getattr(self.config, "seed", 0)))
        self._scorer.train(data, options)
        items = pd.Index(data.items.ids(), dtype=object)
        # LensKit also numbers the items in the order of their ids.
        self._items = domain.item_index if items.equals(domain.item_index) else items
        self._counts = np.bincount(self._items.get_indexer(ratings["item"]), minlength=len(self._items))
        self._take(self._scorer)
        self._derive()
        return self

    @abstractmethod
    def _take(self, scorer: Any) -> None:
        """Copy from the trained scorer what fold-in needs. The scorer is not used later."""

    def predict_coded(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        stars, evidence = self.predict_stars(queries)
        return stars / STARS, evidence


def _item_levels(model: BiasModel) -> np.ndarray:
    """[I] the mean plus the bias of each item."""
    return np.asarray(model.global_bias + np.asarray(model.item_biases, dtype=np.float64))


def _user_biases(items: np.ndarray, damping: float, queries: CodedQueries) -> np.ndarray:
    """[B] each history's shrunk mean deviation from the item levels (0 for an empty one)."""
    beyond = STARS * queries.unit - items[queries.items]
    sums = np.bincount(queries.history_owners, beyond, len(queries.lengths))
    return np.divide(sums, queries.lengths + damping, out=np.zeros(len(sums)), where=queries.lengths > 0)


class BiasConfig(BaseConfig):
    """Settings of :class:`BiasRecommender`."""

    damping: NonNegativeFloat = 5.0
    "The weight of the prior in ratings, for every user and item."


class BiasRecommender(LensKitRecommender):
    """The mean rating, plus the item's and the user's shrunk deviation from it (Koren, Bell, Volinsky 2009).

    Its evidence is the number of ratings behind the two (`CodedQueries.ratings_behind`).
    """

    name = "bias"
    Config = BiasConfig
    config: BiasConfig
    searched: ClassVar = {"damping": DAMPING}
    learned: ClassVar = {"levels": Stored("items"), "counts": Stored("items", low=0)}

    def make_scorer(self) -> BiasScorer:
        return BiasScorer(damping=self.config.damping)

    def _take(self, scorer: BiasScorer) -> None:
        self._levels = _item_levels(scorer.model_)

    def predict_stars(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        users = _user_biases(self._levels, self.config.damping, queries)
        return self._levels[queries.requested] + users[queries.owners], queries.ratings_behind(self._counts)


class KNNConfig(BaseConfig):
    """Settings of :class:`ItemKNNRecommender`."""

    neighbours: PositiveInt = 40
    "The most neighbours that are used for an item: rated items of the user, or similar users."
    min_neighbours: PositiveInt = 2
    "With fewer the prediction is NaN."


class KNNRecommender(LensKitRecommender):
    """A LensKit scorer of nearest neighbours."""

    config: KNNConfig
    # Herlocker et al. (1999) and Sarwar et al. (2001) find the best sizes between 20 and 60.
    searched: ClassVar = {"neighbours": Range(5, 200, log=True), "min_neighbours": Range(1, 5)}
    scorer: ClassVar[type[ItemKNNScorer | UserKNNScorer]]

    def make_scorer(self) -> ItemKNNScorer | UserKNNScorer:
        return self.scorer(max_nbrs=self.config.neighbours, min_nbrs=self.config.min_neighbours)


class ItemKNNRecommender(KNNRecommender):
    """Item-based nearest neighbours on centred ratings (Sarwar et al. 2001; Deshpande, Karypis 2004).

    Its evidence is the sum of the neighbours' similarities, a number of identical items.
    """

    name = "item-knn"
    Config = KNNConfig
    scorer = ItemKNNScorer
    learned: ClassVar = {"similarities": Stored("items items", is_sparse=True, low=0), "means": Stored("items")}

    def fit(self, domain: Domain) -> Self:
        # Where no item has ratings that differ, all similarities are 0. That is usual for a handful of users, and
        # LensKit would warn each time.
        if domain.ratings.groupby("item")["rating"].nunique().max() > 1:
            return super().fit(domain)
        self._scale = domain.scale
        self._items = domain.item_index
        count = len(self._items)
        self._similarities, self._means = sparse.csr_array((count, count)), np.zeros(count)
        return self

    def _take(self, scorer: ItemKNNScorer) -> None:
        self._similarities = sparse.csr_array(scorer.sim_matrix.to_scipy())
        self._means = np.asarray(scorer.item_means)

    def predict_stars(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        means = self._means
        centred = STARS * queries.unit - means[queries.items]
        stars, totals = np.full(len(queries.requested), np.nan), np.zeros(len(queries.requested))
        for first, last, distinct in self._spans(queries, 0, len(queries.lengths)):
            # A dense table of a few items' rows: single look-ups in the sparse one are far slower.
            rows = self._similarities[distinct].toarray()
            pairs = np.arange(*np.searchsorted(queries.owners, (first, last)))
            starts, lengths = queries.starts[queries.owners[pairs]], queries.lengths[queries.owners[pairs]]
            for block in blocks(lengths, BUDGET):
                positions, is_real = padded(starts[block], lengths[block])
                requested = queries.requested[pairs[block]]
                weights = rows[np.searchsorted(distinct, queries.items[positions]), requested[:, None]] * is_real
                stars[pairs[block]], totals[pairs[block]] = nearest_means(
                    weights, centred[positions], most=self.config.neighbours, least=self.config.min_neighbours
                )
        return stars + means[queries.requested], totals

    def _spans(self, queries: CodedQueries, first: int, last: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Runs of queries whose distinct history items (also given) have a small table of similarities."""
        distinct = np.unique(queries.items[slice(*np.searchsorted(queries.history_owners, (first, last)))])
        if len(distinct) * len(self._items) <= 4 * BUDGET or last - first <= 1:
            yield first, last, distinct
            return
        middle = (first + last) // 2
        yield from self._spans(queries, first, middle)
        yield from self._spans(queries, middle, last)


class UserKNNConfig(KNNConfig):
    """Settings of :class:`UserKNNRecommender`."""

    min_neighbours: PositiveInt = 1


class UserKNNRecommender(KNNRecommender):
    """User-based nearest neighbours on centred ratings (Resnick et al. 1994; Herlocker et al. 1999).

    Its evidence is the sum of the neighbours' similarities, a number of identical users.
    """

    name = "user-knn"
    Config = UserKNNConfig
    scorer = UserKNNScorer
    learned: ClassVar = {
        "vectors": Stored("users items", is_sparse=True, low=-2, high=2),
        "ratings": Stored("users items", is_sparse=True),
        "min_similarity": Stored(low=0),
    }

    def _take(self, scorer: UserKNNScorer) -> None:
        self._vectors = sparse.csr_array(scorer.user_vectors)
        self._ratings = sparse.csr_array(scorer.user_ratings.to_scipy())
        self._min_similarity = scorer.config.min_sim

    def _derive(self) -> None:
        self._raters = Raters(
            self._vectors,
            self._ratings,
            most=self.config.neighbours,
            least=self.config.min_neighbours,
            min_similarity=self._min_similarity,
        )

    def predict_stars(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        centred, means = _centred(queries, len(self._items))
        stars, totals = np.full(len(queries.requested), np.nan), np.zeros(len(queries.requested))
        step = max(BUDGET // self._raters.num_users, 1)
        for first in range(0, len(means), step):
            last = min(first + step, len(means))
            pairs = slice(*np.searchsorted(queries.owners, (first, last)))
            owners = queries.owners[pairs]
            similarities = self._raters.similarities(centred[first:last])
            beyond, totals[pairs] = self._raters.means(similarities, owners - first, queries.requested[pairs])
            stars[pairs] = beyond + means[owners]
        return stars, totals


def _centred(queries: CodedQueries, num_items: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Histories less their means, as LensKit rounds them: ([B, I] float32, [B] means).

    Similarities at the threshold and near ties depend on the last digit, so the means are taken over single-precision
    rows of one length, which are summed in the same order as a single history.
    """
    stars = (STARS * queries.unit).astype(np.float32)
    lengths, starts = queries.lengths, queries.starts
    means = np.zeros(len(lengths), dtype=np.float32)
    for length in np.unique(lengths[lengths > 0]):
        rows = np.flatnonzero(lengths == length)
        means[rows] = stars[starts[rows, None] + np.arange(length)].mean(axis=1)
    owners = queries.history_owners
    # The last rating of a repeated item counts.
    keys, last = np.unique((owners * num_items + queries.items)[::-1], return_index=True)
    entries = len(owners) - 1 - last
    bounds = np.searchsorted(keys, np.arange(len(lengths) + 1) * num_items)
    data = stars[entries] - means[owners[entries]]
    return sparse.csr_array((data, queries.items[entries], bounds), shape=(len(lengths), num_items)), means


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
    """Biased matrix factorisation by alternating least squares; a new user's vector is one ridge solve (Zhou 2008).

    Its evidence is that of :class:`BiasRecommender`.
    """

    name = "biased-mf"
    Config = BiasedMFConfig
    config: BiasedMFConfig
    searched: ClassVar = {
        "features": Range(4, 64, log=True),
        "epochs": Range(5, 30),
        "regularization": Range(0.02, 1.0, log=True),
        "damping": DAMPING,
    }
    learned: ClassVar = {
        "levels": Stored("items"),
        "vectors": Stored("items factors"),
        "counts": Stored("items", low=0),
    }

    def make_scorer(self) -> BiasedMFScorer:
        return BiasedMFScorer(
            embedding_size=self.config.features,
            epochs=self.config.epochs,
            regularization=self.config.regularization,
            damping=self.config.damping,
        )

    def _take(self, scorer: BiasedMFScorer) -> None:
        self._levels = _item_levels(scorer.bias)
        self._vectors = scorer.item_embeddings.astype(np.float64)

    def predict_stars(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        items = self._levels
        users = _user_biases(items, self.config.damping, queries)
        residuals = STARS * queries.unit - items[queries.items] - users[queries.history_owners]
        penalties = self.config.regularization * queries.lengths
        vectors = ridge_vectors(self._vectors, queries.items, residuals, queries.lengths, penalties)
        beyond = np.einsum("pf,pf->p", self._vectors[queries.requested], vectors[queries.owners])
        stars = items[queries.requested] + users[queries.owners] + beyond
        stars = np.where(queries.lengths[queries.owners] > 0, stars, np.nan)
        return stars, queries.ratings_behind(self._counts)
