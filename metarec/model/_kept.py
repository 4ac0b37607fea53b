"""What the recommenders of both tasks have in common: a fusion, and the users whose feedback is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.model.fusion import Fusion

__all__ = ["CHUNK", "KeptRecommender", "history_table"]

CHUNK = 500
"""The most users, or items of one user, that are predicted together; it limits the memory."""

MakerT = TypeVar("MakerT")
HistoryT = TypeVar("HistoryT")


def history_table(
    history: pd.DataFrame | Mapping[Any, float] | Iterable[Any], value: str, *, alone: bool = False
) -> pd.DataFrame:
    """A user's history as a table.

    Args:
        history: a table, which is returned as it is; or item -> value; or pairs of them.
        value: the name of the column of values. alone: an item may come without a value, and then all must.

    Raises:
        InputError: an entry has another form, or a value is no number.
    """
    if isinstance(history, pd.DataFrame):
        return history
    entries = list(history.items() if isinstance(history, Mapping) else history)
    if alone and entries and not any(isinstance(entry, tuple | list) for entry in entries):
        return pd.DataFrame({"item": pd.Series(entries, dtype=object)})
    form = f"an item and its {value}"
    for entry in entries:
        if not isinstance(entry, tuple | list) or len(entry) != 2:
            raise InputError(f"each entry of a history must be {form} but got {shown(repr(entry))}")
        if not isinstance(entry[1], int | float | np.integer | np.floating) or isinstance(entry[1], bool):
            raise InputError(f"a history must have {form}, which is a number, but got {shown(repr(entry[1]))}")
    items, values = ([entry[place] for entry in entries] for place in (0, 1))
    return pd.DataFrame({"item": pd.Series(items, dtype=object), value: np.array(values, dtype=np.float64)})


@dataclass(frozen=True, repr=False)
class KeptRecommender(ABC, Generic[MakerT, HistoryT]):
    """Base recommenders and their fusion, exactly as a study has scored them.

    The bases are fitted on the study's train users alone, so that the study's test scores hold for this model. Users
    of the study are served like new users, from their kept feedback.

    Args:
        maker: fitted bases, which it turns into a user's rows. fusion: combines the rows.
        domain: the name of the domain.
        ratings: the table of the domain: ratings or events of the users who are kept.
        fitted_on: the users of `ratings` on which the bases were fitted.
        max_history: a longer history is cut to so many of its latest entries.
        titles: item -> its title, for lists that people read; empty where items have none.
    """

    maker: MakerT
    fusion: Fusion
    domain: str
    ratings: pd.DataFrame
    fitted_on: frozenset[str]
    max_history: int
    titles: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = f"users={len(self._rows_of)}, items={len(self.items)}"
        return f"{type(self).__name__}(domain={self.domain!r}, {counts}, members={[*self.fusion.used().weights]})"

    def with_titles(self, table: pd.DataFrame) -> pd.DataFrame:
        """A list with the column ``item``, and behind it ``title`` where items have titles; None for one without."""
        if self.titles:
            table.insert(1, "title", [self.titles.get(item) for item in table["item"]])
        return table

    @property
    @abstractmethod
    def items(self) -> np.ndarray:
        """[I] the ids of the items that the bases were fitted on, sorted."""

    @abstractmethod
    def _history(self, rows: pd.DataFrame) -> HistoryT:
        """The history in some rows of `ratings`."""

    @property
    def users(self) -> np.ndarray:
        """[U] the ids of the users who are kept, sorted."""
        return np.unique(self.ratings["user"].to_numpy(dtype=str)).astype(object)

    @cached_property
    def _rows_of(self) -> dict[str, np.ndarray]:
        return {str(user): rows for user, rows in self.ratings.groupby("user").indices.items()}

    def knows(self, user: str) -> bool:
        """Whether the user is kept."""
        return user in self._rows_of

    def history_of(self, user: str) -> HistoryT:
        """The kept feedback of a user.

        Raises:
            InputError: the user is not kept.
        """
        rows = self._rows_of.get(user)
        if rows is None:
            raise InputError(
                f'unknown user "{shown(user)}"; the model has {len(self._rows_of):,} users. Adapt it to a history '
                "instead"
            )
        return self._history(self.ratings.iloc[rows])
