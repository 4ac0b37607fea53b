"""A domain: a table of feedback, which is ratings on one scale, events, or both."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import pandas as pd

from metarec.errors import InputError, check_name, shown

__all__ = ["TIMES", "Domain", "Feedback", "RatingScale", "id_rule", "rated_domains"]

LARGEST = 1e9
"""Bound of a scale's numbers, whose squares are summed."""

NARROWEST = 1e-6
"""Least width of a scale, absolute and for its larger bound. Predictions are float32, which has seven digits."""

TIMES = 9e18
"""Bound of timestamps, which are int64 where they are whole. Nanoseconds since 1970 are below it."""

LONGEST_ID = 1000
"""Letters in an id. Models keep ids in arrays of one width."""

Values = TypeVar("Values", float, np.ndarray, Any)

Feedback = Literal["explicit", "implicit", "mixed"]
"""Ratings on a scale; events, such as plays or purchases; both, of the same users."""

MaybeNone: TypeAlias = Any
"""Marks what is None in some cases, where type checkers shall not ask for a check in all of them."""

_COLUMNS: dict[Feedback, tuple[str, ...]] = {
    "explicit": ("user", "item", "rating", "timestamp"),
    "implicit": ("user", "item", "weight", "timestamp"),
    "mixed": ("user", "item", "rating", "weight", "timestamp"),
}
_OPTIONAL = ("weight", "timestamp")


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
    """One table of feedback, with optional item and user features.

    Tables are copied when the domain is built; treat them as read-only.

    Explicit feedback has one rating of a user for an item. Events may repeat: their weights are added up, and the first
    time is kept. `repeats` has the single events of such pairs, for implicit feedback with times. In mixed feedback a
    pair with a rating keeps the rating and its time, so that no rating is older than it is.

    >>> ratings = pd.DataFrame({"user": ["a", "b"], "item": ["x", "x"], "rating": [4.0, 2.0]})
    >>> Domain("films", ratings, RatingScale(1, 5)).without({"b"}).num_users
    1
    >>> plays = pd.DataFrame({"user": ["a", "b", "a"], "item": ["x", "x", "x"]})
    >>> Domain("songs", plays, feedback="implicit").ratings["weight"].tolist()
    [2.0, 1.0]

    Attributes:
        repeats: the events of all user-item pairs with events at several times, with the columns of `ratings`, one row
            for each of these times, the first one too; None where there is no such pair, and for other feedback.

    Args:
        name: the domain's name in specs, tables and runs.
        ratings: columns ``user`` and ``item`` (strings), and optionally ``timestamp``. Explicit: ``rating`` (a number).
            Implicit: optionally ``weight`` (a positive number, 1 without the column). Mixed: both, and the rating is
            NaN where only the event is known.
        scale: the rating scale; every rating lies in it. None for implicit feedback.
        items: column ``item`` and feature columns, one row an item.
        users: column ``user`` and feature columns, one row a user.
        feedback: what the table holds.

    Raises:
        InputError: a name that :func:`~metarec.errors.check_name` refuses, a missing column, a scale or a column of
            ratings that does not fit to the feedback, an id that is no string or breaks `id_rule`, a rating that is not
            finite or not in the scale, a weight that is not finite and positive, a timestamp out of range, a user-item
            pair that is rated twice, an item or a user that is listed twice.
    """

    name: str
    ratings: pd.DataFrame
    scale: RatingScale | MaybeNone = None
    items: pd.DataFrame | None = None
    users: pd.DataFrame | None = None
    feedback: Feedback = "explicit"
    repeats: pd.DataFrame | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_name("the name of a domain", self.name)
        if self.feedback not in get_args(Feedback):
            known = ", ".join(get_args(Feedback))
            raise InputError(f'domain "{self.name}": feedback must be one of {known} but got {shown(self.feedback)}')
        if (self.scale is None) != (self.feedback == "implicit"):
            rule = "needs a rating scale" if self.scale is None else f"has no rating scale but got {self.scale}"
            raise InputError(
                f'domain "{self.name}": {self.feedback} feedback {rule}; correct the scale or the feedback'
            )
        table = _checked_table(self.name, self.ratings, self.scale, self.feedback)
        object.__setattr__(self, "repeats", _repeats_of(table, self.feedback))
        object.__setattr__(self, "ratings", table if self.feedback == "explicit" else _added_up(table))
        for table, key in ((self.items, "item"), (self.users, "user")):
            if table is not None:
                object.__setattr__(self, f"{key}s", _checked_features(self.name, table, key))

    @property
    def has_timestamps(self) -> bool:
        return "timestamp" in self.ratings.columns

    @property
    def num_users(self) -> int:
        """Users with a rating or an event."""
        return len(self._user_codes[1])

    @property
    def num_items(self) -> int:
        """Items with a rating or an event."""
        return self.ratings["item"].nunique()

    @cached_property
    def item_index(self) -> pd.Index:
        """The items of the table in the order of their ids, one object for all bases that are fitted on the domain."""
        return pd.Index(np.sort(self.ratings["item"].unique()), dtype=object)

    def without(self, users: Collection[str]) -> Domain:
        """The same domain without the rows of these users."""
        return self._with_rows(~self._rows_of(users))

    def restrict(self, users: Collection[str]) -> Domain:
        """The same domain with the rows of these users only."""
        return self._with_rows(self._rows_of(users))

    def rated(self) -> Domain:
        """The explicit domain of the ratings: itself, or the rated rows of mixed feedback.

        Raises:
            InputError: there are no ratings.
        """
        if self.feedback == "explicit":
            return self
        if self.feedback == "implicit" or self.ratings["rating"].isna().all():
            raise InputError(
                f'domain "{self.name}" has no ratings, only events; use --task ranking, or name the column of ratings '
                "with columns.rating=NAME"
            )
        return self._with_rows(self.ratings["rating"].notna().to_numpy(), "explicit")

    def as_implicit(self, positive: float | None = None) -> Domain:
        """The implicit domain of the same name, for ranking.

        >>> ratings = pd.DataFrame({"user": ["a", "b"], "item": ["x", "x"], "rating": [4.0, 2.0]})
        >>> Domain("films", ratings, RatingScale(1, 5)).as_implicit(positive=4).ratings.to_dict("list")
        {'user': ['a'], 'item': ['x'], 'weight': [1.0]}

        Args:
            positive: the least rating of a row that counts as an event; by default every row does. Rows without a
                rating count always, and an implicit domain, where no row has one, is returned as it is.

        Raises:
            InputError: `positive` is outside of the scale, or no row is left.
        """
        if self.feedback == "implicit":
            return self
        rows = np.ones(len(self.ratings), dtype=bool)
        if positive is not None:
            # A comparison with NaN is false.
            if not self.scale.low <= positive <= self.scale.high:
                raise InputError(
                    f'domain "{self.name}": positive must lie in the scale {self.scale} but is {shown(positive)}; '
                    "correct it"
                )
            rows = ~(self.ratings["rating"] < positive).to_numpy()
            if not rows.any():
                highest = self.ratings["rating"].max()
                raise InputError(
                    f'domain "{self.name}": no rating is {positive:g} or more, the highest is {highest:g}; '
                    "give a lower positive"
                )
        return self._with_rows(rows, "implicit")

    def single_events(self) -> pd.DataFrame:
        """The rows of `ratings`, where a pair of a user and an item with several events has the rows of `repeats`."""
        if self.repeats is None:
            return self.ratings
        pairs, several = (pd.MultiIndex.from_frame(table[["user", "item"]]) for table in (self.ratings, self.repeats))
        return pd.concat([self.ratings[~pairs.isin(several)], self.repeats], ignore_index=True)

    def fingerprint(self) -> str:
        """Hex sha256 of the content, independent of row order and of the name."""
        scale = "no scale" if self.scale is None else f"{self.scale.low!r} {self.scale.high!r}"
        digest = hashlib.sha256(f"{scale} {self.feedback}".encode())
        for table in (self.ratings, self.items, self.users):
            digest.update(b"none" if table is None else _table_bytes(table))
        # A domain without repeats has the fingerprint that it had before there were any.
        if self.repeats is not None:
            digest.update(b"repeats" + _table_bytes(self.repeats))
        return digest.hexdigest()

    @cached_property
    def _user_codes(self) -> tuple[np.ndarray, np.ndarray]:
        codes, names = pd.factorize(self.ratings["user"])
        return codes, np.asarray(names, dtype=object)

    def _rows_of(self, users: Collection[str]) -> np.ndarray:
        codes, names = self._user_codes
        wanted = set(users)
        return np.fromiter((name in wanted for name in names), bool, len(names))[codes]

    def _with_rows(self, rows: np.ndarray, feedback: Feedback | None = None) -> Domain:
        # Rows of a checked table need no second check; every fit of every base calls this.
        feedback = feedback or self.feedback
        table = self.ratings[rows].reset_index(drop=True)
        if feedback != self.feedback:
            table = _with_columns(table, feedback)
        repeats = self.repeats
        if repeats is not None:
            repeats = repeats[repeats["user"].isin(table["user"].unique())].reset_index(drop=True)
        copy = object.__new__(Domain)
        for own in ("name", "items", "users"):
            object.__setattr__(copy, own, getattr(self, own))
        object.__setattr__(copy, "ratings", table)
        object.__setattr__(copy, "repeats", None if repeats is None or repeats.empty else repeats)
        object.__setattr__(copy, "scale", None if feedback == "implicit" else self.scale)
        object.__setattr__(copy, "feedback", feedback)
        return copy


