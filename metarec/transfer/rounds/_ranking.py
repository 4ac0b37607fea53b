"""Rounds of ranking: lists of sources and of a target with few users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarec.bases.ranking import RANKING_BASES, applicable_ranking_bases
from metarec.episodes import DomainEpisodes, Episodes, EpisodeSettings, UserRoles
from metarec.episodes.ranking import RankingSettings, SmallRankingWorlds, build_ranking_episodes
from metarec.episodes.settings import Progress
from metarec.errors import InputError
from metarec.ratings import Domain
from metarec.transfer.rounds._base import FOLDS, WORLDS, Rounds, some_users
from metarec.transfer.rounds._round import Regime, Round
from metarec.transfer.sources import Sources

__all__ = ["RankingRounds"]


class RankingRounds(Rounds):
    """Makes rounds of ranking, see :class:`Rounds`.

    Tables of ratings are read as events, so that rated domains can be sources of a target with events, and the other
    way round. Features have no unit, and each domain's are standardised by its own train users. Where only labels are
    few, the target's are standardised by all of its train users, from whose events its bases learn too.

    Args:
        domains: the tables by name, two at least, of any feedback.
        ranking: how lists are made. bases: name -> options; by default all built-in ranking bases that apply to every
            domain. The other arguments are those of :class:`Rounds`.

    Raises:
        InputError: as in :class:`Rounds`, several draws of a user, or `ranking.positive` is outside of a scale.
    """

    def __init__(
        self,
        domains: Mapping[str, Domain],
        shots: Sequence[int],
        settings: EpisodeSettings | None = None,
        *,
        ranking: RankingSettings | None = None,
        bases: Mapping[str, Mapping[str, Any]] | None = None,
        cache: Path | None = None,
        jobs: int = 1,
        on_progress: Progress | None = None,
    ) -> None:
        self.ranking = RankingSettings() if ranking is None else ranking
        domains = {name: domain.as_implicit(self.ranking.positive) for name, domain in domains.items()}
        if bases is None:
            each = [applicable_ranking_bases(RANKING_BASES.builtins(), [domain]) for domain in domains.values()]
            bases = {name: {} for name in RANKING_BASES.builtins() if all(name in own for own in each)}
        super().__init__(domains, shots, settings, bases, cache=cache, jobs=jobs, on_progress=on_progress)
        self._wholes: dict[tuple[str, int, int], DomainEpisodes] = {}
        # Only the last one is kept, so that consecutive rounds of the same sources share their models.
        self._latest: tuple[tuple[Any, ...], Sources] | None = None

    def _made(
        self, target: str, sources: Sequence[str], number: int, shots: int, target_users: int, regime: Regime
    ) -> Round:
        few, others = self._target(target, number, shots, target_users, regime)
        if not len(others.test):
            raise InputError(
                f'domain "{target}": no test user of round {number} has a later item among the items of its '
                f"{target_users} target users; give more target users"
            )
        return Round(
            self._sources(sources, number, shots, target_users if regime == "everything" else None),
            few,
            others.validation,
            others.test,
            few,
            others.validation,
            others.test,
            others,
            few.scale,
            None,
        )

    def _target(
        self, name: str, number: int, shots: int, count: int, regime: Regime
    ) -> tuple[Episodes, DomainEpisodes]:
        """The few users, and all others."""
        if regime == "everything":
            return self._worlds(name, number, count).target(shots)
        whole = self._whole(name, number, shots)
        return _of(whole.train, self._draw_few(name, number, count)), whole

    def _sources(self, names: Sequence[str], number: int, shots: int, size: int | None) -> Sources:
        key = (tuple(names), number, shots, size)
        if self._latest is None or self._latest[0] != key:
            self._latest = key, Sources({name: self._source(name, number, shots, size) for name in names})
        return self._latest[1]

    def _source(self, name: str, number: int, shots: int, size: int | None) -> DomainEpisodes:
        if size is not None:
            return self._worlds(name, number, self._size(name, number, size)).source(shots, WORLDS)
        whole = self._whole(name, number, shots)
        roles = ((user, role) for role in ("train", "validation") for user in getattr(whole, role).users)
        chosen = some_users(roles, number)  # type: ignore[arg-type]  # the two are roles
        nobody = whole.test.select(torch.zeros(0, dtype=torch.long))
        return DomainEpisodes(_of(whole.train, chosen), _of(whole.validation, chosen), nobody)

    def _worlds(self, name: str, number: int, count: int) -> SmallRankingWorlds:
        return SmallRankingWorlds(
            self.domains[name],
            self.settings,
            self.ranking,
            self.bases,
            self._roles(number),
            count,
            self.shots,
            seed=number,
            cache=self._cache,
            jobs=self._jobs,
            on_progress=self._on_progress,
        )

    def _whole(self, name: str, number: int, shots: int) -> DomainEpisodes:
        key = (name, number, shots)
        if key not in self._wholes:
            roles = self._roles(number)
            train = sorted(user for user, role in roles.items() if role == "train")
            folds = min(self.settings.folds, len(train))
            order = np.random.default_rng([number, 8]).permutation(len(train))
            dealt = {train[index]: place % folds for place, index in enumerate(order)}
            built = build_ranking_episodes(
                {name: self.domains[name]},
                name,
                self.settings.model_copy(update={"shots": shots}),
                self.ranking,
                self.bases,
                seed=number // FOLDS,
                cache=self._cache,
                jobs=self._jobs,
                on_progress=self._on_progress,
                roles=UserRoles(roles, dealt, folds),
            )
            self._wholes[key] = built[name]
        return self._wholes[key]


def _of(episodes: Episodes, users: frozenset[str]) -> Episodes:
    """The episodes of these users."""
    return episodes.select(torch.tensor([row for row, user in enumerate(episodes.users) if user in users]))
