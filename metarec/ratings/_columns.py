"""The roles of a file's columns."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping

import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings._times import EARLY
from metarec.ratings.tables import Hints, Table, is_number, plain_name
from metarec.registry import suggest

__all__ = ["ROLES", "answers_left_out", "check_columns", "find_columns", "find_weights", "hints_of"]

logger = logging.getLogger(__name__)

# fmt: off
_THINGS = (
    "movie", "film", "book", "product", "song", "track", "artist", "album", "joke", "anime", "manga", "game", "recipe",
    "business", "restaurant", "beer", "show", "article", "paper", "course",
)

ROLES: Mapping[str, tuple[str, ...]] = {
    "user": (
        "user", "userid", "uid", "useridx", "reviewerid", "reviewer", "customerid", "customer", "memberid", "member",
        "accountid", "account", "personid", "person", "raterid", "rater", "username", "visitorid", "visitor",
    ),
    "item": ("item", "itemid", "iid", "parentasin", "asin", "isbn", *(f"{thing}id" for thing in _THINGS), *_THINGS),
    "rating": (
        "rating", "ratings", "ratingscore", "userrating", "starrating", "bookrating", "movierating", "score", "stars",
        "star", "overall", "rate", "grade", "mark",
    ),
    "timestamp": (
        "timestamp", "unixreviewtime", "unixtime", "time", "datetime", "date", "ratedat", "createdat", "reviewedat",
        "ratingtime", "ratingdate", "reviewtime", "reviewdate", "eventtime", "eventdate",
    ),
    "domain": ("domain",),
    "weight": (
        "weight", "count", "counts", "plays", "playcount", "listens", "listencount", "clicks", "views", "purchases",
        "quantity", "qty", "hours", "hoursplayed", "playhours", "playtime", "interactions", "interaction",
    ),
    "event": (
        "event", "eventtype", "eventname", "action", "actiontype", "behavior", "behaviortype", "behaviour",
        "behaviourtype",
    ),
}
"""role -> usual names in the form of `plain_name`; the first one in the file is taken."""
# fmt: on

_BY_POSITION = ("user", "item", "rating", "timestamp")
"""The usual order of the columns of a file without a header; the time may be missing."""

_SAMPLE = 1000
"""Rows that show what a column without a name holds."""

_MOST = 1000
"""A larger number in a column without a name is no rating."""

_ASIN, _REVIEWER = r"B[0-9A-Z]{9}|\d{9}[\dX]", r"A[0-9A-Z]{5,}"
"""Amazon's ids of items and of users, which its editions have in different orders."""

_NEEDED = ("user", "item")
"""Roles without which there is nothing to learn from."""

_OF_EVENTS = ("weight", "event")

_ANSWERS = frozenset({"true", "false", "yes", "no", "t", "f", "y", "n", "0", "1", "0.0", "1.0", "-1"})
"""Roles that matter only where something has no rating."""

_LIKE_RATING = 0.8
"""The likeness, by difflib, from which a column without a role is a misspelled rating."""


def check_columns(columns: Mapping[str, str | None] | None) -> dict[str, str | None]:
    """The given names of columns, role -> column; None for a role that no column has.

    Raises:
        InputError: an unknown role, or no column for user or item.
    """
    for role, name in (columns or {}).items():
        if role not in ROLES:
            raise InputError(f'columns: unknown role "{shown(role)}"; {suggest(str(role), ROLES)}')
        if role in _NEEDED and not name:
            raise InputError(f"columns.{role} must name the column of the {role} ids but is empty; name it")
    return {role: str(name) if name else None for role, name in (columns or {}).items()}


def hints_of(given: Mapping[str, str | None], encoding: str | None = None) -> Hints:
    """What is known of a file before it is read.

    Args:
        given: the given names of columns, by role. encoding: of its text.
    """
    usual = {"id", *(name for names in ROLES.values() for name in names)}
    own = {plain_name(name) for name in given.values() if name and not is_number(name)}
    return Hints(usual, own, encoding)


def find_columns(table: Table, given: Mapping[str, str | None]) -> dict[str, str]:
    """The columns of a table of feedback, role -> column; user and item are always among them.

    Without a rating among them, the table has implicit feedback.

    Raises:
        InputError: a column that is missing, or listed twice, or what seems to be a misspelled column of ratings.
    """
    if not table.header:
        return _by_position(table, given)
    found = _found(table, given, (role for role in ROLES if role not in _OF_EVENTS))
    names = [str(name) for name in table.frame.columns]
    free = [name for name in names if name not in found.values()]
    misspelled = difflib.get_close_matches("rating", map(plain_name, free), n=1, cutoff=_LIKE_RATING)
    for role in (*_NEEDED, "rating") if misspelled and given.get("rating", "") is not None else _NEEDED:
        if role not in found:
            raise InputError(_missing(table, role, names))
    return found


def find_weights(table: Table, given: Mapping[str, str | None], found: Mapping[str, str]) -> dict[str, str]:
    """The columns of weights and of events' names, as far as there are any, role -> column.

    Args:
        table: a table in which some rows have no rating.
        given: the given names of columns, by role.
        found: what `find_columns` found.

    Raises:
        InputError: as `find_columns`.
    """
    if not table.header:
        return {role: column for role in _OF_EVENTS if (column := given.get(role))}
    others = {role: column for role, column in found.items() if role not in given}
    both = _found(table, {**others, **given}, (*found, *_OF_EVENTS))
    return {role: both[role] for role in _OF_EVENTS if role in both}


