"""From rating tables to the episodes of users with known histories: the ratings are split, and not the users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from metarec.bases import BASES
from metarec.episodes._assemble import DomainEpisodes, PredictedTasks
from metarec.episodes._cache import cache_key, load_arrays, save_arrays
from metarec.episodes._predictions import QueryScores
from metarec.episodes._split import MIN_USERS, Cut, Role
from metarec.episodes.builders._build import Group, predicted_arrays, scores_of
from metarec.episodes.builders._new_users import History, task_of
from metarec.episodes.settings import EpisodeSettings, Progress
from metarec.errors import InputError, check_name
from metarec.files import content_key
from metarec.ratings import Domain
from metarec.workers import worker_map

__all__ = ["HeldOut", "RatingRoles", "assign_ratings", "build_warm_episodes", "warm_validation_predictions"]

HeldOut = Literal["random", "latest"]
"""Which ratings are held out: a random draw of all, or the latest ones of each user."""

TEST, VALIDATION = -1, -2


@dataclass(frozen=True)
class RatingRoles:
    """The part of every rating of a domain.

    Attributes:
        domain: the ratings. parts: [R] the fold of each train rating, -2 for validation, -1 for test.
        num_folds: of the train ratings.
    """

    domain: Domain
    parts: np.ndarray
    num_folds: int

    def count(self, role: Role) -> int:
        """How many ratings have this role."""
        return int(np.count_nonzero(self._has(role)))

    @cached_property
    def digest(self) -> str:
        """A hash of the ratings' content and parts, independent of the order of the rows."""
        ratings = self.domain.ratings
        order = ratings.sort_values(["user", "item"], kind="stable").index
        return content_key({"domain": self.domain.fingerprint(), "parts": self.parts[order].tolist()})

    @property
    def learned_from(self) -> Domain:
        """The domain without its test ratings."""
        return self._where(self.parts != TEST)

    def groups(self) -> Iterator[tuple[Role, Domain, np.ndarray]]:
        """A role, the ratings that bases are fitted on, and [n] the rows that they predict.

        Bases that predict a fold of the train ratings are fitted on the other folds, those for validation ratings on
        all train ratings, and those for test ratings on all others.
        """
        for fold in range(self.num_folds):
            yield "train", self._where((self.parts >= 0) & (self.parts != fold)), np.flatnonzero(self.parts == fold)
        yield "validation", self._where(self.parts >= 0), np.flatnonzero(self.parts == VALIDATION)
        yield "test", self.learned_from, np.flatnonzero(self.parts == TEST)

    def _has(self, role: Role) -> np.ndarray:
        marks = {"test": self.parts == TEST, "validation": self.parts == VALIDATION, "train": self.parts >= 0}
        return np.asarray(marks[role])

    def _where(self, rows: np.ndarray) -> Domain:
        domain = self.domain
        kept = domain.ratings[rows].reset_index(drop=True)
        return Domain(domain.name, kept, domain.scale, items=domain.items, users=domain.users)


def assign_ratings(
    domain: Domain, settings: EpisodeSettings, held_out: HeldOut, seed: int, *, test: np.ndarray | None = None
) -> RatingRoles:
    """Split the ratings of a domain into folds of train ratings, validation and test ratings.

    The shares are those of `settings`; that of validation is one of the ratings which are left. The split depends on
    ids, times and the seed, and not on the order of the rows or the ratings.

    Args:
        domain: with mixed feedback, the rated rows are split.
        test: [R] whether each rating is one of the test, for a split that was published; by default they are drawn.

    Raises:
        InputError: too few users or ratings, or `held_out` is "latest" and there are no times; or `test` is not a
            boolean for each rating, with some of both, or comes with the latest ratings.
    """
    domain = domain.rated()
    ratings = domain.ratings
    if test is not None:
        _check_test(test, held_out, len(ratings))
    if held_out == "latest" and not domain.has_timestamps:
        raise InputError(f'domain "{domain.name}": held_out: latest needs times, but the table has none')
    if domain.num_users < MIN_USERS or len(ratings) < 10 * settings.folds:
        raise InputError(
            f'domain "{domain.name}": the protocol warm needs {MIN_USERS} users and {10 * settings.folds} ratings '
            f"(ten for each fold) but there are {domain.num_users} and {len(ratings)}; give more ratings"
        )
    rng = np.random.default_rng([seed, 6])
    canonical = ratings.sort_values(["user", "item"], kind="stable").index.to_numpy()
    drawn = np.empty(len(ratings))
    drawn[canonical] = rng.random(len(ratings))
    parts = np.full(len(ratings), 0)
    if held_out == "random":
        # Published test ratings come first.
        order = np.argsort(drawn if test is None else np.where(test, -1.0, drawn), kind="stable")
        num_test = max(round(settings.test_fraction * len(order)), 1) if test is None else int(test.sum())
        num_validation = max(round(settings.validation_fraction * (len(order) - num_test)), 1)
        parts[order[:num_test]], parts[order[num_test : num_test + num_validation]] = TEST, VALIDATION
    else:
        codes, _ = ratings["user"].factorize(sort=True)
        order = np.lexsort((drawn, ratings["timestamp"].to_numpy(), codes))
        counts = np.bincount(codes)
        # The place of each rating from the end of its user's.
        behind = np.empty(len(order), dtype=int)
        behind[order] = np.repeat(np.cumsum(counts), counts) - 1 - np.arange(len(order))
        num_test = np.round(settings.test_fraction * counts).astype(int)
        num_validation = np.round(settings.validation_fraction * (counts - num_test)).astype(int)
        parts[behind < (num_test + num_validation)[codes]] = VALIDATION
        parts[behind < num_test[codes]] = TEST
    train = np.flatnonzero(parts == 0)
    parts[train[np.argsort(drawn[train], kind="stable")]] = np.arange(len(train)) % settings.folds
    return RatingRoles(domain, parts, settings.folds)


