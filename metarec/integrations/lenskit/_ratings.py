"""Predicted ratings of a dataset's users and of new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from metarec.bases import BaseRecommender, make_base
from metarec.episodes import DomainEpisodes, EpisodeSettings, History, TaskMaker, UserRoles, build_episodes
from metarec.integrations.lenskit._config import FusionScorerConfig
from metarec.integrations.lenskit._served import Given, Served, views_of
from metarec.model import FusedRecommender, Fusion, FusionConfig
from metarec.model.recommender import NO_HISTORY
from metarec.ratings import Domain, seconds_of

__all__ = ["PARTS", "RatingServer"]

PARTS = 10
"""The number of parts of a history whose own items are scored: see :meth:`RatingServer.scores`."""


@dataclass(frozen=True)
class RatingServer:
    """A fusion of rating bases, with the users that it serves.

    Attributes:
        ids: [I] of the dataset's items, by their numbers. error: the RMSE on held-out users, in the ratings' own units.
    """

    served: Served[FusedRecommender]
    ids: np.ndarray
    dated: bool
    error: float

    @classmethod
    def fit(
        cls,
        domain: Domain,
        bases: Mapping[str, Mapping[str, Any]],
        config: FusionScorerConfig,
        ids: np.ndarray,
        *,
        seed: int,
    ) -> Self:
        """Train the network, and fit the bases that serve.

        Raises:
            InputError: too few users with enough ratings, or a wrong option of a base or of the network.
        """
        views = rating_views(domain, bases, config, seed)
        network = config.network_of("rating")
        trained = network.fit(
            [view.train.batch for view in views.values()],
            [view.validation.batch for view in views.values()],
            seed=seed,
        )
        fusion = Fusion(FusionConfig(networks={"fusion": network}, stackers=()), seed=seed)
        fusion.fit(list(views.values()), networks={"fusion": trained.learner})
        standards = {shots: view.standards for shots, view in views.items() if view.standards is not None}
        longest = config.max_history_of("rating")

        def fitted(on: Domain) -> list[FusedRecommender]:
            maker = TaskMaker.fit(on, bases, next(iter(standards.values())), seed=seed)
            lean = {name: _lean(base, bases[name], seed) for name, base in maker.bases.items()}
            rest = fusion, domain.name, domain.ratings, frozenset(on.ratings["user"].unique()), longest
            return [FusedRecommender(replace(maker, bases=lean, standards=own), *rest) for own in standards.values()]

        assert domain.scale is not None, "the domain has ratings"
        served = Served.fit(fitted, domain, standards, max_history=longest, folds=config.folds, seed=seed)
        error = trained.error * domain.scale.span
        return cls(served, ids, domain.has_timestamps, error)

    @property
    def model(self) -> FusedRecommender:
        """The recommender for new users with long histories."""
        return self.served.of_all[-1]

    def scores(self, user: str | None, given: Given | None, items: np.ndarray) -> np.ndarray:
        """[n] predicted ratings, each from a history without the item.

        To score items of the history, each tenth of the history is left out in turn and predicted from the rest; up to
        ten ratings are left out one by one.

        Args:
            user: who is served. given: the history of the query with the numbers of its items, negative for an item
                that is not in the dataset; without
                ratings, the history of the dataset replaces it. items: [n] numbers.

        Raises:
            InputError: the history has an item twice, or a rating outside the scale.
        """
        history = self._history_of(given)
        if history is None:
            history = self.model.history_of(user) if user is not None and self.served.knows(user) else NO_HISTORY
        recommender = self.served.nearest(user, len(history.items))
        recommender.maker.check(history)
        place = pd.Index(history.items).get_indexer(items := self.ids[items])
        own = np.flatnonzero(place >= 0)
        scores = np.empty(len(items))
        latest = history.latest(self.served.max_history)
        scores[place < 0] = recommender.adapt(latest).predict(items[place < 0]).to_numpy()
        parts = [own[place[own] % PARTS == part] for part in np.unique(place[own] % PARTS)]
        rests = [np.flatnonzero(np.arange(len(history.items)) % PARTS != place[part[0]] % PARTS) for part in parts]
        histories = [history.rows(rest).latest(self.served.max_history) for rest in rests]
        predicted = recommender.predict(histories, [items[part] for part in parts])
        for part, values in zip(parts, predicted, strict=True):
            scores[part] = values
        return scores

    def _history_of(self, given: Given | None) -> History | None:
        """The history in the query; None if it has no ratings."""
        ratings = None if given is None else given[0].field("rating")
        if given is None or ratings is None:
            return None
        items, numbers = given
        ratings = np.asarray(ratings, dtype=np.float64)
        rows = np.flatnonzero((numbers >= 0) & np.isfinite(ratings))
        # The order of a history has no meaning, so it must not affect the division into parts.
        rows = rows[np.argsort(numbers[rows], kind="stable")]
        when = items.field("timestamp") if self.dated else None
        times = None if when is None else seconds_of(np.asarray(when)[rows], "timestamp of the history")
        return History(self.ids[numbers[rows]], ratings[rows], times)


def rating_views(
    domain: Domain, bases: Mapping[str, Mapping[str, Any]], config: FusionScorerConfig, seed: int
) -> dict[int, DomainEpisodes]:
    """shots -> episodes of ratings."""

    def build(settings: EpisodeSettings, roles: UserRoles) -> DomainEpisodes:
        domains = {domain.name: domain}
        return build_episodes(domains, domain.name, settings, bases, seed=seed, roles=roles)[domain.name]

    return views_of(domain, "rating", config, build, seed)


def _lean(base: BaseRecommender, options: Mapping[str, Any], seed: int) -> BaseRecommender:
    """A copy of a base without the data of its fit, if it has a state."""
    if not (hasattr(base, "state") and hasattr(base, "restore")):
        return base
    restored: BaseRecommender = make_base(base.name, seed=seed, **options).restore(base.state())  # type: ignore[attr-defined]
    return restored
