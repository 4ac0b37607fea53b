"""Rounds of rating, on the common scale of ratings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from metarec.bases import BASES, applicable_bases
from metarec.episodes import (
    CrossValidation,
    DomainEpisodes,
    EpisodeSettings,
    PredictedTasks,
    SmallWorld,
    Standards,
    cross_validate,
    small_worlds,
)
from metarec.episodes.settings import Progress
from metarec.ratings import Domain, common_scale, rated_domains
from metarec.transfer.rounds._base import FOLDS, WORLDS, Rounds, some_users
from metarec.transfer.rounds._round import Regime, Round
from metarec.transfer.sources import Sources
from metarec.workers import worker_map

__all__ = ["TransferRounds"]

POOLED_WEIGHT = 0.5
"""The weight of the pooled sources in a domain's feature standards; the rest is its own. Values relative to the domain
and to all domains are both informative: with one alone, on validation users of seven sets, errors were up to 2 % larger
on the sets that are unlike the others."""

OWN_USERS = 5
"""The number of target users at which the weight of its own feature standards is half that of a source's."""


class _PooledSources(NamedTuple):
    """The sources of a round, and the feature standards of all of them together."""

    sources: Sources
    standards: Standards


class TransferRounds(Rounds):
    """Makes rounds of rating, see :class:`Rounds`.

    Where users are linked, bases are fitted on a domain and on the others that share users with it, and a user's
    ratings elsewhere before the queries are an input of every prediction (`metarec/episodes/builders/_linked.py`). The
    target is linked to the sources of the round, a source to the other sources. No rating of a held-out user is in any
    fit, in any domain. Test users and their queries are the same with and without links.

    Args:
        domains: the rating tables by name, two at least.
        shots: all numbers of shots that rounds may have. The few users have enough ratings for the largest.
        settings: how episodes are cut; `shots` replaces its own number.
        bases: name -> options; by default all built-in ones that apply to every domain.
        link_users: whether users with the same id in several domains are the same person.
        cache: a folder for results of fits; None keeps nothing on disk.
        jobs: worker processes for fitting bases; the result does not depend on it.
        on_progress: called with (done, total, what) after fits.

    Raises:
        InputError: fewer than two domains, or no number of shots.
    """

    def __init__(
        self,
        domains: Mapping[str, Domain],
        shots: Sequence[int],
        settings: EpisodeSettings | None = None,
        *,
        bases: Mapping[str, Mapping[str, Any]] | None = None,
        link_users: bool = False,
        cache: Path | None = None,
        jobs: int = 1,
        on_progress: Progress | None = None,
    ) -> None:
        domains = rated_domains(domains)
        if bases is None:
            each = [applicable_bases(BASES.builtins(), [domain]) for domain in domains.values()]
            bases = {name: {} for name in each[0] if all(name in own for own in each)}
        super().__init__(domains, shots, settings, bases, cache=cache, jobs=jobs, on_progress=on_progress)
        self.link_users = link_users
        self._wholes: dict[tuple[str, int, tuple[str, ...]], CrossValidation] = {}
        self._small: dict[tuple[str, int, int, tuple[str, ...]], list[SmallWorld]] = {}
        # Only the last one is kept: it is large, and rounds of the same sources are made in a row.
        self._pooled: tuple[tuple[Any, ...], _PooledSources] | None = None

    def prepare(self, name: str, *, target_users: int, regime: Regime = "everything", number: int = 0) -> None:
        """Compute and keep the base predictions that a round needs of this domain, as its target or as a source.

        Raises:
            InputError: more target users than there are.
        """
        if regime == "everything":
            self._worlds(name, number, self._size(name, number, target_users), ())
        else:
            self._whole(name, number, ())

    def _made(
        self, target: str, sources: Sequence[str], number: int, shots: int, target_users: int, regime: Regime
    ) -> Round:
        size = target_users if regime == "everything" else None
        pooled = self._sources(sources, number, shots, size)
        linked = self._linked(target, sources)
        few, others, fit_on = self._target(target, number, shots, target_users, regime, linked)
        scale = common_scale(fit_on)
        plain = few.episodes()
        own = replace(few, scale=scale).episodes().standards
        assert plain.standards is not None
        assert own is not None
        own_weight = (1 - POOLED_WEIGHT) * target_users / (target_users + OWN_USERS)
        mixed = own.mixed(pooled.standards, 1 - own_weight)
        validated = others.where(lambda _, role: role == "validation")
        tested = others.where(lambda _, role: role == "test")
        return Round(
            pooled.sources,
            replace(few, scale=scale).episodes(mixed).train,
            replace(validated, scale=scale).episodes(mixed).validation,
            replace(tested, scale=scale).episodes(mixed).test,
            plain.train,
            validated.episodes(plain.standards).validation,
            tested.episodes(plain.standards).test,
            others.episodes(),
            self.domains[target].scale,
            own,
        )

    def _linked(self, name: str, sources: Sequence[str]) -> tuple[str, ...]:
        """The domains that this one is linked to: a target to the sources, a source to the other sources."""
        return tuple(other for other in sources if other != name) if self.link_users else ()

    def _elsewhere(self, linked: Sequence[str]) -> dict[str, Domain] | None:
        return {name: self.domains[name] for name in linked} if self.link_users else None

    def _whole(self, name: str, number: int, linked: tuple[str, ...]) -> CrossValidation:
        key = (name, number // FOLDS, linked)
        if key not in self._wholes:
            self._wholes[key] = cross_validate(
                self.domains[name],
                self.settings,
                self.bases,
                shots=self.shots,
                folds=self._folds_of(key[1]),
                elsewhere=self._elsewhere(linked),
                seed=key[1],
                cache=self._cache,
                jobs=self._jobs,
                on_progress=self._on_progress,
            )
        return self._wholes[key]

    def _worlds(self, name: str, number: int, count: int, linked: tuple[str, ...]) -> list[SmallWorld]:
        key = (name, number, count, linked)
        if key not in self._small:
            with worker_map(self._jobs) as run:
                self._small[key] = small_worlds(
                    self.domains[name],
                    self.settings,
                    self.bases,
                    self._roles(number),
                    count=count,
                    shots=self.shots,
                    worlds=WORLDS,
                    elsewhere=self._elsewhere(linked),
                    seed=number,
                    cache=self._cache,
                    run=run,
                )
        return self._small[key]

    def _train_ratings(self, name: str, number: int) -> Domain:
        return self.domains[name].without({user for user, role in self._roles(number).items() if role != "train"})

    def _target(
        self, name: str, number: int, shots: int, count: int, regime: Regime, linked: tuple[str, ...]
    ) -> tuple[PredictedTasks, PredictedTasks, Domain]:
        """The tasks of the few users, those of all others, and the ratings that the bases were fitted on."""
        if regime == "everything":
            world = self._worlds(name, number, count, linked)[0]
            return world.train[shots], world.others[shots], world.fit_on
        few = self._draw_few(name, number, count)
        everyone = self._whole(name, number, linked).predicted_tasks(number % FOLDS, shots)
        chosen = everyone.where(lambda user, role: role == "train" and user in few)
        return chosen, everyone, self._train_ratings(name, number)

    def _sources(self, names: Sequence[str], number: int, shots: int, size: int | None) -> _PooledSources:
        """Returns the same object for consecutive rounds of the same sources, so that its models are kept."""
        key = (tuple(names), number, shots, size)
        if self._pooled is None or self._pooled[0] != key:
            views = {name: list(self._views(name, number, shots, size, self._linked(name, names))) for name in names}
            standards = {name: _standards(own) for name, own in views.items()}
            pooled = Standards.pooled(list(standards.values()))
            joined = {}
            for name, own in views.items():
                mixed = standards[name].mixed(pooled, POOLED_WEIGHT)
                joined[name] = DomainEpisodes.joined([view.episodes(mixed) for view in own])
            self._pooled = key, _PooledSources(Sources(joined), pooled)
        return self._pooled[1]

    def _views(
        self, name: str, number: int, shots: int, size: int | None, linked: tuple[str, ...]
    ) -> Iterator[PredictedTasks]:
        """A source's tasks on the common scale: of all small worlds of this size, or of the whole domain."""
        if size is None:
            whole = self._whole(name, number, linked).predicted_tasks(number % FOLDS, shots)
            chosen = some_users(
                ((cut.task.user, role) for cut, role in zip(whole.cuts, whole.roles, strict=True)), number
            )
            scale = common_scale(self._train_ratings(name, number))
            yield replace(whole.where(lambda user, role: user in chosen), scale=scale)
            return
        for world in self._worlds(name, number, self._size(name, number, size), linked):
            tasks = world.others[shots].where(lambda _, role: role != "test")
            yield replace(tasks, scale=common_scale(world.fit_on))


def _standards(views: Sequence[PredictedTasks]) -> Standards:
    found = [view.episodes().standards for view in views]
    return Standards.pooled([standards for standards in found if standards is not None])
