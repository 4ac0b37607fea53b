"""Checks of the columns of a file: ids as strings, finite numbers, each user-item pair rated once."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings._domain import RatingScale
from metarec.ratings._ids import as_text, text_ids
from metarec.ratings._times import EARLY, TIME_RULE, as_numbers, read_times
from metarec.ratings.tables import Table
from metarec.registry import suggest

__all__ = [
    "as_event_weights",
    "as_finite",
    "as_ids",
    "as_ratings",
    "as_seconds",
    "as_weights",
    "check_in_scale",
    "latest_only",
    "latest_ratings",
]

logger = logging.getLogger(__name__)

_LINE_BREAK = "holds a line break, as where a quotation mark that belongs to an id hides the rows up to the next one"

_LIKE_NONE = frozenset({"nan", "NaN", "NaT", "NA", "N/A", "<NA>", "None", "NULL", "Null", "null", "undefined"})
"""Texts that programs write where there is no value, and which may also be somebody's id."""

_NO_COMMAS = "write a point for a comma before decimals, and nothing for one between thousands"

_THOUSANDS = r"[-+]?[1-9]\d{0,2},\d{3}"
"""A number with a comma that may be one between thousands."""


def as_ids(table: Table, column: str, role: str) -> pd.Series:
    """A column of ids as strings without spaces around them, by the rule of `ids_of`.

    Texts of whole numbers that were written as floats, such as ``7.0``, are whole numbers.

    Raises:
        InputError: an id that is missing, or breaks a rule; or lists and objects where ids should be.
    """
    if column in table.nested:
        raise InputError(
            f'{table.path}: the {role} ids (column "{shown(column)}") are lists or objects; write one row for each '
            f"{role}, with its id as text or as a number"
        )
    codes, names, rules = text_ids(table.frame[column], whole=True)
    ids = names[codes]
    rules = [
        rule or (_LINE_BREAK if re.search(r"[\r\n]", name) else None) for rule, name in zip(rules, names, strict=True)
    ]
    wrong = np.array([rule is not None for rule in rules])[codes]
    if wrong.any():
        position = int(wrong.argmax())
        place = f'{table.where(table.frame.index[position])}: the {role} id (column "{shown(column)}")'
        cure = "correct it or remove the row" if ids[position] else "fill it in or remove the row"
        raise InputError(f"{place} {rules[codes[position]]}; {cure}")
    for name in _LIKE_NONE.intersection(names):
        logger.warning(
            '%s: %d rows have the %s id "%s", which may stand for a missing one; if so, remove them',
            *(table.path, (ids == name).sum(), role, name),
        )
    return pd.Series(ids, index=table.frame.index, dtype=object)


def as_ratings(table: Table, column: str) -> pd.Series:
    """A column of ratings as float64, NaN where one is missing.

    Raises:
        InputError: a rating that is text or infinite, or a column without any.
    """
    numbers = as_finite(table, column, "rating", gaps=True)
    return as_finite(table, column, "rating") if numbers.isna().all() else numbers


def as_weights(table: Table, column: str) -> pd.Series:
    """A column of weights as float64.

    Raises:
        InputError: a weight that is missing, text, infinite, zero or negative.
    """
    numbers = as_finite(table, column, "weight")
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
    names = [*map(as_text, uniques), ""]
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


def as_finite(table: Table, column: str, role: str, *, gaps: bool = False) -> pd.Series:
    """A column of finite numbers as float64; with `gaps`, NaN where one is missing.

    Raises:
        InputError: a value that is no finite number.
    """
    values = table.frame[column]
    if table.commas:
        values = _with_points(values, f'{table.path}: column "{shown(column)}"')
    numbers = as_numbers(values)
    wrong = ~np.isfinite(numbers)
    if gaps:
        wrong[wrong] = [as_text(value) != "" for value in values[wrong]]
    if wrong.any():
        position = int(wrong.argmax())
        text = as_text(values.iloc[position])
        place = f'{table.where(values.index[position])}: the {role} (column "{shown(column)}")'
        if not text:
            raise InputError(f"{place} is missing; fill it in or remove the row")
        decimal_comma = "," in text and text.replace(",", "", 1).isdigit()
        cure = "write a point for the comma" if decimal_comma else "correct it or remove the row"
        cure = _NO_COMMAS if re.fullmatch(_THOUSANDS, text) else cure
        raise InputError(f'{place} must be a finite number but is "{shown(text)}"; {cure}')
    return pd.Series(numbers, index=values.index)


def _with_points(values: pd.Series, place: str) -> pd.Series:
    """A column of numbers with decimal commas, with points, if all its numbers are whole or have a comma.

    Raises:
        InputError: every comma may be one between thousands.
    """
    texts = values.map(as_text)
    commas = texts.str.contains(",", regex=False)
    if not commas.any() or not texts.str.fullmatch(r"[-+]?\d*,?\d*").all():
        return values
    if texts[commas].str.fullmatch(_THOUSANDS).all():
        raise InputError(
            f'{place} may have commas before decimals or between thousands, as in "{shown(texts[commas].iloc[0])}"; '
            f"{_NO_COMMAS}"
        )
    logger.info("%s has decimal commas", place)
    return texts.str.replace(",", ".", regex=False)


def as_seconds(table: Table, column: str) -> pd.Series:
    """A column of times as seconds since 1970 (UTC), by the rule of `seconds_of`; dates such as 20011231 are read too.

    Raises:
        InputError: a time that breaks the rule.
    """
    values = table.frame[column]
    times = read_times(values, written=True)
    if times.wrong.any():
        position = int(times.wrong.argmax())
        place = f'{table.where(values.index[position])}: the timestamp (column "{shown(column)}")'
        text = shown(as_text(values.iloc[position]))
        if not text:
            raise InputError(f"{place} is missing; fill it in, or remove the column")
        raise InputError(f'{place} {TIME_RULE}, but is "{text}"; correct it, or remove the column')
    if times.unit is not None:
        first, last = (pd.to_datetime(edge, unit="s").date() for edge in (times.seconds.min(), times.seconds.max()))
        logger.info('%s: column "%s" is read as %s, from %s to %s', table.path, shown(column), times.unit, first, last)
    elif 0 <= times.seconds.max() < EARLY:
        logger.info(
            '%s: column "%s" is read as seconds, which end in %s; if it is another unit, only the order is right',
            *(table.path, shown(column), pd.to_datetime(times.seconds.max(), unit="s").date()),
        )
    return pd.Series(times.seconds, index=values.index)


def check_in_scale(table: Table, column: str, ratings: pd.Series, scale: RatingScale) -> None:
    """Raises :class:`InputError` for the first rating outside of the scale."""
    wrong = ~ratings.between(scale.low, scale.high).to_numpy() & ratings.notna().to_numpy()
    if wrong.any():
        position = int(wrong.argmax())
        place = f'{table.where(ratings.index[position])}: the rating (column "{shown(column)}")'
        raise InputError(
            f"{place} must lie in the scale {scale} but is {ratings.iloc[position]:g}; "
            'correct it, or give the scale that it is on; if it means "not rated", set '
            f"missing={{{ratings.iloc[position]:g}: drop}}"
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