def rated_domains(domains: Mapping[str, Domain]) -> dict[str, Domain]:
    """The explicit domain of each one, for a task that predicts ratings.

    Raises:
        InputError: a domain without ratings, see :meth:`Domain.rated`.
    """
    return {name: domain.rated() for name, domain in domains.items()}


def _table_bytes(table: pd.DataFrame) -> bytes:
    """Column names, and the rows' hashes in an order that does not depend on the rows' order."""
    columns = sorted(table.columns, key=str)
    # Objects may be lists, which pandas cannot hash.
    plain = {str(name): table[name].astype(str) if table[name].dtype == object else table[name] for name in columns}
    hashes = pd.util.hash_pandas_object(pd.DataFrame(plain), index=False).to_numpy()
    return repr(list(plain)).encode() + np.sort(hashes).tobytes()


def _with_columns(table: pd.DataFrame, feedback: Feedback) -> pd.DataFrame:
    """The columns of this feedback, in order; without weights, each is 1."""
    if feedback != "explicit" and "weight" not in table.columns:
        table = table.assign(weight=1.0)
    return table[[column for column in _COLUMNS[feedback] if column in table.columns]]


def _checked_table(name: str, table: pd.DataFrame, scale: RatingScale | None, feedback: Feedback) -> pd.DataFrame:
    needed = [column for column in _COLUMNS[feedback] if column not in _OPTIONAL]
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise InputError(
            f'domain "{name}": ratings need the columns {", ".join(needed[:-1])} and {needed[-1]}, but '
            f"{', '.join(missing)} is missing; there are {', '.join(map(str, table.columns)) or 'none'}"
        )
    if feedback == "implicit" and "rating" in table.columns:
        raise InputError(
            f'domain "{name}": implicit feedback has no ratings, but there is a column rating; remove it, name it '
            'weight, or give a scale and the feedback "explicit" or "mixed"'
        )
    table = _with_columns(table.reset_index(drop=True), feedback).copy()
    for key in ("user", "item"):
        table[key] = _checked_ids(name, table[key], key)
    for key in ("rating", "weight", "timestamp"):
        if key in table.columns:
            table[key] = _checked_numbers(name, table[key], key, gaps=key == "rating" and feedback == "mixed")
    if scale is not None:
        table["rating"] = _checked_ratings(name, table, scale)
    if feedback == "explicit":
        return table
    table["weight"] = _checked_weights(name, table["weight"])
    return table


