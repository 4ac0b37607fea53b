"""Checks of the columns of a file: ids as strings, finite numbers, each user-item pair rated once."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings._domain import TIMES, RatingScale, id_rule
from metarec.ratings._tables import Table
from metarec.registry import suggest

__all__ = [
    "as_event_weights",
    "as_ids",
    "as_ratings",
    "as_seconds",
    "as_weights",
    "check_in_scale",
    "latest_only",
    "latest_ratings",
]

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


def as_ratings(table: Table, column: str) -> pd.Series:
    """A column of ratings as float64, NaN where one is missing.

    Raises:
        InputError: a rating that is text or infinite, or a column without any.
    """
    numbers = _as_numbers(table, column, "rating", gaps=True)
    return _as_numbers(table, column, "rating") if numbers.isna().all() else numbers


def as_weights(table: Table, column: str) -> pd.Series:
    """A column of weights as float64.

    Raises:
        InputError: a weight that is missing, text, infinite, zero or negative.
    """
    numbers = _as_numbers(table, column, "weight")
    wrong = ~(numbers > 0).to_numpy()
    if wrong.any():
        position = int(wrong.argmax())
        place = f'{table.where(numbers.index[position])}: the weight (column "{shown(column)}")'
        raise InputError(f"{place} must be positive but is {numbers.iloc[position]:g}; correct it or remove the row")
    return numbers


def as_event_weights(table: Table, column: str, weights: Mapping[str, float] | None) -> pd.Series:
    """A column of events' names as their weights, float64.

    Args:
        table: the file's table. column: its column of names.
        weights: name -> weight; checked by `check_event_weights`.

    Raises:
        InputError: no weights, or a name without one.
    """
    values = table.frame[column]
    codes, uniques = pd.factorize(values, use_na_sentinel=True)
    names = [*map(_text, uniques), ""]
    what = f'the column "{shown(column)}" names events'
    if weights is None:
        example = ", ".join(f"{shown(name, 30)}: 1" for name in names[:3] if name)
        raise InputError(f"{table.path}: {what}, which need weights; set event_weights, as in {{{example}}}")
    for code, name in enumerate(names):
        if name not in weights and (rows := codes == (code if code < len(uniques) else -1)).any():
            place = table.where(values.index[int(rows.argmax())])
            raise InputError(
                f'{place}: {what}, and the event "{shown(name)}" has no weight; add it to event_weights, or remove its '
                f"rows; {suggest(name, weights)}"
            )
    return pd.Series(np.array([weights.get(name, np.nan) for name in names])[codes], index=values.index)


def _as_numbers(table: Table, column: str, role: str, *, gaps: bool = False) -> pd.Series:
    """A column of finite numbers as float64; with `gaps`, NaN where one is missing."""
    values = table.frame[column]
    numbers = _numeric(values)
    wrong = ~np.isfinite(numbers)
    if gaps:
        wrong[wrong] = [_text(value) != "" for value in values[wrong]]
    if wrong.any():
        position = int(wrong.argmax())
        text = _text(values.iloc[position])
        place = f'{table.where(values.index[position])}: the {role} (column "{shown(column)}")'
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
    wrong = ~ratings.between(scale.low, scale.high).to_numpy() & ratings.notna().to_numpy()
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


def latest_ratings(ratings: pd.DataFrame, source: str) -> pd.DataFrame:
    """Mixed feedback in which the older ratings of every user-item pair are events without a rating."""
    rated = ratings.dropna(subset="rating")
    older = rated.index.difference(latest_only(rated, source).index)
    return ratings.assign(rating=ratings["rating"].mask(ratings.index.isin(older)))


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
