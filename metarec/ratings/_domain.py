"""A domain: a table of ratings on one rating scale."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd

from metarec.errors import InputError, check_name, shown

__all__ = ["TIMES", "Domain", "RatingScale", "id_rule"]

LARGEST = 1e9
"""Bound of a scale's numbers, whose squares are summed."""

NARROWEST = 1e-6
"""Least width of a scale, absolute and for its larger bound. Predictions are float32, which has seven digits."""

TIMES = 9e18
"""Bound of timestamps, which are int64 where they are whole. Nanoseconds since 1970 are below it."""

LONGEST_ID = 1000
"""Letters in an id. Models keep ids in arrays of one width."""

Values = TypeVar("Values", float, np.ndarray, Any)


@dataclass(frozen=True)
class RatingScale:
    """The lowest and the highest possible rating, with the maps to the unit scale and back.

    >>> RatingScale(1, 5).to_unit(4.0)
    0.75
    >>> RatingScale(1, 5).to_ratings(0.75)
    4.0
    >>> str(RatingScale(0.5, 5))
    '0.5..5'

    Raises:
        InputError: bounds that are no numbers, not in order, too large, or too close to each other.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            if isinstance(bound, bool | np.bool_) or not isinstance(bound, Real):
                raise InputError(f"a rating scale must have two numbers but got {type(bound).__name__} {shown(bound)}")
            # A comparison with NaN is false.
            if not -LARGEST <= bound <= LARGEST:
                raise InputError(
                    f"a rating scale must lie between {-LARGEST:g} and {LARGEST:g} but got {shown(bound)}; "
                    "correct the ratings or the scale"
                )
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))
        narrowest = NARROWEST * max(1.0, abs(self.low), abs(self.high))
        if not self.span >= narrowest:
            raise InputError(
                f"a rating scale must have low < high, at least {narrowest:g} apart, "
                f"but got {self.low!r}..{self.high!r}"
            )

    @property
    def span(self) -> float:
        """Width in the domain's own units: a unit-scale error times this is an error in ratings."""
        return self.high - self.low

    def to_unit(self, ratings: Values) -> Values:
        """Ratings (a number, an array or a tensor) -> the unit scale, low to 0 and high to 1."""
        return (ratings - self.low) / self.span

    def to_ratings(self, unit: Values) -> Values:
        """The inverse of `to_unit`."""
        return unit * self.span + self.low

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"


@dataclass(frozen=True, eq=False)
class Domain:
    """One table of ratings with one rating scale, and optional item and user features.

    Tables are copied when the domain is built; treat them as read-only.

    >>> ratings = pd.DataFrame({"user": ["a", "b"], "item": ["x", "x"], "rating": [4.0, 2.0]})
    >>> Domain("films", ratings, RatingScale(1, 5)).without({"b"}).num_users
    1

    Args:
        name: the domain's name in specs, tables and runs.
        ratings: columns ``user`` and ``item`` (strings), ``rating`` (a number), and optionally ``timestamp``.
        scale: the rating scale; every rating lies in it.
        items: column ``item`` and feature columns, one row an item.
        users: column ``user`` and feature columns, one row a user.
        feedback: only ``"explicit"`` ratings can be fused.

    Raises:
        InputError: a name that :func:`~metarec.errors.check_name` refuses, a missing column, an id that is no string or
            breaks `id_rule`, a rating that is not finite or not in the scale, a timestamp out of range, a user-item
            pair, an item or a user that is listed twice.
    """

    name: str
    ratings: pd.DataFrame
    scale: RatingScale
    items: pd.DataFrame | None = None
    users: pd.DataFrame | None = None
    feedback: Literal["explicit"] = "explicit"

    def __post_init__(self) -> None:
        check_name("the name of a domain", self.name)
        if self.feedback != "explicit":
            raise InputError(f'domain "{self.name}": feedback must be "explicit" but got {self.feedback!r}')
        object.__setattr__(self, "ratings", _checked_ratings(self.name, self.ratings, self.scale))
        for table, key in ((self.items, "item"), (self.users, "user")):
            if table is not None:
                object.__setattr__(self, f"{key}s", _checked_features(self.name, table, key))

    @property
    def has_timestamps(self) -> bool:
        return "timestamp" in self.ratings.columns

    @property
    def num_users(self) -> int:
        """Users with a rating."""
        return len(self._user_codes[1])

    @property
    def num_items(self) -> int:
        """Items with a rating."""
        return self.ratings["item"].nunique()

    @cached_property
    def item_index(self) -> pd.Index:
        """The rated items in the order of their ids, one object for all bases that are fitted on the domain."""
        return pd.Index(np.sort(self.ratings["item"].unique()), dtype=object)

    def without(self, users: Collection[str]) -> Domain:
        """The same domain without the ratings of these users."""
        return self._with_rows(~self._rows_of(users))

    def restrict(self, users: Collection[str]) -> Domain:
        """The same domain with the ratings of these users only."""
        return self._with_rows(self._rows_of(users))

    def fingerprint(self) -> str:
        """Hex sha256 of the content, independent of row order and of the name."""
        digest = hashlib.sha256(f"{self.scale.low!r} {self.scale.high!r} {self.feedback}".encode())
        for table in (self.ratings, self.items, self.users):
            digest.update(b"none" if table is None else _table_bytes(table))
        return digest.hexdigest()

    @cached_property
    def _user_codes(self) -> tuple[np.ndarray, np.ndarray]:
        codes, names = pd.factorize(self.ratings["user"])
        return codes, np.asarray(names, dtype=object)

    def _rows_of(self, users: Collection[str]) -> np.ndarray:
        codes, names = self._user_codes
        wanted = set(users)
        return np.fromiter((name in wanted for name in names), bool, len(names))[codes]

    def _with_rows(self, rows: np.ndarray) -> Domain:
        # Rows of a checked table need no second check; every fit of every base calls this.
        copy = object.__new__(Domain)
        for field in ("name", "scale", "items", "users", "feedback"):
            object.__setattr__(copy, field, getattr(self, field))
        object.__setattr__(copy, "ratings", self.ratings[rows].reset_index(drop=True))
        return copy


