"""The roles of a file's columns."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Mapping

from metarec.errors import InputError, shown
from metarec.ratings._tables import Table
from metarec.registry import suggest

__all__ = ["ROLES", "check_columns", "find_columns", "find_weights", "plain_name"]

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

_OF_EVENTS = ("weight", "event")
"""Roles that matter only where something has no rating."""

_LIKE_RATING = 0.8
"""The likeness, by difflib, from which a column without a role is a misspelled rating."""


def plain_name(name: str) -> str:
    """A column's name without case, punctuation and RecBole's type: ``"User_ID:token"`` -> ``"userid"``."""
    return re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower())


def check_columns(columns: Mapping[str, str] | None) -> dict[str, str]:
    """The given names of columns, role -> column.

    Raises:
        InputError: an unknown role.
    """
    for role in columns or {}:
        if role not in ROLES:
            raise InputError(f'columns: unknown role "{shown(role)}"; {suggest(str(role), ROLES)}')
    return {role: str(name) for role, name in (columns or {}).items()}


def find_columns(table: Table, given: Mapping[str, str]) -> dict[str, str]:
    """The columns of a table of feedback, role -> column; user and item are always among them.

    Without a rating among them, the table has implicit feedback.

    Raises:
        InputError: a column that is missing, or listed twice, or what seems to be a misspelled column of ratings.
    """
    found = _found(table, given, (role for role in ROLES if role not in _OF_EVENTS))
    names = [str(name) for name in table.frame.columns]
    free = [name for name in names if name not in found.values()]
    misspelled = difflib.get_close_matches("rating", map(plain_name, free), n=1, cutoff=_LIKE_RATING)
    for role in ("user", "item", "rating") if misspelled else ("user", "item"):
        if role not in found:
            raise InputError(_missing(table, role, names))
    return found


def find_weights(table: Table, given: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """The columns of weights and of events' names, as far as there are any, role -> column.

    Args:
        table: a table in which some rows have no rating.
        given: the given names of columns, by role.
        found: what `find_columns` found.

    Raises:
        InputError: as `find_columns`.
    """
    others = {role: column for role, column in found.items() if role not in given}
    both = _found(table, {**others, **given}, (*found, *_OF_EVENTS))
    return {role: both[role] for role in _OF_EVENTS if role in both}


def _found(table: Table, given: Mapping[str, str], roles: Iterable[str]) -> dict[str, str]:
    names = [str(name) for name in table.frame.columns]
    found: dict[str, str] = {}
    for role in roles:
        if role in given:
            found[role] = _given_column(table, role, given[role], names)
        elif column := _usual_column(table, ROLES[role], taken=list(given.values())):
            found[role] = column
    for role, column in found.items():
        if names.count(column) > 1:
            raise InputError(f'{table.path}: two columns are named "{shown(column)}"; rename or remove one of them')
        for other in found:
            if other != role and found[other] == column:
                raise InputError(f'{table.path}: column "{shown(column)}" cannot be both {role} and {other}')
    return found


def _usual_column(table: Table, usual: tuple[str, ...], taken: list[str]) -> str | None:
    by_plain = {plain_name(name): name for name in reversed(table.frame.columns) if name not in taken}
    matches = [by_plain[name] for name in usual if name in by_plain]
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
