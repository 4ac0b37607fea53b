"""Bayesian matrix factorisation as a base recommender."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt, PositiveInt
from scipy import sparse

from metarec.bases._base import BaseConfig
from metarec.bases._fold_in import ridge_vectors
from metarec.bases._learned import Stored
from metarec.bases._queries import CodedQueries, FoldInRecommender
from metarec.bases._searched import Range
from metarec.bases.bayesian.gibbs import (
    Sample,
    SideInformation,
    gibbs_samples,
    implicit_features,
    side_information,
)
from metarec.bases.content import item_features
from metarec.ratings import Domain

__all__ = ["BayesianMFConfig", "BayesianMFRecommender"]

LOG_COUNT = 3.0
"""The logarithm of a middling number of ratings, about 20: a feature of that size is about 1."""

THINNING = 2
"""Draws for each one that is kept: consecutive ones are alike."""


class BayesianMFConfig(BaseConfig):
    """Settings of :class:`BayesianMFRecommender`."""

    factors: PositiveInt = 10
    "Length of the user and item vectors."
    burn_in: NonNegativeInt = 20
    "Draws that are left out, because they depend on the start."
    samples: PositiveInt = 16
    "Draws whose predictions are averaged."
    rank: PositiveInt = 64
    "The most directions of side information."
    seed: int = 0
    "Of the draws."


class BayesianMFRecommender(FoldInRecommender):
    """The mean over draws from the posterior of a matrix factorisation (Salakhutdinov, Mnih 2008).

    The vectors of users and items depend on who rated what, and those of items on the features of the items, where
    there are any (Simm et al. 2017). The draws of the items are kept. A new user's vector is its posterior mean under
    each draw, given the history: its prior mean follows from what was rated, and the ratings are one ridge regression.

    Its evidence is the number of ratings behind the user and the item (`CodedQueries.ratings_behind`).
    """

    name = "bayesian-mf"
    Config = BayesianMFConfig
    config: BayesianMFConfig
    searched: ClassVar = {
        "factors": Range(3, 30, log=True),
        "samples": Range(16, 64, log=True),
        "rank": Range(8, 128, log=True),
    }
    learned: ClassVar = {
        "levels": Stored("samples items"),
        "axes": Stored("samples items factors"),
        "pulls": Stored("samples items factors"),
        "penalties": Stored("samples", low=1e-12),
        "counts": Stored("items", low=0),
    }

    def fit(self, domain: Domain) -> Self:
        config = self.config
        # The draws do not depend on the order of the rows.
        rows = domain.ratings.sort_values(["user", "item"], kind="stable")
        self._scale, self._items = domain.scale, domain.item_index
        users, names = pd.factorize(rows["user"])
        items = self._items.get_indexer(rows["item"])
        shape = len(names), len(self._items)
        self._counts = np.bincount(items, minlength=shape[1])
        unit = domain.scale.to_unit(rows["rating"].to_numpy())
        mean, spread = float(unit.mean()), max(float(unit.std()), 1e-6)
        of_users, of_items = self._side_information(users, items, shape, domain)
        draws = gibbs_samples(
            users,
            items,
            (unit - mean) / spread,
            shape=shape,
            factors=config.factors,
            rounds=config.burn_in + THINNING * config.samples,
            seed=config.seed,
            user_features=of_users,
            item_features=of_items,
        )
        kept = islice(draws, config.burn_in + THINNING - 1, None, THINNING)
        folded = [_Folded.of(draw, of_users, mean, spread) for draw in kept]
        self._levels, self._axes, self._pulls, self._penalties = map(np.stack, zip(*folded, strict=True))
        return self

    def _side_information(
        self, users: np.ndarray, items: np.ndarray, shape: tuple[int, int], domain: Domain
    ) -> tuple[list[SideInformation], list[SideInformation]]:
        """Of the users and of the items. That of the users is who rated what alone: a new user has nothing else."""
        described = [implicit_features(items, users, shape[::-1])]
        if domain.items is not None:
            columns = domain.items.set_index("item").reindex(domain.item_index).reset_index(drop=True)
            counts = sparse.csr_array(np.log1p(self._counts)[:, None] / LOG_COUNT)
            described.append(sparse.hstack([item_features(columns), counts]).tocsr())
        return (
            self._directions([implicit_features(users, items, shape)]),
            self._directions(described),
        )

    def _directions(self, tables: list[sparse.csr_array]) -> list[SideInformation]:
        # One user or one item has nothing in common with others.
        return [side_information(one, self.config.rank, self.config.seed) for one in tables if min(one.shape) > 1]

    def predict_coded(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        bounds = np.concatenate([[0], np.cumsum(queries.lengths)])
        owners, shape = queries.history_owners, (len(queries.lengths), len(self._items))
        rated = sparse.csr_array((1 / np.sqrt(queries.lengths[owners]), queries.items, bounds), shape=shape)
        total = np.zeros(len(queries.requested))
        for levels, axes, pulls, penalty in zip(self._levels, self._axes, self._pulls, self._penalties, strict=True):
            users = rated @ pulls
            expected = levels[queries.items] + np.einsum("rf,rf->r", axes[queries.items], users[owners])
            penalties = np.full(len(queries.lengths), penalty)
            users = users + ridge_vectors(axes, queries.items, queries.unit - expected, queries.lengths, penalties)
            total += levels[queries.requested]
            total += np.einsum("pf,pf->p", axes[queries.requested], users[queries.owners])
        return total / len(self._levels), queries.ratings_behind(self._counts)


class _Folded(NamedTuple):
    """One draw in the form that new users need. Ratings are on the unit scale.

    The user's vector has the standard normal distribution around a pull: the mean of the draw is in the levels, and its
    covariance in the axes.

    Attributes:
        levels: [I] the rating of each item by the mean user.
        axes: [I, K + 1] the items, so that a rating is its level plus the product of its axes and the user's vector.
        pulls: [I, K + 1] what each rated item adds to the centre of a user's vector, times the root of their number.
        penalty: the variance of the noise of one rating.
    """

    levels: np.ndarray
    axes: np.ndarray
    pulls: np.ndarray
    penalty: float

    @classmethod
    def of(cls, draw: Sample, features: Sequence[SideInformation], mean: float, spread: float) -> _Folded:
        """The draw of a factorisation of ratings that were standardised by their mean and spread."""
        items = np.column_stack([draw.items[:, :-1], np.ones(len(draw.items))])
        root = np.linalg.cholesky(draw.user_precision)
        pulls = np.zeros_like(items)
        for side, links in zip(features, draw.user_links, strict=True):
            pulls = pulls + side.directions @ links @ root
        return cls(
            (mean + spread * (draw.items[:, -1] + items @ draw.user_mean)).astype(np.float32),
            (spread * items @ np.linalg.inv(root).T).astype(np.float32),
            pulls.astype(np.float32),
            spread**2 / float(draw.noise_precision.mean()),
        )
