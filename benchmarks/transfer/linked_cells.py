"""Rounds with and without links between users, scored on the same ratings of the same test users."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metarec.episodes import EpisodeSettings
from metarec.ratings import Domain
from metarec.transfer import Round, TransferRounds, TransferSettings, predict_round
from metarec.transfer.rounds import Regime

__all__ = ["LinkedPlan", "measure", "ratings_elsewhere"]


@dataclass(frozen=True)
class LinkedPlan:
    """The measured targets, rounds, numbers of shots and models.

    Attributes:
        domains: each is the target in turn, the others its sources.
        bases: as :class:`TransferRounds` takes them.
    """

    domains: Mapping[str, Domain]
    rounds: Sequence[int]
    shots: Sequence[int]
    models: Sequence[str]
    target_users: int
    regime: Regime
    settings: EpisodeSettings
    fusion: TransferSettings
    work: Path | None
    bases: Mapping[str, Mapping[str, Any]] | None = None


def measure(plan: LinkedPlan, say: Callable[[str], None]) -> pd.DataFrame:
    """A row for each target, round, number of shots, model and test user.

    Further columns: `elsewhere`, the number of the user's earlier ratings in other domains; `ratings`, the number of
    predicted ratings; `unlinked` and `linked`, the sums of squared errors on the unit scale.
    """
    both = {
        link: TransferRounds(
            plan.domains, plan.shots, plan.settings, bases=plan.bases, link_users=link, cache=plan.work
        )
        for link in (False, True)
    }
    found = []
    for target in plan.domains:
        for number in plan.rounds:
            for shots in plan.shots:
                given = {
                    link: made.round(
                        target, shots=shots, target_users=plan.target_users, regime=plan.regime, number=number
                    )
                    for link, made in both.items()
                }
                counts = ratings_elsewhere(plan.domains, target, given[False])
                for model in plan.models:
                    errors = {link: _errors(model, one, plan.fusion, number) for link, one in given.items()}
                    found.append(_table(errors, given).assign(elsewhere=counts, model=model, target=target))
                    found[-1] = found[-1].assign(round=number, shots=shots)
                say(f"{target}, round {number}, {shots} shots: {len(counts)} test users")
    return pd.concat(found, ignore_index=True)


def ratings_elsewhere(domains: Mapping[str, Domain], target: str, given: Round) -> np.ndarray:
    """[T] the number of each test user's ratings in the other domains before the first query."""
    ratings = domains[target].ratings
    times = ratings.set_index(["user", "item"])["timestamp"] if domains[target].has_timestamps else None
    counts = np.zeros(len(given.test), dtype=int)
    for other in (domain for name, domain in domains.items() if name != target):
        by_user = dict(tuple(other.ratings.groupby("user")))
        for place, (user, items) in enumerate(zip(given.test.users, given.test.query_items, strict=True)):
            own = by_user.get(user)
            if own is None:
                continue
            if times is None or not other.has_timestamps:
                counts[place] += len(own)
                continue
            first = min(times[user, item] for item in items if item)
            counts[place] += int((own["timestamp"] < first).sum())
    return counts


def _errors(model: str, given: Round, fusion: TransferSettings, seed: int) -> np.ndarray:
    """[T] sums of squared errors on the unit scale."""
    query = given.plain_test.batch.query
    predictions = predict_round(model, given, fusion, seed).predictions
    squares = (predictions - query.targets.numpy()) ** 2
    return np.asarray(np.where(query.mask.numpy(), squares, 0.0).sum(1))


def _table(errors: Mapping[bool, np.ndarray], given: Mapping[bool, Round]) -> pd.DataFrame:
    one, other = (given[link].plain_test for link in (False, True))
    if not (np.array_equal(one.users, other.users) and np.array_equal(one.query_items, other.query_items)):
        raise AssertionError("linked and unlinked rounds must have the same ratings of the same users")
    ratings = one.batch.query.mask.sum(1).numpy()
    return pd.DataFrame({"user": one.users, "ratings": ratings, "unlinked": errors[False], "linked": errors[True]})
