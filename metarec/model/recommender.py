"""The fused recommender: a user's history in, predictions and recommendations out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from metarec.episodes import History, NewUsers, TaskMaker
from metarec.errors import InputError
from metarec.model.fusion import AdaptedFusion, Fusion
from metarec.threads import one_thread

__all__ = ["FusedRecommender", "UserModel"]

AT_ONCE = 500
"""Items that are predicted in one go for one user."""


@dataclass(frozen=True)
class FusedRecommender:
    """Base recommenders and what combines them, as a study has scored it: no more, no less.

    The bases were fitted on the study's train users alone, so that what the study says of test users is said of this
    very model. A user whom it knows is served as a new one would be, from the ratings that are known.

    Args:
        maker: the bases and what makes a user's rows of them. fusion: combines the rows.
        domain: what the domain is called.
        ratings: of the known users: ``user``, ``item``, ``rating`` and, where there are any, ``timestamp``.
        fitted_on: the users of `ratings` whom the bases were fitted on. A base that remembers users finds them again.
        longest: of a history, so many of the latest ratings are looked at. A network that has learned from users after
            few ratings does worse the more it is given.
    """

    maker: TaskMaker
    fusion: Fusion
    domain: str
    ratings: pd.DataFrame
    fitted_on: frozenset[str]
    longest: int

    @property
    def items(self) -> np.ndarray:
        """[I] the ids of the items that somebody rated, sorted."""
        return self._rated

    @property
    def users(self) -> np.ndarray:
        """[U] the ids of the known users, sorted."""
        return np.unique(self.ratings["user"].to_numpy(dtype=str)).astype(object)

    @cached_property
    def _rated(self) -> np.ndarray:
        return self.maker.item_table.items.to_numpy()

    @cached_property
    def _rows_of(self) -> dict[str, np.ndarray]:
        return {str(user): rows for user, rows in self.ratings.groupby("user").indices.items()}

    def knows(self, user: str) -> bool:
        """Whether ratings of the user are kept here."""
        return user in self._rows_of

    def history_of(self, user: str) -> History:
        """What a known user has rated.

        Raises:
            InputError: nobody knows this user.
        """
        rows = self._rows_of.get(user)
        if rows is None:
            raise InputError(
                f'unknown user "{user}"; the model knows {len(self._rows_of):,} users. Adapt it to a history instead'
            )
        return History.of(self.ratings.iloc[rows])

    def adapt(self, history: pd.DataFrame | History) -> UserModel:
        """Adapt to one user, whom it need not know.

        Args:
            history: what the user has rated: columns ``item`` and ``rating``, in the domain's own units, and
                ``timestamp`` in seconds where it is known. It may be empty.

        Raises:
            InputError: a column is missing, an id is no string, an item is there twice, a rating is not in the scale.
        """
        return UserModel(self, history if isinstance(history, History) else History.of(history))

    def user(self, user: str) -> UserModel:
        """Adapt to a known user, from the ratings that are kept here.

        Raises:
            InputError: nobody knows this user.
        """
        return self.adapt(self.history_of(user))

    def seen(self, history: History) -> History:
        """What is looked at of a history.

        Raises:
            InputError: it breaks a rule, wherever in it.
        """
        self.maker.check(history)
        return history.latest(self.longest)

    def predict(self, histories: Sequence[History], items: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predict for many users at once: [n] ratings for each, in the domain's own units and within its scale.

        An item that nobody has rated gets what is said of unknown items.

        Args:
            histories: of each user. items: [n] item ids for each user.
        """
        if not histories:
            return []
        with one_thread():
            users = self.maker.users([self.seen(history) for history in histories])
            return _predicted(self.fusion.adapt(users.support), users, items)


class UserModel:
    """The recommender, adapted to one user. Made by :meth:`FusedRecommender.adapt`."""

    def __init__(self, recommender: FusedRecommender, history: History) -> None:
        self._recommender = recommender
        self._history = history
        with one_thread():
            self._users = recommender.maker.users([recommender.seen(history)])
            self._adapted = recommender.fusion.adapt(self._users.support)

    def predict(self, items: Sequence[str] | np.ndarray | pd.Series) -> pd.Series:
        """The user's ratings of items, in the domain's own units and within its scale; the index holds the items.

        An item that nobody has rated gets what is said of unknown items.

        Raises:
            InputError: an id that is no string.
        """
        ids = np.asarray(items, dtype=object)
        with one_thread():
            parts = [_predicted(self._adapted, self._users, [ids[rows]])[0] for rows in _runs(len(ids))]
        values = np.concatenate(parts) if parts else np.zeros(0)
        return pd.Series(values, index=pd.Index(ids, name="item", dtype=object), name="prediction")

    def recommend(self, n: int = 10) -> pd.DataFrame:
        """The `n` items with the highest predictions among those that the user has not rated, the best first.

        Returns:
            Columns ``item`` and ``prediction``; fewer rows where there are fewer such items.

        Raises:
            InputError: n is below 1.
        """
        if n < 1:
            raise InputError(f"n must be at least 1 but got {n}")
        known = set(self._history.items.tolist())
        items = np.array([item for item in self._recommender.items if item not in known], dtype=object)
        predicted = self.predict(items)
        # Ties go by the id, so that the same question has the same answer.
        best = np.lexsort((items.astype(str), -predicted.to_numpy()))[:n]
        return pd.DataFrame({"item": items[best], "prediction": predicted.to_numpy()[best]})


def _predicted(adapted: AdaptedFusion, users: NewUsers, items: Sequence[np.ndarray]) -> list[np.ndarray]:
    """[n] ratings for each user, in the domain's own units, as of the user's latest known rating."""
    if not any(len(own) for own in items):
        return [np.zeros(0) for _ in items]
    episodes = users.episodes(items)
    ratings = episodes.scale.to_ratings(np.clip(adapted.predict(episodes), 0.0, 1.0))
    return [row[: len(own)] for row, own in zip(ratings, items, strict=True)]


def _runs(count: int) -> Iterator[slice]:
    return (slice(first, first + AT_ONCE) for first in range(0, count, AT_ONCE))
