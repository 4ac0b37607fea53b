"""One rule for times: seconds since 1970, wherever they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings._domain import TIMES
from metarec.ratings._ids import as_text

__all__ = ["EARLY", "TIME_RULE", "Times", "as_numbers", "read_times", "seconds_of"]

LATEST = 1e11
"""No time in seconds is as late; it is in the year 5138. The same number of milliseconds is in the year 1973."""

EARLY = 1e8
"""Earlier seconds are before March 1973 and no times of ratings; they may be days, or counted from 0."""

END = 9_214_646_400
"""The year 2262 in seconds, where nanoseconds end; numbers that give later times in their unit count from 1601."""

TICKS = 8e17
"""Smaller nanoseconds are before 1995, and more likely Windows' ticks of 100 nanoseconds since another year."""

_UNITS = {"nanoseconds": 10**9, "microseconds": 10**6, "milliseconds": 1000}
"""From large numbers to small ones."""

TIME_RULE = (
    "must be seconds (or milliseconds, microseconds, nanoseconds) since 1970, all in one unit, or a date like "
    "2001-12-31, before 2262"
)

_WRITTEN = {"%Y%m%d": (19_000_101, 21_001_231), "%Y%m%d%H%M%S": (19_000_101_000_000, 21_001_231_235_959)}
"""Formats of dates that are written as a number, with their bounds."""


SERIALS = 32_874, 54_789
"""The days 1990-01-01 and 2050-01-01 as spreadsheets count them; as seconds they would be hours of one day in 1970."""

SERIAL_OF_1970 = 25_569


@dataclass(frozen=True)
class Times:
    """Times as seconds.

    Attributes:
        seconds: [n] since 1970; int64 where all are whole, else float64.
        wrong: [n] where a value breaks `TIME_RULE`.
        unit: what the values were, if they were numbers but no seconds.
    """

    seconds: np.ndarray
    wrong: np.ndarray
    unit: str | None = None


def seconds_of(values: Sequence[object] | np.ndarray | pd.Series, what: str = "time") -> np.ndarray:
    """[n] times as seconds since 1970, float64, by the rule of :func:`metarec.ratings.read_domain`.

    Numbers from 1e11 on are milliseconds, from 1e14 on microseconds, from 1e17 on nanoseconds. Dates with and without
    zones are read; without one they are in UTC.

    >>> seconds_of([1_400_000_000_500]).tolist(), seconds_of(["2014-05-13T16:53:20+00:00"]).tolist()
    ([1400000000.5], [1400000000.0])

    Args:
        what: names a value in messages.

    Raises:
        InputError: a value is missing, or breaks the rule; its place is named, from 0.
    """
    given = np.asarray(values)
    # Most are seconds already, and there may be many short histories.
    if given.dtype.kind in "iuf" and np.all((given > -LATEST) & (given < LATEST)):
        return given.astype(np.float64)
    series = pd.Series(values, dtype=None if len(values) else float)
    times = read_times(series)
    if times.wrong.any():
        place = int(times.wrong.argmax())
        text = shown(as_text(series.iloc[place]))
        if not text:
            raise InputError(f"{what} {place} is missing; fill it in, or leave out all times")
        raise InputError(f'{what} {place} {TIME_RULE}, but is "{text}"; correct it, or leave out all times')
    return times.seconds.astype(np.float64)


def read_times(values: pd.Series, *, written: bool = False) -> Times:
    """Times as seconds.

    Args:
        written: whether numbers such as 20011231, or a spreadsheet's 37256, may be dates. They may be in a whole file,
            and not in a short history, which cannot show that they are none.
    """
    is_date = pd.api.types.is_datetime64_any_dtype(values)
    numbers = np.full(len(values), np.nan) if is_date else as_numbers(values)
    wrong = ~(np.abs(numbers) <= TIMES)
    unit = None
    if len(values) and wrong.all() and not pd.api.types.is_numeric_dtype(values):
        seconds, wrong = _of_dates(values, None if is_date else "ISO8601")
    elif written and (form := _written_as(numbers[~wrong])):
        seconds, wrong = _of_dates(pd.Series(numbers).where(~wrong).astype("Int64").astype("string"), form)
        unit = "dates"
    elif written and _are_days_first(numbers[~wrong]):
        # Their order as numbers is not that of the days, and which number is the month may be open.
        seconds, wrong = numbers, np.ones(len(values), dtype=bool)
    elif written and _are_serials(numbers[~wrong]):
        # Parts of a day are times; spreadsheets keep milliseconds.
        seconds, unit = np.round((numbers - SERIAL_OF_1970) * 86_400, 3), "days of a spreadsheet"
    else:
        unit, scale, mixed = _unit_of(np.abs(numbers[~wrong]))
        wrong[~wrong] = mixed
        seconds = numbers / scale
    whole = np.all(seconds == np.floor(seconds)) and np.all(np.abs(seconds) < 2**53)
    return Times(seconds.astype(np.int64) if whole else seconds, wrong, unit)


