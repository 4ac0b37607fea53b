"""The recommenders that serve the users of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Self, TypeAlias, TypeVar

import numpy as np
from lenskit.data import ItemList

from metarec.episodes import DomainEpisodes, EpisodeSettings, UserRoles, assign_roles
from metarec.fusion import Task
from metarec.integrations.lenskit._config import FusionScorerConfig
from metarec.ratings import Domain

__all__ = ["Given", "Served", "views_of"]

Given: TypeAlias = tuple[ItemList, np.ndarray]
"""The history of a query, and [k] the numbers of its items; negative for an item that is not in the dataset."""

FEWEST = 1e-9
"""The share of test users. It must be above 0, and this share makes a single test user."""

RecommenderT = TypeVar("RecommenderT")
EpisodesT = TypeVar("EpisodesT", bound=DomainEpisodes)


@dataclass(frozen=True)
class Served(Generic[RecommenderT]):
    """Recommenders of new users and of those of a dataset, one for each size of the support set.

    Attributes:
        of_all: by bases that were fitted on all users. without: for each fold, by bases that were fitted without its
            users. fold_of: user -> fold. shots: the size of the support set of each recommender.
        max_history: the latest entries of a history that they use, at most.
    """

    of_all: list[RecommenderT]
    without: list[list[RecommenderT]]
    fold_of: Mapping[str, int]
    shots: np.ndarray
    max_history: int

    @classmethod
    def fit(
        cls,
        fitted: Callable[[Domain], list[RecommenderT]],
        domain: Domain,
        shots: Iterable[int],
        *,
        max_history: int,
        folds: int,
        seed: int,
    ) -> Self:
        """Args: fitted: the recommenders by bases that are fitted on a domain. shots: of each of them."""
        users = np.sort(domain.ratings["user"].unique())
        dealt = np.random.default_rng([seed, 2]).permutation(len(users)) % folds
        without = [fitted(domain.without(users[dealt == fold])) for fold in range(folds)]
        fold_of = dict(zip(users.tolist(), dealt.tolist(), strict=True))
        return cls(fitted(domain), without, fold_of, np.array(list(shots)), max_history)

    def knows(self, user: str | None) -> bool:
        """Whether the user is in the dataset."""
        return user is not None and user in self.fold_of

    def of(self, user: str | None) -> list[RecommenderT]:
        """The recommenders that serve this user, who is in no fit of their bases; None is a new user."""
        return self.without[self.fold_of[user]] if user is not None and user in self.fold_of else self.of_all

    def nearest(self, user: str | None, length: int) -> RecommenderT:
        """The recommender that serves this user with a history of this length.

        It is the one whose shots have the ratio to the length that is nearest to 1: 50 is nearer to 80 than to 20.
        """
        used = min(length, self.max_history)
        return self.of(user)[int(np.abs(np.log1p(self.shots) - np.log1p(used)).argmin())]


def views_of(
    domain: Domain,
    task: Task,
    config: FusionScorerConfig,
    build: Callable[[EpisodeSettings, UserRoles], EpisodesT],
    seed: int,
) -> dict[int, EpisodesT]:
    """shots -> episodes with so many support entries, all with the same train and held-out users."""
    first, *more = (
        EpisodeSettings(
            shots=shots, validation_fraction=config.validation_fraction, test_fraction=FEWEST, folds=config.folds
        )
        for shots in config.shots_of(task)
    )
    roles = assign_roles({domain.name: domain}, domain.name, first, seed)
    counts = domain.ratings["user"].value_counts()
    views = {}
    for settings in (first, *more):
        able = {roles.roles.get(user) for user in counts.index[counts >= settings.needed_ratings]}
        # There may be no train user or no held-out user with so many ratings.
        if {"train", "validation"} <= able:
            views[settings.shots] = build(settings, roles)
    return views