def _table_bytes(table: pd.DataFrame) -> bytes:
    """Column names, and the rows' hashes in an order that does not depend on the rows' order."""
    columns = sorted(table.columns, key=str)
    # Objects may be lists, which pandas cannot hash.
    plain = {str(name): table[name].astype(str) if table[name].dtype == object else table[name] for name in columns}
    hashes = pd.util.hash_pandas_object(pd.DataFrame(plain), index=False).to_numpy()
    return repr(list(plain)).encode() + np.sort(hashes).tobytes()


def _checked_ratings(name: str, ratings: pd.DataFrame, scale: RatingScale) -> pd.DataFrame:
    columns = [column for column in ("user", "item", "rating", "timestamp") if column in ratings.columns]
    missing = [column for column in ("user", "item", "rating") if column not in columns]
    if missing:
        raise InputError(
            f'domain "{name}": ratings need the columns user, item and rating, but {", ".join(missing)} is missing; '
            f"there are {', '.join(map(str, ratings.columns)) or 'none'}"
        )
    ratings = ratings[columns].reset_index(drop=True)
    for key in ("user", "item"):
        ratings[key] = _checked_ids(name, ratings[key], key)
    for key in ("rating", "timestamp"):
        if key in columns:
            ratings[key] = _checked_numbers(name, ratings[key], key)
    values = ratings["rating"].astype(np.float64)
    wrong = ~((values >= scale.low) & (values <= scale.high)).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f'domain "{name}": every rating must lie in {scale} but row {row} holds {values[row]:g}; '
            "correct it, or give another scale"
        )
    ratings["rating"] = values
    repeated = ratings.duplicated(["user", "item"])
    if repeated.any():
        first = ratings.loc[repeated.idxmax()]
        raise InputError(
            f'domain "{name}": a user rates an item once, but user "{shown(first["user"])}" rates item '
            f'"{shown(first["item"])}" again; keep one of these rows'
        )
    return ratings


def _checked_numbers(name: str, column: pd.Series, key: str) -> pd.Series:
    if not pd.api.types.is_numeric_dtype(column):
        raise InputError(f'domain "{name}": every {key} must be a number but the column has type {column.dtype}')
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(numbers).all():
        row = int((~np.isfinite(numbers)).argmax())
        raise InputError(f'domain "{name}": every {key} must be finite but row {row} holds {numbers[row]}; correct it')
    if not (np.abs(numbers) <= TIMES).all():
        row = int((np.abs(numbers) > TIMES).argmax())
        raise InputError(
            f'domain "{name}": every {key} must lie between {-TIMES:g} and {TIMES:g} but row {row} holds '
            f"{numbers[row]:g}; correct it"
        )
    return column.astype(np.int64 if pd.api.types.is_integer_dtype(column) else np.float64)


def _checked_features(name: str, table: pd.DataFrame, key: str) -> pd.DataFrame:
    if key not in table.columns:
        raise InputError(
            f'domain "{name}": the table of {key}s needs a column "{key}"; there are '
            f"{', '.join(map(str, table.columns)) or 'none'}"
        )
    table = table.reset_index(drop=True)
    table[key] = _checked_ids(name, table[key], key)
    repeated = table[key][table[key].duplicated()]
    if len(repeated):
        raise InputError(f'domain "{name}": the {key}s list "{shown(repeated.iloc[0])}" twice; keep one of these rows')
    return table


def _checked_ids(name: str, ids: pd.Series, key: str) -> pd.Series:
    if (wrong := next((value for value in ids if not isinstance(value, str)), "")) != "":
        raise InputError(f'domain "{name}": {key} ids must be strings but got {wrong!r:.60}; convert them with str')
    # pandas' unique takes texts that differ after a NUL for equal.
    for value in dict.fromkeys(ids):
        if rule := id_rule(value):
            raise InputError(f'domain "{name}": the {key} id "{shown(value)}" {rule}; correct it')
    return ids.astype(object)


def id_rule(value: str) -> str | None:
    """The rule that an id breaks; None for a good one.

    Models keep ids in arrays, which have the width of the longest one and drop a NUL at the end. Hashes need UTF-8.
    """
    if not value:
        return "must not be empty"
    if len(value) > LONGEST_ID:
        return f"must have at most {LONGEST_ID:,} letters but has {len(value):,}"
    if value.isascii() and "\0" not in value:
        return None
    wrong = next((letter for letter in value if letter == "\0" or "\ud800" <= letter <= "\udfff"), None)
    return None if wrong is None else f"must not hold the letter {shown(wrong)}"
