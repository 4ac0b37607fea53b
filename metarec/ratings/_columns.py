"""The roles of a file's columns."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from metarec.errors import InputError, shown
from metarec.ratings._tables import Table
from metarec.registry import suggest

__all__ = ["ROLES", "check_columns", "find_columns", "plain_name"]

logger = logging.getLogger(__name__)

# fmt: off
_THINGS = (
    "movie", "film", "book", "product", "song", "track", "artist", "album", "joke", "anime", "manga", "game", "recipe",
    "business", "restaurant", "beer", "show", "article", "paper", "course",
)

ROLES: Mapping[str, tuple[str, ...]] = {
    "user": (
        "user", "userid", "uid", "useridx", "reviewerid", "reviewer", "customerid", "customer", "memberid", "member",
        "accountid", "account", "personid", "person", "raterid", "rater", "username",
    ),
    "item": ("item", "itemid", "iid", "parentasin", "asin", "isbn", *(f"{thing}id" for thing in _THINGS), *_THINGS),
    "rating": (
        "rating", "ratings", "ratingscore", "userrating", "starrating", "bookrating", "movierating", "score", "stars",
        "star", "overall", "rate", "grade", "mark",
    ),
    "timestamp": (
        "timestamp", "unixreviewtime", "unixtime", "time", "datetime", "date", "ratedat", "createdat", "reviewedat",
        "ratingtime", "ratingdate", "reviewtime", "reviewdate",
    ),
    "domain": ("domain",),
}
"""role -> usual names in the form of `plain_name`; the first one in the file is taken."""

_COUNTS = (
    "weight", "count", "counts", "plays", "playcount", "listens", "listencount", "clicks", "views", "purchases",
    "quantity", "interactions", "interaction",
)
# fmt: on


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
    """The columns of a table of ratings, role -> column; user, item and rating are always among them.

    Raises:
        InputError: a column that is missing, or listed twice, or a table without ratings.
    """
    names = [str(name) for name in table.frame.columns]
    found: dict[str, str] = {}
    for role, usual in ROLES.items():
        if role in given:
            found[role] = _given_column(table, role, given[role], names)
        elif column := _usual_column(table, usual, taken=list(given.values())):
            found[role] = column
    for role, column in found.items():
        if names.count(column) > 1:
            raise InputError(f'{table.path}: two columns are named "{shown(column)}"; rename or remove one of them')
        for other in found:
            if other != role and found[other] == column:
                raise InputError(f'{table.path}: column "{shown(column)}" cannot be both {role} and {other}')
    for role in ("user", "item", "rating"):
        if role not in found:
            raise InputError(_missing(table, role, names))
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
    counts = [name for name in names if plain_name(name) in _COUNTS]
    if role == "rating" and (counts or len(names) <= 2):
        what = f'column "{shown(counts[0])}" counts what users did' if counts else "only users and items"
        return (
            f"{table.path}: no column of ratings, {what}, and metarec fuses explicit ratings; give data with ratings, "
            f"or {cure}"
        )
    return f"{table.path}: no column for the {role}; {cure}"
