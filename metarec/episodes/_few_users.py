"""Draws of users for domains that are cut down to a few train users: the few, and the others that are predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metarec.episodes._split import Role, deal_folds, eligible_users
from metarec.episodes.settings import EpisodeSettings
from metarec.errors import InputError
from metarec.ratings import Domain

__all__ = ["Fit", "SmallDraw", "able_users", "draw_train_users", "draw_worlds"]

PREDICTED = {"train": 50, "validation": 25}
"""The most other users of a world that are predicted: this many with enough ratings for every number of shots, and this
many without. All test users are predicted."""

PARTS = 5
"""The number of parts of a world's train users; each part is predicted by bases fitted on the others."""


class Fit(NamedTuple):
    """The users that bases are fitted on, and those that they predict."""

    users: frozenset[str]
    predicted: frozenset[str]


class SmallDraw(NamedTuple):
    """The users of the worlds of one domain.

    Attributes:
        worlds: the few users of each world, and the others that it predicts. parts: of the few users of the first
            world, each predicted by the others.
    """

    worlds: list[Fit]
    parts: list[Fit]


def able_users(domain: Domain, settings: EpisodeSettings, roles: Mapping[str, Role], shots: int) -> list[str]:
    """Train users with enough ratings for this number of shots, in the order of their ids."""
    wanted = settings.model_copy(update={"shots": shots})
    return [user for user in eligible_users(domain, wanted) if roles.get(user) == "train"]


def draw_train_users(able: Sequence[str], count: int, seed: int, world: int = 0) -> frozenset[str]:
    """The few train users of a world; those of a smaller count are among those of a larger one."""
    order = np.random.default_rng([seed, 4, world]).permutation(len(able))
    return frozenset(able[place] for place in order[:count])


def draw_worlds(
    domain: Domain,
    settings: EpisodeSettings,
    roles: Mapping[str, Role],
    *,
    count: int,
    shots: Sequence[int],
    worlds: int,
    seed: int,
) -> SmallDraw:
    """Draw `count` train users several times over, and the other users that are predicted from each draw.

    Args:
        roles: user -> role. shots: all numbers of shots; the few users have enough ratings for each.
        worlds: the number of draws. The first one predicts test users too, and does not depend on the others.

    Raises:
        InputError: `count` is below two, or the domain has too few train users.
    """
    least, most = min(shots), max(shots)
    able = able_users(domain, settings, roles, most)
    if not 2 <= count < len(able):
        raise InputError(
            f'domain "{domain.name}": count must be >= 2 and below its {len(able)} train users with '
            f"{most + settings.min_query} ratings but got {count}"
        )
    with_tasks = {
        what: frozenset(eligible_users(domain, settings.model_copy(update={"shots": k})))
        for what, k in (("all", most), ("some", least))
    }
    users = [draw_train_users(able, count, seed, world) for world in range(worlds)]
    fits = [Fit(own, _users_to_predict(with_tasks, roles, own, seed, world)) for world, own in enumerate(users)]
    return SmallDraw(fits, [Fit(users[0] - part, part) for part in _parts(users[0], seed)])


def _parts(few: frozenset[str], seed: int) -> Iterator[frozenset[str]]:
    """The few users in at most :data:`PARTS` parts."""
    parts = deal_folds(sorted(few), min(PARTS, len(few)), np.random.default_rng([seed, 6]))
    for part in sorted(set(parts.values())):
        yield frozenset(user for user, own in parts.items() if own == part)


def _users_to_predict(
    able: Mapping[str, frozenset[str]], roles: Mapping[str, Role], few: frozenset[str], seed: int, world: int
) -> frozenset[str]:
    """The users that a world predicts: first those with enough ratings for all numbers of shots."""
    rng = np.random.default_rng([seed, 5, world])
    chosen: list[str] = []
    for role, most in PREDICTED.items():
        for users in able.values():
            others = sorted(user for user in users - few - set(chosen) if roles.get(user) == role)
            chosen += [others[place] for place in rng.permutation(len(others))[:most]]
    return frozenset(chosen) | {user for user in able["some"] if world == 0 and roles.get(user) == "test"}
