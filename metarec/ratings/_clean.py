"""Checks of the columns of a file: ids as strings, finite numbers, each user-item pair once."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings._domain import TIMES, RatingScale, id_rule
from metarec.ratings._tables import Table

__all__ = ["as_ids", "as_numbers", "as_seconds", "check_in_scale", "latest_only"]

logger = logging.getLogger(__name__)


def as_ids(table: Table, column: str, role: str) -> pd.Series:
    """A column of ids as strings without spaces around them: ``"0002844"`` stays, an integer 7 becomes ``"7"``.

    Raises:
        InputError: an id that is missing, or breaks `id_rule`.
    """
    codes, values = pd.factorize(table.frame[column], use_na_sentinel=True)
    if pd.api.types.is_float_dtype(values.dtype):
        numbers = np.asarray(values, dtype=np.float64)
        # Larger ones are not exact, and larger than an int64 may be.
        if np.all(np.abs(numbers) < 2**53) and np.all(numbers == np.floor(numbers)):
            values = values.astype(np.int64)
    names = np.array([*(_text(value) for value in values), ""], dtype=object)
    ids = names[codes]
    rules = [id_rule(name) for name in names]
    wrong = np.array([rule is not None for rule in rules])[codes]
    if wrong.any():
        position = int(wrong.argmax())
        place = f'{table.where(table.frame.index[position])}: the {role} id (column "{shown(column)}")'
        rule = rules[codes[position]] if ids[position] else "is missing"
        raise InputError(f"{place} {rule}; fill it in or remove the row")
    return pd.Series(ids, index=table.frame.index, dtype=object)


def as_numbers(table: Table, column: str) -> pd.Series:
    """A column of ratings as float64.

    Raises:
        InputError: a rating that is missing, text, or infinite.
    """
    values = table.frame[column]
    numbers = _numeric(values)
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        position = int(wrong.argmax())
        text = _text(values.iloc[position])
        place = f'{table.where(values.index[position])}: the rating (column "{shown(column)}")'
        if not text:
            raise InputError(f"{place} is missing; fill it in or remove the row")
        decimal_comma = "," in text and text.replace(",", "", 1).isdigit()
        cure = "write a point for the comma" if decimal_comma else "correct it or remove the row"
        raise InputError(f'{place} must be a finite number but is "{shown(text)}"; {cure}')
    return pd.Series(numbers, index=values.index)


def as_seconds(table: Table, column: str) -> pd.Series:
    """A column of timestamps: numbers as they are, dates and times in ISO 8601 as seconds since 1970 (UTC).

    Raises:
        InputError: a timestamp that is neither.
    """
    values = table.frame[column]
    dates = pd.api.types.is_datetime64_any_dtype(values)
    seconds = np.full(len(values), np.nan) if dates else _numeric(values)
    wrong = ~(np.abs(seconds) <= TIMES)
    if wrong.all():
        stamps = pd.to_datetime(values, format=None if dates else "ISO8601", utc=True, errors="coerce")
        # Without a zone, because a column without a value in range has none.
        stamps = stamps.dt.tz_localize(None)
        # A column of dates may be in another unit than nanoseconds, with a larger range.
        stamps = stamps.where(stamps.dt.year.between(1678, 2261))
        wrong = stamps.isna().to_numpy()
        seconds = stamps.astype("datetime64[ns]").astype(np.int64).to_numpy() / 1e9
    if wrong.any():
        position = int(wrong.argmax())
        place = f'{table.where(values.index[position])}: the timestamp (column "{shown(column)}")'
        text = shown(_text(values.iloc[position]))
        raise InputError(
            f'{place} must be seconds or a date like 2001-12-31, before 2262, but is "{text}"; correct it, or remove '
            "the column"
        )
    whole = np.all(seconds == np.floor(seconds)) and np.all(np.abs(seconds) < 2**53)
    return pd.Series(seconds.astype(np.int64) if whole else seconds, index=values.index)


def check_in_scale(table: Table, column: str, ratings: pd.Series, scale: RatingScale) -> None:
    """Raises :class:`InputError` for the first rating outside of the scale."""
    wrong = ~ratings.between(scale.low, scale.high).to_numpy()
    if wrong.any():
        position = int(wrong.argmax())
        place = f'{table.where(ratings.index[position])}: the rating (column "{shown(column)}")'
        raise InputError(
            f"{place} must lie in the scale {scale} but is {ratings.iloc[position]:g}; "
            "correct it, or give the scale that it is on"
        )


def latest_only(ratings: pd.DataFrame, source: str) -> pd.DataFrame:
    """The latest rating of every user-item pair; of equal timestamps, the last in the file."""
    if not ratings.duplicated(["user", "item"]).any():
        return ratings
    in_time = ratings.sort_values("timestamp", kind="stable") if "timestamp" in ratings else ratings
    kept = in_time.drop_duplicates(["user", "item"], keep="last").sort_index()
    logger.warning(
        "%s: %d rows repeat a user-item pair; the latest rating of each pair is kept", source, len(ratings) - len(kept)
    )
    return kept


def _numeric(values: pd.Series) -> np.ndarray:
    # pandas treats booleans and nanoseconds as numbers.
    if pd.api.types.is_bool_dtype(values) or values.dtype.kind in "mM":
        return np.full(len(values), np.nan)
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    numbers = pd.to_numeric(values, errors="coerce")
    return np.asarray(numbers.to_numpy(dtype=np.float64, na_value=np.nan))


def _text(value: object) -> str:
    """A field as text; the empty string where it is missing."""
    if isinstance(value, bytes):
        # What is no UTF-8 stays visible, and apart from other bytes; `id_rule` refuses it.
        value = value.decode("utf-8", errors="surrogateescape")
    return "" if pd.isna(value) else str(value).strip()