def _checked_ratings(name: str, table: pd.DataFrame, scale: RatingScale) -> pd.Series:
    """The ratings of a table, which are NaN where only an event is known."""
    values = table["rating"].astype(np.float64)
    wrong = ((values < scale.low) | (values > scale.high)).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f'domain "{name}": every rating must lie in {scale} but row {row} holds {values[row]:g}; '
            "correct it, or give another scale"
        )
    repeated = table[values.notna()].duplicated(["user", "item"])
    if repeated.any():
        first = table.loc[repeated.idxmax()]
        raise InputError(
            f'domain "{name}": a user rates an item once, but user "{shown(first["user"])}" rates item '
            f'"{shown(first["item"])}" again; keep one of these rows'
        )
    return values


def _checked_weights(name: str, column: pd.Series) -> pd.Series:
    weights = column.astype(np.float64)
    if not (weights > 0).all():
        row = int((weights <= 0).to_numpy().argmax())
        raise InputError(
            f'domain "{name}": every weight must be positive but row {row} holds {weights[row]:g}; '
            "correct it or remove the row"
        )
    return weights


def _added_up(table: pd.DataFrame, keys: Sequence[str] = ("user", "item")) -> pd.DataFrame:
    """One row for each of these keys, with the sum of its weights: the rated row, else the first one in time."""
    if not table.duplicated(list(keys)).any():
        return table
    groups = table.groupby(list(keys), sort=False).ngroup().to_numpy()
    weights = table["weight"].to_numpy()
    # The sum of numbers in one order is the same for every order of the rows.
    by_weight = np.lexsort((weights, groups))
    starts = np.flatnonzero(np.diff(groups[by_weight], prepend=-1))
    sums = np.add.reduceat(weights[by_weight], starts)
    times = table["timestamp"].to_numpy() if "timestamp" in table else np.zeros(len(table))
    unrated = table["rating"].isna().to_numpy() if "rating" in table else np.zeros(len(table), dtype=bool)
    kept = np.sort(np.lexsort((times, unrated, groups))[starts])
    return table.iloc[kept].assign(weight=sums[groups[kept]]).reset_index(drop=True)