def _check_test(test: np.ndarray, held_out: HeldOut, count: int) -> None:
    if held_out != "random" or test.dtype != bool or test.shape != (count,) or not 0 < test.sum() < count:
        raise InputError(
            f"test must be {count} booleans, some true and some false, with held_out: random but got "
            f"{test.dtype}{list(test.shape)} with {int(test.sum())} true and held_out: {held_out}"
        )


def build_warm_episodes(
    splits: Mapping[str, RatingRoles],
    settings: EpisodeSettings,
    bases: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    cache: Path | None = None,
    jobs: int = 1,
    on_progress: Progress | None = None,
) -> dict[str, DomainEpisodes]:
    """Episodes of every domain in which users have histories, by the protocol of docs/honest.md.

    An episode predicts some of a user's held-out ratings from the user's other ratings. The latest `settings.shots` of
    these are its support, and the bases get all of them as the history. A user with more than `settings.max_query`
    held-out ratings makes several episodes.

    Args:
        splits: name of a domain -> its ratings and their parts.
        settings, bases, seed, cache, jobs, on_progress: as for :func:`build_episodes`.

    Raises:
        InputError: a name that breaks the rule of names, or a base raised an error.
    """
    check_name("the name of a domain", *splits)
    found = {}
    with worker_map(jobs) as run:
        for name, roles in splits.items():
            cuts, owners, groups = _cut(roles, settings)
            facts = {
                "protocol": "warm",
                "split": roles.digest,
                "settings": settings.model_dump(),
                "bases": {base: dict(options) for base, options in bases.items()},
                "order": list(bases),
                "plug-ins": BASES.code_of(bases),
                "seed": seed,
            }
            path = cache / f"{name}-{cache_key(facts)}.npz" if cache else None
            arrays = load_arrays(path) if path else None
            if arrays is None:
                arrays = predicted_arrays(
                    cuts, groups, settings, bases, seed=seed, run=run, on_progress=on_progress, are_warm=True
                )
                if path:
                    save_arrays(path, arrays)
            found[name] = PredictedTasks(roles.domain, settings, tuple(bases), owners, cuts, arrays).episodes()
    return found


def warm_validation_predictions(
    roles: RatingRoles, settings: EpisodeSettings, name: str, options: Mapping[str, Any], *, seed: int
) -> QueryScores:
    """Fit one base on the train ratings, and predict the validation ratings, as in episodes.

    Raises:
        InputError: the base raised an error.
    """
    cuts, _, groups = _cut(roles, settings, only="validation")
    arrays = predicted_arrays(cuts, groups, settings, {name: options}, seed=seed, run=map, are_warm=True)
    return scores_of(roles.domain, settings, name, cuts, arrays)


def _cut(
    roles: RatingRoles, settings: EpisodeSettings, only: Role | None = None
) -> tuple[list[Cut], list[Role], list[Group]]:
    """The episodes, the role of each, and what bases are fitted on for which of them."""
    cuts: list[Cut] = []
    owners: list[Role] = []
    groups: list[Group] = []
    for role, fit_on, rows in roles.groups():
        if only in (None, role):
            own = list(_cuts_of(roles.domain, rows, fit_on, settings))
            groups.append((fit_on, list(range(len(cuts), len(cuts) + len(own)))))
            cuts += own
            owners += [role] * len(own)
    return cuts, owners, groups


def _cuts_of(domain: Domain, rows: np.ndarray, fit_on: Domain, settings: EpisodeSettings) -> Iterator[Cut]:
    """The episodes that predict some rows of a domain, user by user."""
    histories = dict(iter(fit_on.ratings.groupby("user")))
    nothing = fit_on.ratings.iloc[:0]
    asked = domain.ratings.iloc[rows].sort_values(["user", "item"], kind="stable")
    for user, own in asked.groupby("user"):
        history = History.of(histories.get(user, nothing).sort_values("item", kind="stable"))
        items, ratings = own["item"].to_numpy(dtype=object), own["rating"].to_numpy(dtype=np.float64)
        times = own["timestamp"].to_numpy() if domain.has_timestamps else None
        for first in range(0, len(own), settings.max_query):
            part = slice(first, first + settings.max_query)
            support, task = task_of(str(user), history, settings.shots, items[part])
            yield Cut(task, ratings[part], support.times, None if times is None else times[part], 0)
