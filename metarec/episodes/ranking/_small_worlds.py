"""Ranking episodes of domains that are cut down to a few users: bases are fitted on these and make lists for others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from metarec.episodes._assemble import DomainEpisodes
from metarec.episodes._episodes import Episodes
from metarec.episodes._few_users import Fit, SmallDraw, draw_worlds
from metarec.episodes._split import Role, UserRoles
from metarec.episodes.ranking._build import RankingEpisodes, build_ranking_episodes
from metarec.episodes.ranking.settings import RankingSettings
from metarec.episodes.settings import EpisodeSettings, Progress
from metarec.errors import InputError
from metarec.ratings import Domain

__all__ = ["SmallRankingWorlds", "SmallTarget"]


class SmallTarget(NamedTuple):
    """A domain with few train users.

    Attributes:
        few: the few users, each predicted by bases that are fitted without the user. others: further train users, and
            all validation and test users, predicted by bases that are fitted on the few.
    """

    few: Episodes
    others: DomainEpisodes


@dataclass(frozen=True)
class SmallRankingWorlds:
    """One domain cut down to `count` of its train users, several times over.

    The catalogue of a world has the items of its few users. No event of another train user is in any fit.

    Attributes:
        domain: with events. roles: user -> role. count: the number of train users of a world.
        shots: all numbers of shots. The few users have enough events for each.
        seed: of the draws and the bases. cache: a folder for lists. jobs: worker processes.
    """

    domain: Domain
    settings: EpisodeSettings
    ranking: RankingSettings
    bases: Mapping[str, Mapping[str, Any]]
    roles: Mapping[str, Role]
    count: int
    shots: tuple[int, ...]
    seed: int = 0
    cache: Path | None = None
    jobs: int = 1
    on_progress: Progress | None = None

    def target(self, shots: int) -> SmallTarget:
        """The domain as a target with few users: those of the first world. Features are standardised by them.

        Raises:
            InputError: too few users, or the bases propose no relevant item to the few.
        """
        (world,), parts = self._drawn(1)
        nothing = (
            f'domain "{self.domain.name}": the bases propose none of the later items of its {self.count} target users, '
            "so that there is nothing to learn from; give more target users"
        )
        if self.domain.restrict(world.users).ratings["item"].is_unique:
            raise InputError(nothing)
        others = {user for user in world.predicted if self.roles[user] == "train"}
        folds = {user: fold for fold, part in enumerate(parts) for user in part.predicted}
        # The other train users are held out as validation users are, so that no fit and no statistic has them.
        held_out: dict[str, Role] = {
            user: "validation" if user in others else self.roles[user] for user in world.predicted
        }
        made = self._built(UserRoles({**held_out, **dict.fromkeys(folds, "train")}, folds, len(parts)), world, shots)
        if not made.train.batch.query.targets.any():
            raise InputError(nothing)
        is_other = torch.tensor([user in others for user in made.validation.users], dtype=torch.bool)
        validation = made.validation.select((~is_other).nonzero().squeeze(1))
        beyond = made.validation.select(is_other.nonzero().squeeze(1))
        return SmallTarget(made.train, DomainEpisodes(beyond, validation, made.test))

    def source(self, shots: int, worlds: int) -> DomainEpisodes:
        """The domain as a source: other train users and validation users of several worlds.

        Each user is predicted by bases that are fitted on the few users of a world, as those of a small target are.
        Features are standardised by the predicted train users of a world.

        Raises:
            InputError: too few users.
        """
        return DomainEpisodes.joined([self._world(fit, shots) for fit in self._drawn(worlds).worlds])

    def _drawn(self, worlds: int) -> SmallDraw:
        return draw_worlds(
            self.domain, self.settings, self.roles, count=self.count, shots=self.shots, worlds=worlds, seed=self.seed
        )

    def _world(self, fit: Fit, shots: int) -> RankingEpisodes:
        predicted = frozenset(user for user in fit.predicted if self.roles[user] != "test")
        # One fold with everybody who is predicted leaves the few for the fit: they have no role.
        roles = UserRoles({user: self.roles[user] for user in predicted}, dict.fromkeys(predicted, 0), 1)
        return self._built(roles, Fit(fit.users, predicted), shots)

    def _built(self, roles: UserRoles, fit: Fit, shots: int) -> RankingEpisodes:
        name = self.domain.name
        built = build_ranking_episodes(
            {name: self.domain.restrict(fit.users | fit.predicted)},
            name,
            self.settings.model_copy(update={"shots": shots}),
            self.ranking,
            self.bases,
            seed=self.seed,
            cache=self.cache,
            jobs=self.jobs,
            on_progress=self.on_progress,
            roles=roles,
        )
        return built[name]
