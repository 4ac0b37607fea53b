"""Recommenders of known users: what each predicts for rows whose rating it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from benchmarks.warm.data import Asked, Known, Table
from metarec.bases import HistoryQuery, make_base, predict_queries
from metarec.bases.bayesian import SideInformation, gibbs_samples, implicit_features, side_information
from metarec.ratings import Domain, RatingScale

__all__ = ["WARM_BASES", "Predicted", "WarmBase", "rows_of_users"]

MINUTES = {"day": 1440.0, "ten minutes": 10.0, "minute": 1.0, "second": 1 / 60}


class Predicted(NamedTuple):
    """[n] predictions in stars, NaN where it has none; [n] the uncertainty, 0 where it has none."""

    ratings: np.ndarray
    spreads: np.ndarray


RANK = 256
"""The most directions of side information."""

Predict = Callable[..., Predicted]


@dataclass(frozen=True)
class WarmBase:
    """A recommender with its settings; what it looks at besides ratings is in its description."""

    name: str
    about: str
    predict_with: Predict
    settings: Mapping[str, Any] = field(default_factory=dict)
    timed: bool = False

    def predict(self, table: Table, known: Known, asked: Asked) -> Predicted:
        """Fit on the known rows, predict the others. Of `table` only what describes users and items is used."""
        return self.predict_with(table, known, asked, **self.settings)


def from_metarec(table: Table, known: Known, asked: Asked, *, base: str, **options: Any) -> Predicted:
    """A base recommender of metarec, which gets each user's known ratings as the history."""
    frame = pd.DataFrame({"user": known.users.astype(str), "item": known.items.astype(str), "rating": known.ratings})
    scale = RatingScale(float(known.ratings.min()), float(known.ratings.max()))
    fitted = make_base(base, **options).fit(Domain("known users", frame, scale))
    histories, wanted = rows_of_users(known.users, table.shape[0]), rows_of_users(asked.users, table.shape[0])
    items, asked_items = known.items.astype(str).astype(object), asked.items.astype(str).astype(object)
    users = [user for user in range(table.shape[0]) if len(wanted[user])]
    queries = [
        HistoryQuery(items[histories[user]], known.ratings[histories[user]], asked_items[wanted[user]])
        for user in users
    ]
    ratings = np.full(len(asked.users), np.nan)
    for user, answer in zip(users, predict_queries(fitted, queries), strict=True):
        ratings[wanted[user]] = answer
    return Predicted(ratings, np.zeros(len(ratings)))


def bayesian_mf(
    table: Table,
    known: Known,
    asked: Asked,
    *,
    factors: int,
    rounds: int,
    burn_in: int,
    seed: int,
    described: bool = False,
    periods: tuple[str, ...] = (),
    decades: bool = False,
) -> Predicted:
    """Bayesian matrix factorisation: the mean of many draws of a Gibbs sampler.

    Args:
        described: vectors follow from who rated what, in the known rows, and from features of users and items.
        periods: a user has an offset of its own in each such period of time in which it has known ratings.
        decades: a user has an offset for each release period.
    """
    mean, spread = known.ratings.mean(), max(float(known.ratings.std()), 1e-9)
    grouped = [_user_groups(known, asked, partial(_period, minutes=MINUTES[period])) for period in periods]
    if decades:
        grouped.append(_user_groups(known, asked, lambda rows: table.decades[rows.items]))
    total, squares = np.zeros(len(asked.users)), np.zeros(len(asked.users))
    samples = gibbs_samples(
        known.users,
        known.items,
        (known.ratings - mean) / spread,
        shape=table.shape,
        factors=factors,
        rounds=rounds,
        seed=seed,
        user_features=_described(known.users, known.items, table.user_features, table.shape) if described else (),
        item_features=_described(known.items, known.users, table.item_features, table.shape[::-1]) if described else (),
        groups=[of_known for of_known, _ in grouped],
    )
    for number, sample in enumerate(samples):
        if number >= burn_in:
            drawn = sample.predict(asked.users, asked.items, [of_asked for _, of_asked in grouped])
            total += drawn
            squares += drawn**2
    count = rounds - burn_in
    average = total / count
    return Predicted(mean + spread * average, spread * np.sqrt(np.maximum(squares / count - average**2, 0.0)))


def _described(
    own: np.ndarray, other: np.ndarray, features: np.ndarray, shape: tuple[int, int]
) -> list[SideInformation]:
    counts = np.log1p(np.bincount(own, minlength=shape[0])) / 3.0
    described = sparse.csr_array(np.column_stack([features, counts]))
    return [side_information(one, RANK, seed=0) for one in (implicit_features(own, other, shape), described)]


def _user_groups(
    known: Known, asked: Asked, of_row: Callable[[Known | Asked], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of (user, value) among the known rows, and those of the rows asked; one more where it is not known."""
    pairs = pd.MultiIndex.from_arrays([known.users, of_row(known)])
    codes, levels = pairs.factorize()
    found = levels.get_indexer(pd.MultiIndex.from_arrays([asked.users, of_row(asked)]))
    return codes, np.where(found >= 0, found, len(levels))


def _period(rows: Known | Asked, minutes: float) -> np.ndarray:
    return np.floor(np.round(rows.times * 86400.0) / (60.0 * minutes) + 1e-9).astype(np.int64)


def rows_of_users(users: np.ndarray, count: int) -> list[np.ndarray]:
    """For each of `count` users the rows that are its own."""
    order = np.argsort(users, kind="stable")
    return np.split(order, np.searchsorted(users[order], np.arange(1, count)))


WARM_BASES: tuple[WarmBase, ...] = (
    WarmBase("bias", "LensKit", from_metarec, {"base": "bias"}),
    WarmBase("item-knn", "LensKit, 40 neighbours", from_metarec, {"base": "item-knn"}),
    WarmBase("user-knn", "LensKit, 40 neighbours", from_metarec, {"base": "user-knn"}),
    WarmBase("biased-mf", "LensKit, ALS", from_metarec, {"base": "biased-mf"}),
    WarmBase("bayesian-mf", "ratings alone", bayesian_mf, {"factors": 10, "rounds": 100, "burn_in": 30, "seed": 1}),
    WarmBase(
        "bayesian-mf-side",
        "and who rated what, genres, years, demographics",
        bayesian_mf,
        {"factors": 16, "rounds": 120, "burn_in": 30, "seed": 2, "described": True},
    ),
    WarmBase(
        "bayesian-mf-time",
        "and the user's offsets per day, ten minutes, second; per release period",
        bayesian_mf,
        {
            "factors": 16,
            "rounds": 160,
            "burn_in": 40,
            "seed": 3,
            "described": True,
            "periods": ("day", "ten minutes", "second"),
            "decades": True,
        },
        timed=True,
    ),
    WarmBase(
        "bayesian-mf-time-8",
        "the same with 8 factors and offsets per minute",
        bayesian_mf,
        {
            "factors": 8,
            "rounds": 160,
            "burn_in": 40,
            "seed": 4,
            "described": True,
            "periods": ("day", "ten minutes", "minute", "second"),
        },
        timed=True,
    ),
)
