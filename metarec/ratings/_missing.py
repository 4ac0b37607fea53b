"""Values in a column of ratings that stand for "not rated"."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings._ids import as_text
from metarec.ratings._times import as_numbers
from metarec.ratings.tables import Table
from metarec.registry import suggest

__all__ = ["BLANK", "Fate", "check_missing", "unrated_values", "warn_of_unrated", "without_missing"]

logger = logging.getLogger(__name__)

Fate: TypeAlias = Literal["drop", "event"]
"""What becomes of a row without a rating: it is left out, or it is an event."""

BLANK = "blank"
"""The key of ratings that are not there."""

FEWEST = 30
"""Ratings below which no value is conspicuous."""

MOST, MANY, TIMES = 0.5, 1 / 3, 3
"""The share from which zeros are conspicuous; and a lower one, if they are so many times the next value."""

RARE = 0.01
"""The share below which a single negative value is one on a scale."""


def check_missing(missing: Mapping[str, str] | None) -> dict[str, Fate]:
    """The values that mean "not rated", each with what becomes of its rows.

    Raises:
        InputError: something other than `drop` and `event`.
    """
    for value, fate in (missing or {}).items():
        if fate not in get_args(Fate):
            raise InputError(
                f"missing.{shown(value, 30)} must be drop or event, which is what becomes of the rows, but got "
                f"{shown(fate)}; {suggest(str(fate), get_args(Fate))}"
            )
    return {str(value): fate for value, fate in (missing or {}).items()}  # type: ignore[misc]


def without_missing(table: Table, column: str, missing: Mapping[str, Fate]) -> Table:
    """The table without the rows that are to be dropped, and without the ratings of rows that are events.

    Args:
        missing: the text of a rating, or a number in any form, or `BLANK`: what becomes of its rows.

    Raises:
        InputError: no row is left.
    """
    ratings = table.frame[column]
    texts, numbers = ratings.map(as_text).to_numpy(dtype=object), as_numbers(ratings)
    dropped, events = np.zeros(len(texts), dtype=bool), np.zeros(len(texts), dtype=bool)
    for value, fate in missing.items():
        number = pd.to_numeric(value, errors="coerce")
        rows = texts == ("" if value == BLANK else value) if np.isnan(number) else numbers == number
        if not rows.any():
            logger.warning('%s: missing names the rating "%s", but there is none', table.path, shown(value))
            continue
        what = "are left out" if fate == "drop" else "are read as events without a rating"
        logger.info(
            '%s: %d of %d rows, with the rating "%s", %s', table.path, rows.sum(), len(rows), shown(value), what
        )
        if fate == "drop":
            dropped |= rows
        else:
            events |= rows
    if dropped.all():
        raise InputError(f"{table.path}: missing leaves out every row; leave out fewer ratings")
    frame = table.frame.assign(**{column: ratings.astype(object).mask(events, "")})
    return replace(table, frame=frame[~dropped])


def warn_of_unrated(ratings: pd.Series, place: str) -> None:
    """Log a warning for each value that may mean "not rated", with the key that says so."""
    for value, (share, reason) in unrated_values(ratings).items():
        logger.warning(
            '%s: %d of %d ratings (%.3g %%) are %g, which %s and may mean "not rated"; if so, set missing={%g: drop} '
            "to leave these rows out, or missing={%g: event} to read them as events; if not, give the scale",
            *(place, round(share * len(ratings)), len(ratings), 100 * share, value, reason, value, value),
        )


def unrated_values(ratings: np.ndarray | pd.Series) -> dict[float, tuple[float, str]]:
    """Ratings that seem to mean "not rated": value -> its share, and why it is conspicuous.

    These are a value that lies as far from the others as these reach; a single negative value, such as -1; and zeros
    that are most of the ratings where the others begin above 0. Zeros in a usual number are ratings.

    >>> unrated_values([1, 2, 3, 4, 5] * 10 + [99] * 5)
    {99.0: (0.09090909090909091, 'lies far from the others')}
    """
    values, counts = np.unique(np.asarray(ratings, dtype=np.float64), return_counts=True)
    total = counts.sum()
    found: dict[float, tuple[float, str]] = {}
    if total < FEWEST:
        return found
    # Without three values there is nothing to stand apart from.
    while len(values) > 3:
        for end in (0, -1):
            if reason := _reason(values, counts / total, end):
                found[float(values[end])] = (float(counts[end] / total), reason)
                values, counts = np.delete(values, end), np.delete(counts, end)
                break
        else:
            break
    return found


def _reason(values: np.ndarray, shares: np.ndarray, end: int) -> str | None:
    """Why the lowest or the highest of sorted values is conspicuous."""
    value, share, others = values[end], shares[end], np.delete(values, end)
    if value != np.floor(value):
        return None
    if np.abs(others - value).min() >= others[-1] - others[0]:
        return "lies far from the others"
    if end == 0 and value < 0 <= others[0] and share >= RARE:
        return "is the only negative one"
    if end == 0 and value <= 0 < others[0] and (share >= MOST or (share >= MANY and share >= TIMES * shares[1])):
        return "is far more frequent than the next one"
    return None
