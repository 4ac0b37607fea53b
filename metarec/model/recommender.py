"""The fused recommender: predictions and recommendations from a user's history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from metarec.episodes import History, NewUsers, TaskMaker
from metarec.errors import InputError
from metarec.model._kept import CHUNK, KeptRecommender, history_table
from metarec.model.fusion import AdaptedFusion
from metarec.threads import one_thread

__all__ = ["NO_HISTORY", "FusedRecommender", "UserModel"]

NO_HISTORY = History(np.array([], dtype=object), np.zeros(0))
"""The history of a user without ratings."""


class FusedRecommender(KeptRecommender[TaskMaker, History]):
    """A recommender of ratings: base recommenders and their fusion, exactly as a study has scored them.

    The bases are fitted on the study's train users alone, so that the study's test scores hold for this model. Users
    of the study are served like new users, from their ratings.

    Args:
        maker: fitted bases, which it turns into a user's rows. fusion: combines the rows.
        domain: the name of the domain.
        ratings: ``user``, ``item``, ``rating`` and optionally ``timestamp`` of the users with kept ratings.
        fitted_on: the users of `ratings` on which the bases were fitted.
        max_history: a longer history is cut to so many of its latest ratings. Networks adapt to the latest
            :attr:`TaskMaker.shots` of them.
        titles: item -> its title, for lists that people read; empty where items have none.
    """

    @property
    def items(self) -> np.ndarray:
        """[I] the ids of the rated items, sorted."""
        return self.maker.item_table.items.to_numpy()

    def _history(self, rows: pd.DataFrame) -> History:
        return History.of(rows)

    def adapt(self, history: pd.DataFrame | Mapping[str, float] | Iterable[tuple[str, float]] | History) -> UserModel:
        """Adapt to one user, new or not.

        Args:
            history: the user's ratings: columns ``item`` and ``rating`` in the domain's own units, and optionally
                ``timestamp`` in seconds. Or item -> rating, or pairs of them. It may be empty.

        Raises:
            InputError: a column is missing, an id is no string, an item is repeated, a rating is not in the scale.
        """
        return UserModel(
            self, history if isinstance(history, History) else History.of(history_table(history, "rating"))
        )

    def user(self, user: str) -> UserModel:
        """Adapt to a user from the kept ratings.

        Raises:
            InputError: the user has no kept ratings.
        """
        return self.adapt(self.history_of(user))

    def cut(self, history: History) -> History:
        """The latest `max_history` ratings of a history.

        Raises:
            InputError: any of its ratings breaks a rule.
        """
        self.maker.check(history)
        return history.latest(self.max_history)

    def predict(self, histories: Sequence[History], items: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predict for many users: [n] ratings for each, in the domain's own units and within its scale.

        An unrated item gets the prediction for unknown items.

        Args:
            histories: of each user. items: [n] item ids for each user.
        """
        predicted = []
        with one_thread():
            for part in _chunks(len(histories)):
                users = self.maker.users([self.cut(history) for history in histories[part]])
                predicted += _predicted(self.fusion.adapt(users.support), users, items[part])
        return predicted


class UserModel:
    """The recommender, adapted to one user. Made by :meth:`FusedRecommender.adapt`."""

    def __init__(self, recommender: FusedRecommender, history: History) -> None:
        self._recommender = recommender
        self._history = history
        with one_thread():
            self._users = recommender.maker.users([recommender.cut(history)])
            self._adapted = recommender.fusion.adapt(self._users.support)

    def __repr__(self) -> str:
        return f"UserModel(domain={self._recommender.domain!r}, ratings={len(self._history.items)})"

    def predict(self, items: Sequence[str] | np.ndarray | pd.Series) -> pd.Series:
        """The user's ratings of items, in the domain's own units and within its scale; the index holds the items.

        An unrated item gets the prediction for unknown items.

        Raises:
            InputError: an id is no string.
        """
        ids = np.asarray(items, dtype=object)
        with one_thread():
            parts = [_predicted(self._adapted, self._users, [ids[rows]])[0] for rows in _chunks(len(ids))]
        values = np.concatenate(parts) if parts else np.zeros(0)
        return pd.Series(values, index=pd.Index(ids, name="item", dtype=object), name="prediction")

    def recommend(self, n: int = 10) -> pd.DataFrame:
        """The `n` items with the highest predictions among those without a rating of the user, the best first.

        Returns:
            Columns ``item``, ``title`` where items have titles, and ``prediction``; fewer rows if there are fewer such
            items.

        Raises:
            InputError: n is below 1.
        """
        if n < 1:
            raise InputError(f"n must be at least 1 but got {n}")
        rated = set(self._history.items.tolist())
        items = np.array([item for item in self._recommender.items if item not in rated], dtype=object)
        predicted = self.predict(items)
        # Ties are ordered by id, so that the result is deterministic.
        best = np.lexsort((items.astype(str), -predicted.to_numpy()))[:n]
        table = pd.DataFrame({"item": items[best], "prediction": predicted.to_numpy()[best]})
        return self._recommender.with_titles(table)


def _predicted(adapted: AdaptedFusion, users: NewUsers, items: Sequence[np.ndarray]) -> list[np.ndarray]:
    """[n] ratings for each user, in the domain's own units, at the time of the user's latest rating."""
    if not any(len(own) for own in items):
        return [np.zeros(0) for _ in items]
    episodes = users.episodes(items)
    unit = adapted.predict(episodes)
    if not np.isfinite(unit[: len(items)][episodes.batch.query.mask.numpy()]).all():
        raise InputError("the model has no finite prediction; its numbers are too large, so it is damaged")
    ratings = episodes.scale.to_ratings(np.clip(unit, 0.0, 1.0))
    return [row[: len(own)] for row, own in zip(ratings, items, strict=True)]


def _chunks(count: int) -> Iterator[slice]:
    return (slice(first, first + CHUNK) for first in range(0, count, CHUNK))