def as_numbers(values: pd.Series) -> np.ndarray:
    """[n] a column as float64, NaN where a value is no number."""
    # pandas treats booleans and nanoseconds as numbers.
    if pd.api.types.is_bool_dtype(values) or values.dtype.kind in "mM":
        return np.full(len(values), np.nan)
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    numbers = pd.to_numeric(values, errors="coerce")
    return np.asarray(numbers.to_numpy(dtype=np.float64, na_value=np.nan))


def _of_dates(values: pd.Series, form: str | None) -> tuple[np.ndarray, np.ndarray]:
    """[n] seconds of dates, and [n] where there is none."""
    if form is not None:
        # To pandas they are the time at which the file is read.
        values = values.mask(values.isin(("now", "today")))
    stamps = pd.to_datetime(values, format=form, utc=True, errors="coerce")
    # Without a zone, because a column without a value in range has none.
    stamps = stamps.dt.tz_localize(None)
    # A column of dates may be in another unit than nanoseconds, with a larger range.
    stamps = stamps.where(stamps.dt.year.between(1678, 2261))
    whole, rest = np.divmod(stamps.astype("datetime64[ns]").astype(np.int64).to_numpy(), 10**9)
    return whole + rest / 1e9, stamps.isna().to_numpy()


def _unit_of(sizes: np.ndarray) -> tuple[str | None, int, np.ndarray]:
    """The unit of most times, its number in a second, and [n] where a time is in another unit.

    Args:
        sizes: [n] absolute values.
    """
    positive = sizes[sizes > 0]
    typical = np.median(positive) if len(positive) else 0.0
    for unit, scale in _UNITS.items():
        start = LATEST * scale / 1000
        if typical >= start:
            small = (sizes > 0) & (sizes < start / 10)
            # Numbers that grow from 0 are in one unit, and there are some of every size.
            mixed = small & ~np.any((sizes >= start / 10) & (sizes < start))
            wrong = mixed | (sizes / scale >= END)
            return unit, scale, wrong | (scale == 10**9 and typical < TICKS)
    return None, 1, sizes >= LATEST


def _written_as(numbers: np.ndarray) -> str | None:
    """The format in which all numbers are dates, if there are two of them at least."""
    for form, (first, last) in _WRITTEN.items():
        if not len(numbers) or numbers.min() < first or numbers.max() > last or np.any(numbers != np.floor(numbers)):
            continue
        days = np.unique(numbers)
        if len(days) > 1:
            texts = pd.Series(days.astype(np.int64)).astype(str)
            if pd.to_datetime(texts, format=form, errors="coerce").notna().all():
                return form
    return None


def _are_days_first(numbers: np.ndarray) -> bool:
    """Whether all numbers are dates with the year at their end, such as 31122024, if there are two of them at least."""
    days = np.unique(numbers)
    if len(days) < 2 or days[0] < 1_011_900 or days[-1] > 31_122_100 or np.any(days != np.floor(days)):
        return False
    if not np.all((days % 10_000 >= 1900) & (days % 10_000 <= 2100)):
        return False
    texts = pd.Series(days.astype(np.int64)).astype(str).str.zfill(8)
    return any(bool(pd.to_datetime(texts, format=form, errors="coerce").notna().all()) for form in ("%d%m%Y", "%m%d%Y"))


def _are_serials(numbers: np.ndarray) -> bool:
    """Whether numbers are days of a spreadsheet: there are several, and all would be recent."""
    first, last = SERIALS
    return len(numbers) > 0 and bool(first <= numbers.min() < numbers.max() <= last)
