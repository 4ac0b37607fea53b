"""What a study holds out: users, or ratings of users whose other ratings are known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from metarec.episodes import (
    ROLES,
    DomainEpisodes,
    assign_ratings,
    assign_roles,
    build_episodes,
    build_warm_episodes,
)
from metarec.episodes.ranking import build_ranking_episodes
from metarec.ratings import Domain
from metarec.study.spec import StudySpec
from metarec.study.stages import Workspace

__all__ = ["Protocol", "protocol_of"]

LOOKS_BACK = 4
"""In ranking, bases and networks read this many times as many events as in training, the latest ones."""

LONGEST = 10_000
"""The bases get the whole history of a user, up to this length; networks adapt to as many ratings as in training."""


class Protocol(ABC):
    """A split of the domains of a study.

    Raises:
        InputError: there are too few users or ratings.
    """

    def __init__(self, spec: StudySpec, domains: Mapping[str, Domain]) -> None:
        self._spec, self._domains = spec, domains

    @abstractmethod
    def episodes(self, bases: Mapping[str, Mapping[str, Any]], workspace: Workspace) -> Mapping[str, DomainEpisodes]:
        """Fit the bases, and make the episodes of every domain."""

    @abstractmethod
    def learned_from(self, name: str) -> Domain:
        """The ratings of a domain on which the bases of the test episodes are fitted."""

    @property
    @abstractmethod
    def max_history(self) -> int:
        """How many of the latest ratings of a history the bases of a served model read."""

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """How each domain is split, for people."""


class ColdUsers(Protocol):
    """Users are held out: no rating of a test user is in any fit."""

    def __init__(self, spec: StudySpec, domains: Mapping[str, Domain]) -> None:
        super().__init__(spec, domains)
        self._roles = assign_roles(domains, spec.target or "", spec.episodes, spec.seed)

    def episodes(self, bases: Mapping[str, Mapping[str, Any]], workspace: Workspace) -> Mapping[str, DomainEpisodes]:
        spec = self._spec
        build = partial(build_ranking_episodes, ranking=spec.ranking) if spec.task == "ranking" else build_episodes
        return build(
            self._domains,
            spec.target or "",
            spec.episodes,
            bases=bases,
            seed=spec.seed,
            cache=workspace.cache,
            jobs=workspace.jobs,
            on_progress=workspace.on_progress,
        )

    def learned_from(self, name: str) -> Domain:
        return self._domains[name].without(self._roles.held_out(None))

    @property
    def max_history(self) -> int:
        return LOOKS_BACK * max(self._spec.episodes.shots, 1) if self._spec.task == "ranking" else LONGEST

    def lines(self) -> Iterator[str]:
        roles = self._roles.roles
        for name, domain in self._domains.items():
            own = Counter(roles[user] for user in domain.ratings["user"].unique() if user in roles)
            parts = ", ".join(f"{own[role]:,} {role}" for role in ROLES)
            yield f"{name}: {own.total():,} of {domain.num_users:,} users make episodes: {parts}"


class WarmUsers(Protocol):
    """Ratings are held out: the users' other ratings are known."""

    def __init__(self, spec: StudySpec, domains: Mapping[str, Domain]) -> None:
        super().__init__(spec, domains)
        self._roles = {
            name: assign_ratings(domain, spec.episodes, spec.held_out, spec.seed) for name, domain in domains.items()
        }

    def episodes(self, bases: Mapping[str, Mapping[str, Any]], workspace: Workspace) -> Mapping[str, DomainEpisodes]:
        spec = self._spec
        return build_warm_episodes(
            self._roles,
            spec.episodes,
            bases,
            seed=spec.seed,
            cache=workspace.cache,
            jobs=workspace.jobs,
            on_progress=workspace.on_progress,
        )

    def learned_from(self, name: str) -> Domain:
        return self._roles[name].learned_from

    @property
    def max_history(self) -> int:
        return LONGEST

    def lines(self) -> Iterator[str]:
        for name, roles in self._roles.items():
            parts = ", ".join(f"{roles.count(role):,} {role}" for role in ROLES)
            yield f"{name}: {len(roles.parts):,} ratings of {roles.domain.num_users:,} users: {parts}"


def protocol_of(spec: StudySpec, domains: Mapping[str, Domain]) -> Protocol:
    """The split of a study's domains, by its key ``protocol``."""
    return (WarmUsers if spec.protocol == "warm" else ColdUsers)(spec, domains)
