"""What the requests of both tasks have in common: users of the model, and histories that replace theirs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.files import Limit
from metarec.model._kept import KeptRecommender
from metarec.ratings import ids_of, seconds_of

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec

__all__ = ["Requests", "history_column", "id_column", "is_missing", "requested_id"]

MAX_HISTORY = "METAREC_MAX_HISTORY", 10_000
"""Entries of one history in a request: the variable, and the default."""

HistoryT = TypeVar("HistoryT")


class Requests(ABC, Generic[HistoryT]):
    """The rows of requests to one recommender.

    Attributes:
        columns: of a request. needed: those without which a row is refused. flat: those whose values are ids.
        limit: of the rows of one request.
        entry: of a history, the names of what an entry may hold; the last one is the time. needed_in_entry: those
            that it must hold.
        noun: what a history is a list of.
    """

    columns: ClassVar[tuple[str, ...]]
    needed: ClassVar[tuple[str, ...]]
    flat: ClassVar[tuple[str, ...]]
    limit: ClassVar[Limit]
    entry: ClassVar[tuple[str, str, str]]
    needed_in_entry: ClassVar[tuple[str, ...]]
    noun: ClassVar[str]

    def __init__(self, recommender: KeptRecommender[Any, HistoryT]) -> None:
        self._kept = recommender

    @abstractmethod
    def answer(self, rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
        """A row for each row, from the user's history.

        Args:
            rows: the values of `columns`.

        Raises:
            InputError: a row breaks a rule, or there are too many; the row is named.
        """

    @staticmethod
    @abstractmethod
    def signature() -> ModelSignature:
        """The input and output columns of the served model."""

    @abstractmethod
    def example(self) -> pd.DataFrame:
        """A request."""

    @abstractmethod
    def _given(self, items: np.ndarray, values: np.ndarray, times: np.ndarray | None) -> HistoryT:
        """A history from the request; raises InputError where it breaks a rule."""

    @property
    @abstractmethod
    def _nothing(self) -> HistoryT:
        """The empty history."""

    def _check_count(self, rows: Sequence[Sequence[Any]]) -> None:
        if not len(rows):
            raise InputError(f"there must be at least one row with {' and '.join(self.columns[:1])}, but there is none")
        self.limit.check(len(rows), "the request")

    def _grouped(self, asked: Sequence[tuple[Any, Any]]) -> tuple[list[HistoryT], list[list[int]]]:
        """The different histories of rows, and the places of the rows of each.

        Args:
            asked: a user of the model, or None; and a history, which replaces the user's, or None, for each row.
        """
        groups: dict[tuple[Any, ...], tuple[HistoryT, list[int]]] = {}
        for place, (user, history) in enumerate(asked):
            try:
                key = self._key(user, history)
                if key not in groups:
                    groups[key] = (self._history(user, history), [])
            except InputError as error:
                raise InputError(f"row {place}: {error}") from None
            groups[key][1].append(place)
        histories, places = zip(*groups.values(), strict=True)
        return list(histories), list(places)

    def _key(self, user: Any, history: Any) -> tuple[Any, ...]:
        """What rows with the same history share."""
        if not is_missing(history):
            return ("history", *self._entries(history))
        if is_missing(user):
            return ()
        return ("user", requested_id(user, "user"))

    def _entries(self, history: Any) -> list[tuple[Any, ...]]:
        """The item, the value and the time of each entry; True for a time that is not there."""
        if not isinstance(history, list | tuple | np.ndarray):
            raise InputError(f"history must be a list of {self.noun} but got {shown(history)}")
        Limit(*MAX_HISTORY, self.noun).check(len(history), "the history")
        needed, (_, value_name, time_name) = set(self.needed_in_entry), self.entry
        entries = []
        for place, entry in enumerate(history):
            if not isinstance(entry, Mapping) or not needed <= entry.keys() <= set(self.entry):
                optional = [name for name in self.entry if name not in needed]
                raise InputError(
                    f"history[{place}] must have {', '.join(self.needed_in_entry)} and optionally "
                    f"{' and '.join(optional)} but got {shown(entry)}"
                )
            item = requested_id(entry["item"], f"history[{place}].item")
            value, time = entry.get(value_name), entry.get(time_name)
            known = 1.0 if value_name not in needed and is_missing(value) else _number(value, place, value_name)
            entries.append((item, known, is_missing(time) or _number(time, place, time_name)))
        return entries

    def _history(self, user: Any, history: Any) -> HistoryT:
        if is_missing(history):
            return self._nothing if is_missing(user) else self._kept.history_of(requested_id(user, "user"))
        entries = self._entries(history)
        items = np.empty(len(entries), dtype=object)
        items[:] = [entry[0] for entry in entries]
        times = [entry[2] for entry in entries]
        dated = bool(times) and not any(time is True for time in times)
        values = np.array([entry[1] for entry in entries], dtype=np.float64)
        return self._given(items, values, seconds_of(times, "timestamp of the history") if dated else None)


def id_column(name: str, *, required: bool) -> ColSpec:
    """The column of ids in a signature. An id may be text or a whole number, as in the files of ratings."""
    from mlflow.types.schema import AnyType, ColSpec

    return ColSpec(AnyType(), name, required=required)


def history_column(entry: Sequence[str]) -> ColSpec:
    """The column of histories in a signature; `entry`: the names of what an entry may hold, the item first.

    All have the type any: MLflow refuses a whole number where the signature has double or text. Each request is checked
    by :meth:`Requests.answer` in any case.
    """
    from mlflow.types.schema import AnyType, Array, ColSpec, Object, Property

    numbers = [Property(name, AnyType(), required=False) for name in entry[1:]]
    return ColSpec(Array(Object([Property(entry[0], AnyType()), *numbers])), "history", required=False)


def requested_id(value: Any, what: str) -> str:
    """An id of a request as text, by the rule of :func:`~metarec.ratings.ids_of`.

    Raises:
        InputError: the value is neither text nor a number that can be an id.
    """
    if isinstance(value, str):
        return value
    if not _is_number(value):
        raise InputError(f"{what} must be text or a whole number but got {shown(value)}")
    return str(ids_of([value], what)[0])


def _number(value: Any, place: int, name: str) -> float:
    # An integer of many digits is no float.
    if not _is_number(value) or not -1e300 < value < 1e300 or not math.isfinite(value):
        raise InputError(f"history[{place}].{name} must be a finite number but got {shown(value)}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def is_missing(value: Any) -> bool:
    """Whether a cell has no value; an empty history is a value."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
