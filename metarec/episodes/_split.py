"""The split of users into train, validation and test, and of ratings into support and query.

Nothing here depends on the value of a rating.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from metarec.episodes.settings import EpisodeSettings
from metarec.errors import InputError
from metarec.ratings import Domain

__all__ = [
    "MIN_USERS",
    "ROLES",
    "Cut",
    "Role",
    "Task",
    "UserRoles",
    "assign_roles",
    "cut_tasks",
    "deal_folds",
    "eligible_users",
    "fold_roles",
    "roles_of",
    "too_few",
    "validation_cuts",
]

Role = Literal["train", "validation", "test"]
ROLES: tuple[Role, ...] = ("train", "validation", "test")

MIN_USERS = 10
"""The fewest users of a domain: a train, a validation and a test set need a few users each."""


@dataclass(frozen=True)
class UserRoles:
    """The role of every user with an episode, the same in all domains.

    Attributes:
        roles: user -> role. Users with too few ratings for an episode have none; bases may learn from them.
        folds: train user -> fold; the bases that predict a fold's episodes were fitted without its users.
    """

    roles: Mapping[str, Role]
    folds: Mapping[str, int]
    num_folds: int

    def held_out(self, fold: int | None) -> set[str]:
        """Users whose ratings the bases must not see: validation and test users, and those of the fold."""
        outside = {user for user, role in self.roles.items() if role != "train"}
        return outside | {user for user, own in self.folds.items() if own == fold}


_NO_ITEMS, _NO_RATINGS = np.array([], dtype=object), np.array([], dtype=np.float64)


class Task(NamedTuple):
    """One user's episode as the bases see it, without the ratings of the query items.

    The background is the user's earlier ratings in other domains, converted to the units of this one; it is part of
    every history and never predicted.
    """

    user: str
    support_items: np.ndarray
    support_ratings: np.ndarray
    query_items: np.ndarray
    background_items: np.ndarray = _NO_ITEMS
    background_ratings: np.ndarray = _NO_RATINGS


class Cut(NamedTuple):
    """An episode as it was cut from the table.

    Attributes:
        task: the part that bases see.
        ratings: [n] of the query items, in the domain's own units.
        support_times: [k] and query_times: [n] the times of the ratings; None without timestamps.
        draw: 0 for the user's first episode; 1 and above for more episodes of a train user.
    """

    task: Task
    ratings: np.ndarray
    support_times: np.ndarray | None
    query_times: np.ndarray | None
    draw: int


def assign_roles(domains: Mapping[str, Domain], target: str, settings: EpisodeSettings, seed: int) -> UserRoles:
    """Split the users of all domains, so that a test user of one domain is a train user of none.

    The target's users are split first, so that its shares are exact; the other domains' users without a role follow.
    The split depends on user ids, on their numbers of ratings, and on the seed.

    Raises:
        InputError: a domain with too few users who have enough ratings.
    """
    rng = np.random.default_rng([seed, 0])
    roles: dict[str, Role] = {}
    for name in [target, *sorted(set(domains) - {target})]:
        eligible = eligible_users(domains[name], settings)
        if len(eligible) < MIN_USERS:
            raise InputError(too_few(domains[name], settings, len(eligible)))
        free = [user for user in eligible if user not in roles]
        num_test = max(1, round(settings.test_fraction * len(free)))
        num_validation = max(1, round(settings.validation_fraction * len(free)))
        for position, index in enumerate(rng.permutation(len(free))):
            held_out: Role = "test" if position < num_test else "validation"
            roles[free[index]] = held_out if position < num_test + num_validation else "train"
    train = sorted(user for user, role in roles.items() if role == "train")
    num_folds = min(settings.folds, len(train))
    return UserRoles(roles, deal_folds(train, num_folds, rng), num_folds)


def fold_roles(domain: Domain, settings: EpisodeSettings, *, fold: int, folds: int, seed: int) -> UserRoles:
    """The roles of a cross-validation: the users of `fold` test, those of the next one validate, all others train.

    Over all folds every user with enough ratings is a test user once.

    Args:
        settings: how episodes are cut; `folds` of it are those over the train users.
        folds: of all users, >= 3. seed: of both divisions.

    Raises:
        InputError: fewer than three folds, or too few users with enough ratings.
    """
    if folds < 3 or not 0 <= fold < folds:
        raise InputError(f"fold must be in 0..folds - 1, and folds >= 3, but got fold {fold} of {folds}")
    users = eligible_users(domain, settings)
    if len(users) < max(MIN_USERS, 2 * folds):
        raise InputError(too_few(domain, settings, len(users), max(MIN_USERS, 2 * folds)))
    dealt = deal_folds(users, folds, np.random.default_rng([seed, 2]))
    held_out: dict[int, Role] = {fold: "test", (fold + 1) % folds: "validation"}
    roles: dict[str, Role] = {user: held_out.get(own, "train") for user, own in dealt.items()}
    train = [user for user, role in roles.items() if role == "train"]
    num_folds = min(settings.folds, len(train))
    return UserRoles(roles, deal_folds(train, num_folds, np.random.default_rng([seed, 4, fold])), num_folds)


def deal_folds(users: Sequence[str], num_folds: int, rng: np.random.Generator) -> dict[str, int]:
    """user -> fold: folds of equal size, in a random order."""
    return {users[index]: position % num_folds for position, index in enumerate(rng.permutation(len(users)))}


def roles_of(cuts: Sequence[Cut], roles: Mapping[str, Role]) -> list[Role]:
    """The role of each task, which is that of its user."""
    return [roles[cut.task.user] for cut in cuts]


def eligible_users(domain: Domain, settings: EpisodeSettings) -> list[str]:
    """Users with enough ratings for an episode, in the order of their ids."""
    counts = domain.ratings["user"].value_counts()
    return sorted(counts.index[counts >= settings.needed_ratings])


def cut_tasks(domain: Domain, roles: UserRoles, settings: EpisodeSettings, seed: int) -> list[Cut]:
    """The episodes of every user with a role here, in the order of the users' ids.

    Support is the user's earliest ratings by timestamp, ties and missing timestamps broken by a seeded draw that
    depends on ids only, not on the rows' order or the ratings. Train users make `settings.draws` episodes: the further
    ones begin at a random place in the user's history, or are another seeded draw where there are no timestamps.
    """
    ratings = domain.ratings
    canonical = ratings.sort_values(["user", "item"], kind="stable").index.to_numpy()
    users = ratings["user"].to_numpy()
    codes, names = ratings["user"].factorize(sort=True)
    counts = np.bincount(codes, minlength=len(names))
    starts = np.concatenate([[0], np.cumsum(counts)])
    value = "weight" if domain.feedback == "implicit" else "rating"
    items, values = ratings["item"].to_numpy(dtype=object), ratings[value].to_numpy(dtype=np.float64)
    cuts = []
    for draw in range(settings.draws):
        rng = np.random.default_rng([seed, 1, draw] if draw else [seed, 1])
        key = np.empty(len(ratings))
        key[canonical] = rng.random(len(ratings))
        times = ratings["timestamp"].to_numpy() if domain.has_timestamps else np.zeros(len(ratings))
        order = np.lexsort((key, times, codes))
        spare = counts - settings.needed_ratings
        # From 1, because 0 is the first episode.
        skipped = 1 + np.floor(rng.random(len(names)) * spare).astype(int)
        if draw == 0 or not domain.has_timestamps:
            skipped[:] = 0
        for code, (start, end) in enumerate(pairwise(starts)):
            user = users[order[start]]
            role = roles.roles.get(user)
            if role is None or skipped[code] > spare[code] or spare[code] < 0 or (draw and role != "train"):
                continue
            rows = order[start + skipped[code] : end]
            support, query = rows[: settings.shots], rows[settings.shots :][: settings.max_query]
            task = Task(user, items[support], values[support], items[query])
            dated = domain.has_timestamps
            cuts.append(
                Cut(task, values[query], times[support] if dated else None, times[query] if dated else None, draw)
            )
    return sorted(cuts, key=lambda cut: (cut.task.user, cut.draw))


def validation_cuts(domain: Domain, roles: UserRoles, settings: EpisodeSettings, seed: int) -> list[Cut]:
    """The episodes of the validation users alone."""
    return [cut for cut in cut_tasks(domain, roles, settings, seed) if roles.roles[cut.task.user] == "validation"]


def too_few(domain: Domain, settings: EpisodeSettings, found: int, needed: int = MIN_USERS) -> str:
    """The error message for a domain with too few users."""
    most = int(domain.ratings["user"].value_counts().max())
    rows = "items" if domain.feedback == "implicit" else "ratings"
    return (
        f'domain "{domain.name}": {found} of {domain.num_users} users have the {settings.needed_ratings} {rows} that '
        f"an episode needs ({settings.shots} shots + {settings.min_query} queries; the most active has {most}), but at "
        f"least {needed} such users are needed; give more {rows}, or lower episodes.shots or episodes.min_query"
    )
