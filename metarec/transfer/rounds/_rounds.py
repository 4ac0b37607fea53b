"""From rating tables to what a transfer strategy is asked: sources with many users, a target with few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarec.bases import BASES, applicable_bases
from metarec.episodes import (
    MIN_USERS,
    CrossValidation,
    DomainEpisodes,
    EpisodeSettings,
    PredictedTasks,
    Role,
    SmallWorld,
    Standards,
    able_users,
    cross_validate,
    draw_train_users,
    eligible_users,
    shared_folds,
    small_worlds,
    too_few,
)
from metarec.episodes.settings import Progress
from metarec.errors import InputError
from metarec.ratings import Domain, common_scale
from metarec.registry import suggest
from metarec.transfer.rounds import Regime, Round
from metarec.transfer.sources import Sources
from metarec.workers import worker_map

__all__ = ["TransferRounds"]

FOLDS = 5
MAX_USERS = {"train": 400, "validation": 200}
"""Of a source, at most: so that a large one counts as much as a small one, and more would not be told apart."""

SHARE = 0.5
"""How far a domain's features are measured against those of all sources together, and not against its own. What is
large for this domain, and what is large for any, both say something; with one of them alone, on validation users of
seven sets, errors were up to 2 % larger on those sets that are unlike the others."""

OWN_USERS = 5
"""How many users of a target it takes before its own features are believed as far as those of a whole source."""

WORLDS = 4
"""Into how many small worlds a source is cut."""


class _Side(NamedTuple):
    """What a round learns from, and what features of all its sources together are like."""

    sources: Sources
    standards: Standards


class TransferRounds:
    """Makes rounds of all domains, each of which may be the target; what rounds share is computed once.

    A round is numbered: its test users are one fold of the users, the same in all domains, and its few users are drawn
    by it. Five rounds use up the folds; the sixth begins with another deal.

    Where users are linked, a user's history does not end at the border of a domain: bases are fitted on a domain and
    on those others that share users with it, and what a user rated elsewhere before the queries is the background of
    every prediction (`metarec/episodes/_linked.py`). The target is linked to the sources of the round, a source to the
    other sources; nothing of a held-out user is in any fit, whatever the domain. Test users and their queries are the
    same with and without.

    Args:
        domains: the rating tables by name, two at least.
        shots: all numbers of shots that will be asked for. The few users have enough ratings for the largest.
        settings: how episodes are cut; `shots` replaces its own number.
        bases: name -> options; by default all built-in ones that have something to learn from in every domain.
        link_users: whether users with the same id in several domains are the same person, whose history in the one
            counts in the other.
        cache: a folder for what took long; None keeps nothing on disk.
        jobs: worker processes for fitting bases; the result does not depend on it.
        on_progress: called with (done, of how many, what) after fits.

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
        if len(domains) < 2:
            raise InputError(f"transfer needs at least two domains but got {', '.join(domains) or 'none'}")
        if not shots or min(shots) < 0:
            raise InputError(f"shots must name at least one number >= 0 but got {list(shots)}")
        self.domains = dict(domains)
        self.shots = tuple(sorted(set(shots)))
        self.settings = EpisodeSettings() if settings is None else settings
        if bases is None:
            each = [applicable_bases(BASES.builtins(), [domain]) for domain in domains.values()]
            bases = {name: {} for name in each[0] if all(name in own for own in each)}
        self.bases = dict(bases)
        self.link_users = link_users
        self._cache = cache
        self._jobs = jobs
        self._on_progress = on_progress
        self._folds: dict[int, dict[str, int]] = {}
        self._wholes: dict[tuple[str, int, tuple[str, ...]], CrossValidation] = {}
        self._small: dict[tuple[str, int, int, tuple[str, ...]], list[SmallWorld]] = {}
        # The last one only: it is large, and who asks for several rounds of the same sources asks for them in a row.
        self._side: tuple[tuple[Any, ...], _Side] | None = None

    def prepare(self, name: str, *, target_users: int, regime: Regime = "everything", number: int = 0) -> None:
        """Have the bases say what a round needs of this domain, as its target or as a source, and keep it.

        Raises:
            InputError: more known users than there are.
        """
        if regime == "everything":
            self._worlds(name, number, self._size(name, number, target_users), ())
        else:
            self._whole(name, number, ())

    def round(
        self,
        target: str,
        *,
        shots: int,
        target_users: int,
        regime: Regime = "everything",
        number: int = 0,
        sources: Sequence[str] | None = None,
    ) -> Round:
        """What a strategy is asked in one round.

        Args:
            target: its name. shots: one of those that were announced. target_users: how many of its users are known.
            sources: names of the domains to learn from; by default all the others.

        Raises:
            InputError: an unknown domain, a number of shots that was not announced, or more known users than there are.
        """
        for name in (target, *(sources or ())):
            if name not in self.domains:
                raise InputError(f'unknown domain "{name}"; {suggest(name, list(self.domains))}')
        if shots not in self.shots:
            raise InputError(f"shots must be one of {', '.join(map(str, self.shots))} but got {shots}")
        names = [name for name in self.domains if name != target] if sources is None else list(sources)
        if not names or target in names:
            got = ", ".join(names) or "none"
            raise InputError(f'sources must name at least one domain and not the target "{target}" but got {got}')
        self._known_users(target, number, target_users)
        size = target_users if regime == "everything" else None
        side = self._sources(names, number, shots, size)
        linked = self._linked(target, names)
        few, others = self._target(target, number, shots, target_users, regime, linked)
        scale = common_scale(self._known(target, number, target_users, regime, linked))
        plain = few.episodes()
        own = replace(few, scale=scale).episodes().standards
        assert plain.standards is not None
        assert own is not None
        trust = (1 - SHARE) * target_users / (target_users + OWN_USERS)
        mixed = own.mixed(side.standards, 1 - trust)
        validated, tested = others.where(_is_validated), others.where(_is_tested)
        return Round(
            side.sources,
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

    def check(self, target: str, *, target_users: int, regime: Regime = "everything", number: int = 0) -> None:
        """Say at once, before any base is fitted, that a round cannot be: some role would have too few users.

        Raises:
            InputError: an unknown domain, more known users than there are, or nobody who tests or validates.
        """
        if target not in self.domains:
            raise InputError(f'unknown domain "{target}"; {suggest(target, list(self.domains))}')
        roles = self._roles(number)
        most = self.settings.model_copy(update={"shots": self.shots[-1]})
        for name, domain in self.domains.items():
            if name == target:
                self._known_users(name, number, target_users)
            needed: Role = "test" if name == target else "validation"
            able = eligible_users(domain, most)
            if regime == "labels" and len(able) < max(MIN_USERS, 2 * FOLDS):
                raise InputError(too_few(domain, most, len(able), max(MIN_USERS, 2 * FOLDS)))
            if not any(roles.get(user) == needed for user in able):
                raise InputError(
                    f'domain "{name}": of its {len(able)} users with {most.needed_ratings} ratings round {number} has '
                    f"none for {needed}; give the ratings of more users, or ask for fewer shots"
                )

    def _roles(self, number: int) -> dict[str, Role]:
        fold = number % FOLDS
        roles: dict[int, Role] = {fold: "test", (fold + 1) % FOLDS: "validation"}
        return {user: roles.get(own, "train") for user, own in self._deal(number // FOLDS).items()}

    def _deal(self, deal: int) -> dict[str, int]:
        if deal not in self._folds:
            least = self.settings.model_copy(update={"shots": self.shots[0]})
            self._folds[deal] = shared_folds(self.domains.values(), least, FOLDS, deal)
        return self._folds[deal]

    def _linked(self, name: str, sources: Sequence[str]) -> tuple[str, ...]:
        """The domains that this one is linked to: a target to the sources, a source to the others of them."""
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
                folds=self._deal(key[1]),
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

    def _known_users(self, name: str, number: int, count: int) -> frozenset[str]:
        able = able_users(self.domains[name], self.settings, self._roles(number), self.shots[-1])
        if not 2 <= count < len(able):
            raise InputError(
                f'domain "{name}": of its {len(able)} train users with '
                f"{self.shots[-1] + self.settings.min_query} ratings at least two can be known, and fewer than all, "
                f"but got {count}"
            )
        return draw_train_users(able, count, number)

    def _size(self, name: str, number: int, target_users: int) -> int:
        """How many users a small world of a source knows: as many as are known of the target, or half of its own."""
        able = able_users(self.domains[name], self.settings, self._roles(number), self.shots[-1])
        return max(min(target_users, len(able) // 2), 2)

    def _known(self, name: str, number: int, count: int, regime: Regime, linked: tuple[str, ...]) -> Domain:
        """The target's ratings that its bases were fitted on."""
        if regime == "everything":
            return self._worlds(name, number, count, linked)[0].fit_on
        return self._train_ratings(name, number)

    def _target(
        self, name: str, number: int, shots: int, count: int, regime: Regime, linked: tuple[str, ...]
    ) -> tuple[PredictedTasks, PredictedTasks]:
        """The tasks of the few, and those of everybody else, both on the domain's own scale."""
        if regime == "everything":
            world = self._worlds(name, number, count, linked)[0]
            return world.train[shots], world.others[shots]
        known = self._known_users(name, number, count)
        everybody = self._whole(name, number, linked).predicted_tasks(number % FOLDS, shots)
        return everybody.where(lambda user, role: role == "train" and user in known), everybody

    def _sources(self, names: Sequence[str], number: int, shots: int, size: int | None) -> _Side:
        """The same object for the same sources, asked for one round after the other: it has been taught already."""
        key = (tuple(names), number, shots, size)
        if self._side is None or self._side[0] != key:
            views = {name: list(self._views(name, number, shots, size, self._linked(name, names))) for name in names}
            standards = {name: _standards(own) for name, own in views.items()}
            everybody = Standards.pooled(list(standards.values()))
            sides = {name: _joined(own, standards[name].mixed(everybody, SHARE)) for name, own in views.items()}
            self._side = key, _Side(Sources(sides), everybody)
        return self._side[1]

    def _views(
        self, name: str, number: int, shots: int, size: int | None, linked: tuple[str, ...]
    ) -> Iterator[PredictedTasks]:
        """A source's tasks on the common scale: of all small worlds of this size, or of the whole domain."""
        if size is None:
            whole = self._whole(name, number, linked).predicted_tasks(number % FOLDS, shots)
            chosen = _some_users(whole, number)
            scale = common_scale(self._train_ratings(name, number))
            yield replace(whole.where(lambda user, role: user in chosen), scale=scale)
            return
        for world in self._worlds(name, number, self._size(name, number, size), linked):
            tasks = world.others[shots].where(lambda _, role: role != "test")
            yield replace(tasks, scale=common_scale(world.fit_on))


def _joined(views: Sequence[PredictedTasks], standards: Standards) -> DomainEpisodes:
    return DomainEpisodes.joined([view.episodes(standards) for view in views])


def _standards(views: Sequence[PredictedTasks]) -> Standards:
    found = [view.episodes().standards for view in views]
    return Standards.pooled([standards for standards in found if standards is not None])


def _is_tested(_: str, role: Role) -> bool:
    return role == "test"


def _is_validated(_: str, role: Role) -> bool:
    return role == "validation"


def _some_users(predicted: PredictedTasks, seed: int) -> frozenset[str]:
    chosen: set[str] = set()
    for role, most in MAX_USERS.items():
        users = sorted({cut.task.user for cut in predicted.cuts if predicted.roles[cut.task.user] == role})
        order = np.random.default_rng([seed, 7]).permutation(len(users))
        chosen |= {users[place] for place in order[:most]}
    return frozenset(chosen)
