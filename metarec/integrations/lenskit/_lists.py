"""Lists of a dataset's users and of new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from metarec.episodes import EpisodeSettings, UserRoles
from metarec.episodes.ranking import RankingEpisodes, RankingSettings, RankingTaskMaker, build_ranking_episodes
from metarec.evaluation.measures import measure_of
from metarec.integrations.lenskit._config import FusionScorerConfig
from metarec.integrations.lenskit._served import Given, Served, views_of
from metarec.model import Events, Fusion, FusionConfig, RankingRecommender, stackers_of
from metarec.model.ranking_recommender import NO_EVENTS
from metarec.ratings import Domain, seconds_of

__all__ = ["ListServer"]


@dataclass(frozen=True)
class ListServer:
    """A fusion of ranking bases, with the users that it serves.

    Attributes:
        ids: [I] of the dataset's items, by their numbers. ndcg: the mean nDCG@10 of held-out users.
    """

    served: Served[RankingRecommender]
    ids: np.ndarray
    dated: bool
    ndcg: float

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
        """Train the fusion, and fit the bases that serve.

        Raises:
            InputError: too few users with enough items, or a wrong option of a base or of the network.
        """
        lists = RankingSettings()

        def build(settings: EpisodeSettings, roles: UserRoles) -> RankingEpisodes:
            domains = {domain.name: domain}
            built = build_ranking_episodes(domains, domain.name, settings, lists, bases, seed=seed, roles=roles)
            return built[domain.name]

        views = views_of(domain, "ranking", config, build, seed)
        rankers = tuple(stackers_of("ranking").builtins()) if config.rankers is None else config.rankers
        networks = {"network": config.network_of("ranking")}
        fusion = Fusion(FusionConfig(task="ranking", networks=networks, stackers=rankers), seed=seed)
        fusion = fusion.fit(list(views.values())).used()
        standards = {shots: view.ranking_standards for shots, view in views.items()}
        longest = config.max_history_of("ranking")

        def fitted(on: Domain) -> list[RankingRecommender]:
            maker = RankingTaskMaker.fit(on, bases, next(iter(standards.values())), lists, seed=seed)
            rest = fusion, domain.name, domain.ratings, frozenset(on.ratings["user"].unique()), longest
            return [RankingRecommender(replace(maker, standards=own), *rest) for own in standards.values()]

        measure = measure_of("ranking")
        held_out = [view.validation for view in views.values()]
        values = [measure.unit_value(one, fusion.predict(one)) for one in held_out]
        served = Served.fit(fitted, domain, standards, max_history=longest, folds=config.folds, seed=seed)
        return cls(served, ids, domain.has_timestamps, float(np.mean(values)))

    @property
    def model(self) -> RankingRecommender:
        """The recommender for new users with long histories."""
        return self.served.of_all[-1]

    def scores(self, user: str | None, given: Given | None, items: np.ndarray) -> np.ndarray:
        """[n] scores, with a meaning within the list; NaN for an item that no base proposes, or of the history.

        Args:
            user: who is served. given: the history of the query with the numbers of its items, negative for an item
                that is not in the dataset; None for
                the history of the dataset. items: [n] numbers.
        """
        history = self._history_of(user, given)
        recommender = self.served.nearest(user, len(history.items))
        (found,) = recommender.lists([history])
        place = pd.Index(found.items).get_indexer(self.ids[items])
        return np.where(place >= 0, np.append(found.scores, np.nan)[place], np.nan)

    def _history_of(self, user: str | None, given: Given | None) -> Events:
        if given is None:
            return self.model.history_of(user) if user is not None and self.served.knows(user) else NO_EVENTS
        items, numbers = given
        rows = np.flatnonzero(numbers >= 0)
        # Without times the order of a history has no meaning.
        rows = rows[np.argsort(numbers[rows], kind="stable")]
        count = items.field("count")
        weights = np.ones(len(rows)) if count is None else np.asarray(count, dtype=np.float64)[rows]
        when = items.field("timestamp") if self.dated else None
        times = None if when is None else seconds_of(np.asarray(when)[rows], "timestamp of the history")
        return Events.added_up(self.ids[numbers[rows]], weights, times)