def answers_left_out(table: Table, taken: Iterable[str]) -> list[str]:
    """The columns with yes and no alone, as in "liked", that no role has taken.

    Args:
        taken: the columns that are read.
    """
    others = [str(name) for name in table.frame.columns if table.header and str(name) not in set(taken)]
    return [name for name in others if _has_two_answers(table.frame[name])]


def _has_two_answers(column: pd.Series | pd.DataFrame) -> bool:
    if isinstance(column, pd.DataFrame):
        # Two columns of one name; one that is read would have been refused.
        return False
    answers = {str(value).strip().lower() for value in column.dropna().unique()[:3]}
    return len(answers) == 2 and answers <= _ANSWERS


def _found(table: Table, given: Mapping[str, str | None], roles: Iterable[str]) -> dict[str, str]:
    names = [str(name) for name in table.frame.columns]
    found: dict[str, str] = {}
    for role in roles:
        name = given.get(role, "")
        if name:
            found[role] = _given_column(table, role, name, names)
        elif name is not None and (column := _usual_column(table, ROLES[role], taken=list(given.values()))):
            found[role] = column
    for role, column in found.items():
        if names.count(column) > 1:
            raise InputError(f'{table.path}: two columns are named "{shown(column)}"; rename or remove one of them')
        for other in found:
            if other != role and found[other] == column:
                raise InputError(f'{table.path}: column "{shown(column)}" cannot be both {role} and {other}')
    return found


def _by_position(table: Table, given: Mapping[str, str | None]) -> dict[str, str]:
    """The columns of a table without a header, which are named by their numbers, in the usual order of roles."""
    names = list(table.frame.columns)
    row = list(table.frame.iloc[0])
    if len(row) > 2 and row == [str(number) for number in range(len(row))]:
        raise InputError(
            f'{table.where(table.frame.index[0])}: "{shown(", ".join(row))}" may be the numbers of columns without '
            "names; remove the line, or write a header in its place if they are, and before it if it is a rating"
        )
    found = _found(table, given, given)
    roles = [role for role in _BY_POSITION if role not in given]
    free = [name for name in names if name not in found.values()]
    sample = table.frame.head(_SAMPLE)
    if not set(_NEEDED) <= found.keys():
        if len(names) > len(_BY_POSITION) or not len(roles) - 1 <= len(free):
            raise InputError(_unnamed(table, f"has {len(names)} columns"))
        if len(free) > 1 and roles[:2] == list(_NEEDED):
            asins, reviewers = (sample[free[0]].str.fullmatch(_ASIN), sample[free[1]].str.fullmatch(_REVIEWER))
            roles[:2] = reversed(_NEEDED) if asins.all() and reviewers.all() else _NEEDED
        found.update(zip(roles, free, strict=False))
        for role, fits in (("rating", _is_rating), ("timestamp", _is_time)):
            if role in found and role not in given and not fits(sample[found[role]]):
                first = shown(sample[found[role]].iloc[0], 30)
                raise InputError(_unnamed(table, f'holds "{first}" where a {role} should be'))
    where = ", ".join(f"{role} {found[role]}" for role in found)
    logger.warning("%s: the first line is no header; the columns are taken by position: %s", table.path, where)
    return found


def _is_rating(values: pd.Series) -> bool:
    numbers = pd.to_numeric(values.str.replace(",", "."), errors="coerce").abs()
    return bool((numbers.isna() | (numbers <= _MOST)).all() and numbers.notna().any())


def _is_time(values: pd.Series) -> bool:
    numbers = pd.to_numeric(values, errors="coerce")
    dates = pd.to_datetime(values[numbers.isna()], format="ISO8601", utc=True, errors="coerce")
    return bool((numbers.isna() | (numbers >= EARLY)).all() and dates.notna().all())


def _unnamed(table: Table, problem: str) -> str:
    places = "columns.user=1, columns.item=2, columns.rating=3"
    return (
        f"{table.path}: the first line is no header, and the table {problem}, which is not the usual order user, item, "
        f"rating, timestamp; write a header, or give the places of the columns, as in {places}"
    )


def _usual_column(table: Table, usual: tuple[str, ...], taken: list[str | None]) -> str | None:
    names = list(dict.fromkeys(name for name in table.frame.columns if name not in taken))
    matches = [name for wanted in usual for name in names if plain_name(name) == wanted]
    if len(matches) > 1:
        logger.info("%s: column %s is read; ignored: %s", table.path, matches[0], ", ".join(matches[1:]))
    return matches[0] if matches else None


def _given_column(table: Table, role: str, column: str, names: list[str]) -> str:
    bare = {name.split(":")[0]: name for name in names}
    if column not in names and column not in bare:
        raise InputError(
            f'{table.path}: no column "{shown(column)}", which columns.{role} asks for; '
            f"{suggest(column, (shown(name) for name in names))}"
        )
    return column if column in names else bare[column]


def _missing(table: Table, role: str, names: list[str]) -> str:
    present = [shown(name, 30) for name in names[:20]]
    cure = f"name it in the header, or say which with columns.{role}=NAME; {suggest(role, present)}"
    return f"{table.path}: no column for the {role}; {cure}"
