"""The requests of a served model, checked row by row, and its answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metarec.episodes import History
from metarec.errors import InputError, shown
from metarec.files import Limit
from metarec.model.recommender import NO_HISTORY, FusedRecommender

__all__ = ["COLUMNS", "HISTORY", "ROWS", "Answers", "answer"]

COLUMNS = ("item", "user", "history")
"""The columns of a request."""

_ENTRY = ("item", "rating", "timestamp")

ROWS = Limit("METAREC_MAX_REQUEST_ROWS", 10_000, "rows")
"""Of one request."""

HISTORY = Limit("METAREC_MAX_HISTORY", 10_000, "ratings")
"""Of one history in a request."""


class Answers(NamedTuple):
    """[n] predictions in the domain's own units, and [n] the ratings of unknown items in the history of each row.

    The rating of an unknown item shows how its user rates, and nothing else: no base predicts from it.
    """

    predictions: np.ndarray
    unknown: np.ndarray

    def table(self) -> pd.DataFrame:
        """``prediction``; and ``unknown_in_history``, if any history has an unknown item."""
        table = pd.DataFrame({"prediction": self.predictions})
        return table.assign(unknown_in_history=self.unknown) if self.unknown.any() else table


def answer(recommender: FusedRecommender, rows: Sequence[Sequence[Any]]) -> Answers:
    """A prediction for each row, from the user's history.

    Args:
        rows: the values of `COLUMNS`: an item of the model; a user of the model, or None; or a history, a list of
            mappings with ``item``, ``rating`` and optionally ``timestamp``, which replaces the user's, or None.

    Raises:
        InputError: a row breaks a rule, or there are too many; the row is named.
    """
    if not len(rows):
        raise InputError("there must be at least one row with an item, but there is none")
    ROWS.check(len(rows), "the request")
    items = np.empty(len(rows), dtype=object)
    items[:] = [row[0] for row in rows]
    for place, item in enumerate(items):
        if not isinstance(item, str):
            raise InputError(f"row {place}: item must be text but got {shown(item)}")
    known = pd.Index(recommender.items)
    codes = known.get_indexer(items)
    if (codes < 0).any():
        place = int((codes < 0).argmax())
        raise InputError(f'row {place}: unknown item "{shown(items[place])}"; the model has {len(known):,} items')
    groups: dict[Any, tuple[History, list[int]]] = {}
    for place, (_, user, history) in enumerate(rows):
        try:
            key = _key(user, history)
            if key not in groups:
                groups[key] = (_history(recommender, user, history), [])
        except InputError as error:
            raise InputError(f"row {place}: {error}") from None
        groups[key][1].append(place)
    histories, places = zip(*groups.values(), strict=True)
    predicted, unknown = np.empty(len(rows)), np.zeros(len(rows), dtype=np.int64)
    answers = recommender.predict(histories, [items[own] for own in places])
    for own, values, history in zip(places, answers, histories, strict=True):
        predicted[own] = values
        unknown[own] = np.count_nonzero(known.get_indexer(history.items) < 0)
    return Answers(predicted, unknown)


def _key(user: Any, history: Any) -> tuple[Any, ...]:
    """What rows with the same history share."""
    if not _is_missing(history):
        return ("history", *_entries(history))
    if _is_missing(user):
        return ()
    if not isinstance(user, str):
        raise InputError(f"user must be text but got {shown(user)}")
    return ("user", user)


def _entries(history: Any) -> list[tuple[Any, ...]]:
    """The item, the rating and the time of each entry."""
    if not isinstance(history, list | tuple | np.ndarray):
        raise InputError(f"history must be a list of ratings but got {shown(history)}")
    HISTORY.check(len(history), "the history")
    entries = []
    for place, entry in enumerate(history):
        if not isinstance(entry, Mapping) or not {"item", "rating"} <= entry.keys() <= set(_ENTRY):
            raise InputError(f"history[{place}] must have item, rating and optionally timestamp but got {shown(entry)}")
        item, rating, time = entry["item"], entry["rating"], entry.get("timestamp")
        if not isinstance(item, str):
            raise InputError(f"history[{place}].item must be text but got {shown(item)}")
        entries.append((item, _number(rating, place, "rating"), _is_missing(time) or _number(time, place, "timestamp")))
    return entries


def _number(value: Any, place: int, name: str) -> float:
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    # An integer of many digits is no float.
    if not is_number or not -1e300 < value < 1e300 or not math.isfinite(value):
        raise InputError(f"history[{place}].{name} must be a finite number but got {shown(value)}")
    return float(value)


def _history(recommender: FusedRecommender, user: Any, history: Any) -> History:
    if not _is_missing(history):
        entries = _entries(history)
        items = np.empty(len(entries), dtype=object)
        items[:] = [entry[0] for entry in entries]
        times = [entry[2] for entry in entries]
        dated = bool(times) and not any(time is True for time in times)
        ratings = np.array([entry[1] for entry in entries], dtype=np.float64)
        given = History(items, ratings, np.array(times, dtype=np.float64) if dated else None)
        recommender.maker.check(given)
        return given
    return NO_HISTORY if _is_missing(user) else recommender.history_of(user)


def _is_missing(value: Any) -> bool:
    """Whether a cell has no value; an empty history is a value."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
