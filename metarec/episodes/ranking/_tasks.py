"""The tasks of ranking: what a user has done so far, and what is relevant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from metarec.episodes._split import Cut
from metarec.errors import InputError
from metarec.ratings import Domain

__all__ = ["RankingTask", "UserHistory", "check_repeats", "ranking_tasks"]


class UserHistory(NamedTuple):
    """The items of a user so far, in the order of the first time.

    Attributes:
        items: [k] different ids, or codes. weights: [k] the sums of the weights of their events. counts: [k] the
            number of their events.
    """

    items: np.ndarray
    weights: np.ndarray
    counts: np.ndarray

    def without(self, place: int) -> Self:
        """The history without the item at this place."""
        return type(self)(*(np.delete(values, place) for values in self))


class RankingTask(NamedTuple):
    """A user with the history that a list is made from, and [n] the ids of the items that are relevant."""

    user: str
    history: UserHistory
    relevant: np.ndarray


def check_repeats(domain: Domain) -> None:
    """Raises :class:`InputError` for a domain in which no event repeats at a later time."""
    if domain.repeats is None:
        lacks = "no user has events with an item at several times" if domain.has_timestamps else "it has no times"
        raise InputError(
            f'domain "{domain.name}": ranking.repeats: include needs repeated events with times, but {lacks}; '
            "set ranking.repeats=exclude"
        )


def ranking_tasks(domain: Domain, cuts: Sequence[Cut], *, repeats: bool) -> list[RankingTask]:
    """The tasks of users whose items were cut into support and query by the first time of each item.

    The history has the events up to the time of the last support item. Later events of a support item are in no weight
    and no count.

    Args:
        cuts: from `domain`. repeats: whether a support item with a later event is relevant too.
    """
    several = _by_user(domain)
    tasks = []
    for cut in cuts:
        (user, items, weights, later, *_), times = cut.task, cut.support_times
        counts = np.ones(len(items), dtype=np.int64)
        if user in several and times is not None and len(items):
            own = several[user]
            places = pd.Index(items).get_indexer(own["item"])
            known, before = places >= 0, own["timestamp"].to_numpy() <= times[-1]
            so_far, after = places[known & before], places[known & ~before]
            seen = np.bincount(so_far, minlength=len(items))
            sums = np.bincount(so_far, own["weight"].to_numpy()[known & before], len(items))
            # An item without repeats has one event, with the weight of the table.
            weights, counts = np.where(seen > 0, sums, weights), np.maximum(seen, 1)
            if repeats:
                later = np.concatenate([later, items[np.unique(after)]])
        tasks.append(RankingTask(user, UserHistory(items, weights, counts), later))
    return tasks


def _by_user(domain: Domain) -> Mapping[str, pd.DataFrame]:
    """User -> the user's rows of `domain.repeats`, in the order of time."""
    if domain.repeats is None:
        return {}
    # The sum of weights is the same for every order of the rows.
    return dict(iter(domain.repeats.sort_values(["timestamp", "item"]).groupby("user", sort=False)))
