"""The model of a small shop, made without a study, and the lists of its test users."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from metarec.episodes import EpisodeSettings, assign_roles
from metarec.episodes._split import cut_tasks
from metarec.episodes.ranking import RankingSettings, RankingTaskMaker, build_ranking_episodes
from metarec.evaluation.measures import RANKING
from metarec.evaluation.metrics import METAREC
from metarec.meta import NetworkConfig
from metarec.model import Events, Fusion, FusionConfig, RankingRecommender
from metarec.ratings import Domain, simulate_implicit_domains

BASES = {
    **{name: {} for name in ("popularity", "user-knn", "content", "next-item")},
    # The simulated events are varied below, so that weights matter.
    "item-knn": {"weights": "log"},
    "ease": {"penalty": 20},
    "ials": {"features": 8, "epochs": 3},
    "vae": {"hidden": 8, "epochs": 2},
}
EPISODES = EpisodeSettings(shots=5, folds=2)
LISTS = RankingSettings(candidates=10)


@dataclass
class Shop:
    """A recommender with every base, a network and every ranker, all with the same weight.

    Attributes:
        rows: of the predictions file of its test users.
    """

    domain: Domain
    recommender: RankingRecommender
    rows: pd.DataFrame

    @cached_property
    def supports(self):
        """user -> the events that the episodes of the test users are adapted on."""
        return supports_of(self.domain, EPISODES)


def small_shop():
    """Fit it; some seconds."""
    domains = simulate_implicit_domains(0, num_users=70, num_items=150)
    domain = domains["shop"]
    weights = 1.0 + np.random.default_rng(0).integers(0, 9, len(domain.ratings))
    domain = domains["shop"] = Domain(
        "shop", domain.ratings.assign(weight=weights), items=domain.items, feedback="implicit"
    )
    episodes = build_ranking_episodes(domains, "shop", EPISODES, LISTS, BASES)["shop"]
    config = FusionConfig(task="ranking", networks={"network": NetworkConfig(epochs=2)}, weights="equal")
    fusion = Fusion(config).fit(episodes)
    train = domain.without(assign_roles(domains, "shop", EPISODES, 0).held_out(None))
    maker = RankingTaskMaker.fit(train, BASES, episodes.ranking_standards, LISTS)
    users = frozenset(train.ratings["user"])
    recommender = RankingRecommender(maker, fusion, domain.name, domain.ratings, users, max_history=20)
    return Shop(domain, recommender, RANKING.rows(episodes.test, {METAREC: fusion.predict(episodes.test)}))


def supports_of(domain, settings, seed=0):
    """user -> the support of a test user's episode."""
    roles = assign_roles({domain.name: domain}, domain.name, settings, seed)
    return {
        cut.task.user: Events.added_up(cut.task.support_items, cut.task.support_ratings, cut.support_times)
        for cut in cut_tasks(domain, roles, settings, seed)
        if roles.roles[cut.task.user] == "test"
    }
