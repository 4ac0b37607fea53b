"""What the rounds of all tasks share: names, the roles of users, and the draw of the few."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarec.episodes import (
    MIN_USERS,
    EpisodeSettings,
    Role,
    able_users,
    draw_train_users,
    eligible_users,
    shared_folds,
    too_few,
)
from metarec.episodes.settings import Progress
from metarec.errors import InputError
from metarec.ratings import Domain
from metarec.registry import suggest
from metarec.transfer.rounds._round import Regime, Round

__all__ = ["FOLDS", "WORLDS", "Rounds", "some_users"]

FOLDS = 5
MAX_USERS = {"train": 400, "validation": 200}
"""The most users of a source, so that a large source counts as much as a small one."""

WORLDS = 4
"""The number of small worlds that a source is cut into."""


class Rounds(ABC):
    """Makes rounds with any of the domains as the target; shared results are computed once.

    The round's number selects its test users, one fold of the users in all domains, and seeds the draw of its few
    users. Five rounds use each fold once; the sixth begins with new folds.

    Args:
        domains: the tables by name, two at least, as the task reads them.
        shots: all numbers of shots that rounds may have. The few users have enough events for the largest.
        settings: how episodes are cut; `shots` replaces its own number.
        bases: name -> options.
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
        settings: EpisodeSettings | None,
        bases: Mapping[str, Mapping[str, Any]],
        *,
        cache: Path | None,
        jobs: int,
        on_progress: Progress | None,
    ) -> None:
        if len(domains) < 2:
            raise InputError(f"transfer needs at least two domains but got {', '.join(domains) or 'none'}")
        if not shots or min(shots) < 0:
            raise InputError(f"shots must name at least one number >= 0 but got {list(shots)}")
        self.domains = dict(domains)
        self.shots = tuple(sorted(set(shots)))
        self.settings = EpisodeSettings() if settings is None else settings
        self.bases = dict(bases)
        self._cache = cache
        self._jobs = jobs
        self._on_progress = on_progress
        self._folds: dict[int, dict[str, int]] = {}

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
        """Make one round.

        Args:
            target: its name. shots: one of `self.shots`. target_users: how many of its users are available.
            sources: names of the source domains; by default all the others.

        Raises:
            InputError: an unknown domain, another number of shots, or more target users than there are.
        """
        self._check_names(target, *(sources or ()))
        if shots not in self.shots:
            raise InputError(f"shots must be one of {', '.join(map(str, self.shots))} but got {shots}")
        names = [name for name in self.domains if name != target] if sources is None else list(sources)
        if not names or target in names:
            got = ", ".join(names) or "none"
            raise InputError(f'sources must name at least one domain and not the target "{target}" but got {got}')
        self._draw_few(target, number, target_users)
        return self._made(target, names, number, shots, target_users, regime)

    @abstractmethod
    def _made(
        self, target: str, sources: Sequence[str], number: int, shots: int, target_users: int, regime: Regime
    ) -> Round:
        """The round, whose arguments are checked."""

    def check(self, target: str, *, target_users: int, regime: Regime = "everything", number: int = 0) -> None:
        """Check that a round has enough users in each role, before any base is fitted.

        Raises:
            InputError: an unknown domain, more target users than there are, or no test or validation user.
        """
        self._check_names(target)
        roles = self._roles(number)
        most = self.settings.model_copy(update={"shots": self.shots[-1]})
        for name, domain in self.domains.items():
            if name == target:
                self._draw_few(name, number, target_users)
            needed: Role = "test" if name == target else "validation"
            able = eligible_users(domain, most)
            if regime == "labels" and len(able) < max(MIN_USERS, 2 * FOLDS):
                raise InputError(too_few(domain, most, len(able), max(MIN_USERS, 2 * FOLDS)))
            if not any(roles.get(user) == needed for user in able):
                raise InputError(
                    f'domain "{name}": of its {len(able)} users with {most.needed_ratings} ratings round {number} has '
                    f"none for {needed}; give the ratings of more users, or ask for fewer shots"
                )

    def _check_names(self, *names: str) -> None:
        for name in names:
            if name not in self.domains:
                raise InputError(f'unknown domain "{name}"; {suggest(name, list(self.domains))}')

    def _roles(self, number: int) -> dict[str, Role]:
        fold = number % FOLDS
        roles: dict[int, Role] = {fold: "test", (fold + 1) % FOLDS: "validation"}
        return {user: roles.get(own, "train") for user, own in self._folds_of(number // FOLDS).items()}

    def _folds_of(self, seed: int) -> dict[str, int]:
        if seed not in self._folds:
            least = self.settings.model_copy(update={"shots": self.shots[0]})
            self._folds[seed] = shared_folds(self.domains.values(), least, FOLDS, seed)
        return self._folds[seed]

    def _able_users(self, name: str, number: int) -> list[str]:
        return able_users(self.domains[name], self.settings, self._roles(number), self.shots[-1])

    def _draw_few(self, name: str, number: int, count: int) -> frozenset[str]:
        able = self._able_users(name, number)
        if not 2 <= count < len(able):
            raise InputError(
                f'domain "{name}": of its {len(able)} train users with '
                f"{self.shots[-1] + self.settings.min_query} ratings at least two, and fewer than all, can be target "
                f"users, but got {count}"
            )
        return draw_train_users(able, count, number)

    def _size(self, name: str, number: int, target_users: int) -> int:
        """The number of train users in a small world of a source: that of the target, at most half of its own."""
        return max(min(target_users, len(self._able_users(name, number)) // 2), 2)


def some_users(roles: Iterable[tuple[str, Role]], seed: int) -> frozenset[str]:
    """At most :data:`MAX_USERS` users of each role, a seeded draw; `roles`: the user and the role of each task."""
    found: dict[str, set[str]] = {}
    for user, role in roles:
        found.setdefault(role, set()).add(user)
    chosen: set[str] = set()
    for wanted, most in MAX_USERS.items():
        users = sorted(found.get(wanted, ()))
        order = np.random.default_rng([seed, 7]).permutation(len(users))
        chosen |= {users[place] for place in order[:most]}
    return frozenset(chosen)