def _repeats_of(events: pd.DataFrame, feedback: Feedback) -> pd.DataFrame | None:
    """:attr:`Domain.repeats` of a table before it is added up."""
    if feedback != "implicit" or "timestamp" not in events:
        return None
    several = _added_up(events[events.duplicated(["user", "item"], keep=False)], ("user", "item", "timestamp"))
    several = several[several.duplicated(["user", "item"], keep=False)].reset_index(drop=True)
    return None if several.empty else several


def _checked_numbers(name: str, column: pd.Series, key: str, *, gaps: bool = False) -> pd.Series:
    """A column of finite numbers; with `gaps`, some may be missing."""
    if not pd.api.types.is_numeric_dtype(column):
        raise InputError(f'domain "{name}": every {key} must be a number but the column has type {column.dtype}')
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isfinite(numbers)
    if gaps:
        wrong &= ~np.isnan(numbers)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f'domain "{name}": every {key} must be finite but row {row} holds {numbers[row]}; correct it')
    wrong = np.abs(numbers) > TIMES
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f'domain "{name}": every {key} must lie between {-TIMES:g} and {TIMES:g} but row {row} holds '
            f"{numbers[row]:g}; correct it"
        )
    return column.astype(np.int64 if pd.api.types.is_integer_dtype(column) and not gaps else np.float64)


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
