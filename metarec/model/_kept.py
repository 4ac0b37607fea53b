"""What the recommenders of both tasks have in common: a fusion, and the users whose feedback is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.model.fusion import Fusion

__all__ = ["CHUNK", "KeptRecommender"]

CHUNK = 500
"""The most users, or items of one user, that are predicted together; it limits the memory."""

MakerT = TypeVar("MakerT")
HistoryT = TypeVar("HistoryT")


@dataclass(frozen=True)
class KeptRecommender(ABC, Generic[MakerT, HistoryT]):
    """Base recommenders and their fusion, exactly as a study has scored them.

    The bases are fitted on the study's train users alone, so that the study's test scores hold for this model. Users
    of the study are served like new users, from their kept feedback.

    Args:
        maker: fitted bases, which it turns into a user's rows. fusion: combines the rows.
        domain: the name of the domain.
        ratings: the table of the domain: ratings or events of the users who are kept.
        fitted_on: the users of `ratings` on which the bases were fitted.
        max_history: a longer history is cut to so many of its latest entries. A network that was trained on short
            histories gets worse with long ones.
    """

    maker: MakerT
    fusion: Fusion
    domain: str
    ratings: pd.DataFrame
    fitted_on: frozenset[str]
    max_history: int

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
