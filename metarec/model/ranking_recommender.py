"""The fused recommender of ranking: lists from a user's events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from metarec.episodes.ranking import RankingTaskMaker, UserHistory
from metarec.errors import InputError, shown
from metarec.model._kept import CHUNK, KeptRecommender, history_table
from metarec.ratings import ids_of, seconds_of
from metarec.threads import one_thread

__all__ = ["NO_EVENTS", "Events", "RankingRecommender", "RankingUserModel", "Recommended"]


class Events(NamedTuple):
    """A user's events so far, in the order of time.

    Attributes:
        items: [k] item ids, each once. weights: [k] the sum of the weights of an item's events, > 0. counts: [k] the
            number of its events.
    """

    items: np.ndarray
    weights: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, table: pd.DataFrame) -> Self:
        """From the columns ``item`` and, where there are such, ``weight`` (1 by default) and ``timestamp``.

        Events of one item are added up, and the first one has the item's time, as in a table of events that a study
        reads. Events of an item at the same time count as one. Without times, the rows count as in the order of time.

        Raises:
            InputError: no column ``item``, or a column ``rating``; an id or a time that breaks the rule of
                :func:`metarec.ratings.ids_of` or :func:`metarec.ratings.seconds_of`; a weight that is not a finite
                number > 0.
        """
        if "item" not in table.columns:
            raise InputError('a history of events needs the column item, but "item" is missing')
        if "rating" in table.columns:
            raise InputError(
                "a history of events has no column rating, because every row counts as an event; keep the rows that "
                "the study counts as events, and leave out the column"
            )
        items, weights = ids_of(table["item"]), _numbers(table, "weight")
        times = seconds_of(table["timestamp"], "timestamp") if "timestamp" in table.columns else None
        return cls.added_up(items, np.ones(len(items)) if weights is None else weights, times)

    @classmethod
    def added_up(cls, items: np.ndarray, weights: np.ndarray, times: np.ndarray | None = None) -> Self:
        """From single events, which may repeat an item; rules and errors are those of :meth:`of`."""
        for item in items:
            if not isinstance(item, str):
                raise InputError(f"item ids must be strings but got {shown(repr(item))}; convert them with str")
        is_wrong = ~(np.isfinite(weights) & (weights > 0))
        if is_wrong.any():
            raise InputError(f"every weight of a history must be finite and > 0 but got {weights[is_wrong][0]:g}")
        if times is not None:
            if not np.isfinite(times).all():
                raise InputError(
                    "every time of a history must be finite; leave out the column timestamp if one is unknown"
                )
            order = np.argsort(times, kind="stable")
            items, weights, times = items[order], weights[order], times[order]
        codes, names = pd.factorize(items)
        several = codes if times is None else codes[~pd.DataFrame({"item": codes, "time": times}).duplicated()]
        return cls(
            np.asarray(names, dtype=object),
            np.bincount(codes, weights, len(names)),
            np.bincount(several, minlength=len(names)),
        )

    def latest(self, most: int) -> Self:
        """The latest `most` items."""
        return type(self)(*(values[-most:] for values in self))


NO_EVENTS = Events(np.array([], dtype=object), np.zeros(0), np.zeros(0, dtype=np.int64))
"""The history of a user without events."""


class Recommended(NamedTuple):
    """A list, the best first: [n] item ids, and [n] scores, which have a meaning within this list only."""

    items: np.ndarray
    scores: np.ndarray

    def first(self, n: int | None, excluded: Sequence[str] = ()) -> Recommended:
        """The first `n`, or all with None, that are not excluded; fewer if there are fewer."""
        kept = np.flatnonzero(~pd.Index(self.items).isin(excluded))[:n] if excluded else slice(n)
        return Recommended(self.items[kept], self.scores[kept])

    def table(self) -> pd.DataFrame:
        """The columns ``item`` and ``score``."""
        return pd.DataFrame({"item": self.items, "score": self.scores})


class RankingRecommender(KeptRecommender[RankingTaskMaker, Events]):
    """A recommender of lists: ranking bases and their fusion, exactly as a study has scored them.

    The bases are fitted on the study's train users alone, so that the study's test scores hold for this model. The
    candidates of a user are what any base proposes, as in the study. Items of the history are recommended only by a
    model of a study with `repeats: include`. Users of the study are served like new users, from their events.

    Args:
        maker: fitted bases, which propose a user's candidates. fusion: orders them.
        domain: the name of the domain.
        ratings: ``user``, ``item``, ``weight`` and optionally ``timestamp`` of the users with kept events. Several
            events of an item have a row each where repeats are included.
        fitted_on: the users of `ratings` on which the bases were fitted.
        max_history: bases and fusion see so many of the latest items of a longer history. The time grows with their
            number, and the study has scored short histories.
        titles: item -> its title, for lists that people read; empty where items have none.
    """

    @property
    def items(self) -> np.ndarray:
        """[I] the ids of the catalogue, sorted."""
        return self.maker.catalogue.index.to_numpy()

    def _history(self, rows: pd.DataFrame) -> Events:
        return Events.of(rows)

    def adapt(
        self, history: pd.DataFrame | Mapping[str, float] | Iterable[str | tuple[str, float]] | Events
    ) -> RankingUserModel:
        """Adapt to one user, new or not.

        Args:
            history: the user's events: the column ``item``, and optionally ``weight`` and ``timestamp`` in seconds. It
                may be empty. Or a list of items, or item -> weight, or pairs of them. Items outside of the catalogue
                tell nothing.

        Raises:
            InputError: see :meth:`Events.of`.
        """
        if not isinstance(history, Events):
            history = Events.of(history_table(history, "weight", alone=True))
        return RankingUserModel(self, history)

    def user(self, user: str) -> RankingUserModel:
        """Adapt to a user from the kept events.

        Raises:
            InputError: the user has no kept events.
        """
        return self.adapt(self.history_of(user))

    def recommend(
        self, n: int, history: pd.DataFrame | Mapping[str, float] | Iterable[str | tuple[str, float]] | Events
    ) -> pd.DataFrame:
        """The best `n` new items of one user: ``adapt(history).recommend(n)``."""
        return self.adapt(history).recommend(n)

    def lists(self, histories: Sequence[Events], n: int | None = None) -> list[Recommended]:
        """The best `n` new items of each user, by default all candidates; fewer if there are fewer candidates."""
        found = []
        with one_thread():
            for first in range(0, len(histories), CHUNK):
                found += [one.first(n) for one in self._ordered(histories[first : first + CHUNK])]
        return found

    def _ordered(self, histories: Sequence[Events]) -> list[Recommended]:
        latest = [history.latest(self.max_history) for history in histories]
        episodes = self.maker.users([UserHistory(*history) for history in latest])
        scores, mask = self.fusion.predict(episodes), episodes.batch.query.mask.numpy()
        if not np.isfinite(scores[mask]).all():
            raise InputError("the model has no finite score; its numbers are too large, so it is damaged")
        # Of equal scores the earlier column is first, as in the metrics.
        order = np.argsort(-np.where(mask, scores, -np.inf), axis=1, kind="stable")
        lists = []
        for row, history in enumerate(histories):
            best = order[row, : mask[row].sum()]
            whole = Recommended(episodes.query_items[row, best], scores[row, best])
            # Earlier items than those that the bases have seen.
            earlier = [] if self.maker.settings.repeats == "include" else history.items[: -self.max_history].tolist()
            lists.append(whole.first(None, earlier))
        return lists


class RankingUserModel:
    """The recommender, adapted to one user. Made by :meth:`RankingRecommender.adapt`."""

    def __init__(self, recommender: RankingRecommender, history: Events) -> None:
        (self._list,) = recommender.lists([history])
        self._recommender, self._events = recommender, len(history.items)

    def __repr__(self) -> str:
        return f"RankingUserModel(domain={self._recommender.domain!r}, items={self._events})"

    def recommend(self, n: int = 10, *, exclude: Iterable[str] = ()) -> pd.DataFrame:
        """The best `n` new items, the best first.

        Args:
            exclude: further items that are not recommended, such as those that are sold out.

        Returns:
            Columns ``item``, ``title`` where items have titles, and ``score``; fewer rows if there are fewer
            candidates. A score has a meaning within the
            lists of this user only.

        Raises:
            InputError: n is below 1.
        """
        if n < 1:
            raise InputError(f"n must be at least 1 but got {n}")
        return self._recommender.with_titles(self._list.first(n, list(exclude)).table())


def _numbers(table: pd.DataFrame, name: str) -> np.ndarray | None:
    """[n] a column of numbers; None if there is none."""
    if name not in table.columns:
        return None
    try:
        return table[name].to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"the column {name} of a history must be numbers but has {table[name].dtype}") from None
