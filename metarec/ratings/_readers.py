"""From a path to domains."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from metarec.errors import InputError, check_positive, shown
from metarec.ratings._clean import (
    as_event_weights,
    as_finite,
    as_ids,
    as_ratings,
    as_seconds,
    as_weights,
    check_in_scale,
    latest_only,
    latest_ratings,
)
from metarec.ratings._columns import answers_left_out, check_columns, find_columns, find_weights, hints_of
from metarec.ratings._domain import Domain, Feedback, RatingScale
from metarec.ratings._features import read_features
from metarec.ratings._missing import Fate, check_missing, warn_of_unrated, without_missing
from metarec.ratings._scale import as_scale, infer_scale
from metarec.ratings.tables import NAMED_BY_FOLDER, Hints, Source, Table, find_source, load, read_frame, suffix_of
from metarec.registry import suggest

__all__ = ["read_domain", "read_domains", "read_rows"]

logger = logging.getLogger(__name__)

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The beginning of an address such as ``s3://bucket``; a disk of Windows has one letter."""


def read_domain(
    path: str | Path | pd.DataFrame,
    name: str | None = None,
    *,
    scale: RatingScale | Sequence[float] | str | None = None,
    columns: Mapping[str, str | None] | None = None,
    event_weights: Mapping[str, float] | None = None,
    missing: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> Domain:
    """Read one domain from a file, or from a folder with ``ratings.*`` and, where there are any, ``items.*``.

    A table without ratings is implicit feedback, one in which some ratings are missing is mixed. Each event has a
    weight, which is found under names such as ``weight``, ``count``, ``plays``, ``hours`` and ``quantity``, and is 1
    without such a column. Weights of a repeated user-item pair are added up.

    Formats: csv, tsv and parquet (each also ``.gz``), MovieLens' own files and RecBole's atomic files. Ids are strings.
    The latest rating of a repeated user-item pair is kept. A file with a column `domain` holds several domains:
    ``"ciao#8"`` reads the one named 8.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "films.csv"
    >>> _ = path.write_text("userId,movieId,rating\\n1,10,4\\n2,10,1\\n")
    >>> domain = read_domain(path)
    >>> domain.name, str(domain.scale), list(domain.ratings["item"])
    ('films', '1..5', ['10', '10'])

    Args:
        path: the file or folder; ``~`` is expanded. A DataFrame is read as a parquet file with it would be.
        name: the domain's name; by default that of the domain column, the folder, or the file.
        scale: the rating scale, also as ``(1, 5)`` or ``"1..5"``; by default the one that `infer_scale` finds.
        columns: names of columns that are not found automatically, such as ``{"user": "who", "rating": "mark"}``;
            the roles are user, item, rating, timestamp, domain, weight and event. None stands for no such column.
        event_weights: the weight of each name in a column of events, as in ``{"view": 1, "buy": 5}``; a row's own
            weight is multiplied by it.
        missing: ratings that mean "not rated", and what becomes of their rows, as in ``{"0": "drop"}`` or
            ``{"-1": "event"}``; "blank" stands for an empty one, which is an event by default. A warning names values
            that seem to be such.
        encoding: of text files, by Python's name, such as ``"gb18030"``; by default UTF-8, or else a guess with a
            warning.

    Raises:
        InputError: the path, the file, a row, or an argument breaks a rule.
    """
    reading = _open(path, columns, event_weights, missing, encoding)
    if reading.wanted is None and len(reading.domains) > 1:
        values, column = list(reading.domains), reading.columns["domain"]
        cure = f"choose one, as in {shown(path, 200)}#{shown(values[0])}, or read them all with read_domains"
        if isinstance(path, pd.DataFrame):
            cure = f"give the rows of one of them, as in frame[frame[{shown(column)!r}] == {shown(values[0])!r}]"
        raise InputError(
            f"{reading.table.path}: the column {column} holds {len(values)} domains "
            f"({shown(', '.join(values), 80)}); {cure}; if the column holds something else, set columns.domain= "
            "(nothing)"
        )
    value = reading.wanted or next(iter(reading.domains), None)
    return reading.domain(value, name or value or reading.default_name, scale)


def read_domains(
    path: str | Path,
    name: str | None = None,
    *,
    scale: RatingScale | Sequence[float] | str | None = None,
    columns: Mapping[str, str | None] | None = None,
    event_weights: Mapping[str, float] | None = None,
    missing: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> dict[str, Domain]:
    """Read every domain of a file or folder: one for each value of its column `domain`, or one without such a column.

    Args:
        path: as for `read_domain`.
        name: the prefix of the values of the domain column (``shopping-8``); without such a column, or for a path that
            selects one domain, the domain's name.
        scale: as for `read_domain`; by default inferred for each domain separately.
        columns: as for `read_domain`. event_weights: the same. missing: the same. encoding: the same.

    Returns:
        name -> domain, in the order of the values, numbers as numbers.

    Raises:
        InputError: as `read_domain`.
    """
    reading = _open(path, columns, event_weights, missing, encoding)
    if reading.wanted is not None or not reading.domains:
        single = reading.domain(reading.wanted, name or reading.wanted or reading.default_name, scale)
        return {single.name: single}
    named = {f"{name}-{value}" if name else value: value for value in reading.domains}
    return {full: reading.domain(value, full, scale) for full, value in named.items()}


def read_rows(
    path: Path, ids: Sequence[str], needed: Sequence[str] = (), numbers: Sequence[str] = (), times: Sequence[str] = ()
) -> pd.DataFrame:
    """The rows of a file in any format of `read_domain`, with ids, numbers and times as it gives them.

    Args:
        path: the file. ids: its columns of ids. needed: further columns that it must have. numbers, times: columns of
            finite numbers and of times, as far as they are there.

    Raises:
        InputError: a file that cannot be read, a column that is missing or listed twice, an id, a number or a time that
            breaks a rule.
    """
    table = load(path, hints_of({}))
    frame = table.frame
    for column in (*ids, *needed):
        if (number := list(frame.columns).count(column)) != 1:
            what = "is there twice" if number else "is missing"
            raise InputError(f'{path}: needs the columns {", ".join((*ids, *needed))}, but "{column}" {what}')
    read = {column: as_ids(table, column, column) for column in ids}
    read |= {column: as_finite(table, column, column) for column in numbers if column in frame}
    return frame.assign(**read, **{column: as_seconds(table, column) for column in times if column in frame})


@dataclass(frozen=True)
class _Reading:
    """The raw tables of an opened path.

    Attributes:
        table: the feedback; columns: role -> its column; given: the names of columns that the caller gave.
        event_weights, missing: as for `read_domain`.
        domains: value of the domain column -> its rows; empty without such a column.
        items, users: feature tables, or None.
        wanted: the domain that the path selects.
        default_name: the name of a domain without another one.
    """

    table: Table
    columns: Mapping[str, str]
    given: Mapping[str, str | None]
    event_weights: Mapping[str, float] | None
    missing: Mapping[str, Fate]
    domains: Mapping[str, pd.Index]
    items: pd.DataFrame | None
    users: pd.DataFrame | None
    wanted: str | None
    default_name: str

    def domain(self, value: str | None, name: str, scale: RatingScale | Sequence[float] | str | None) -> Domain:
        table, items = self.table, self.items
        place = str(table.path)
        if value is not None:
            table = replace(table, frame=table.frame.loc[self.domains[value]])
            place = f"{place}#{shown(value)}"
        if self.missing and "rating" in self.columns:
            table = without_missing(table, self.columns["rating"], self.missing)
        ratings = self._rows(table)
        rating_scale = self._scale(table, ratings, scale, place, name)
        feedback = _feedback_of(ratings)
        if feedback == "explicit":
            ratings = latest_only(ratings, place)
        else:
            ratings["weight"] = self._weights(table, ratings, place)
        if feedback == "mixed":
            ratings = latest_ratings(ratings, place)
        if ratings["user"].nunique() < 2:
            raise InputError(
                f'{place}: only one user ("{shown(ratings["user"].iloc[0])}"), and a fusion is learned from many; '
                "give the ratings of more users"
            )
        if items is not None:
            rated = items["item"].isin(ratings["item"])
            if not rated.any():
                logger.warning("%s: no described item is rated; do items and ratings use the same ids?", place)
            # A file of many domains describes the items of all of them.
            items = items[rated] if len(self.domains) > 1 else items
        return Domain(name, ratings, rating_scale, items, self.users, feedback)

    def _rows(self, table: Table) -> pd.DataFrame:
        columns = self.columns
        rows = {"user": as_ids(table, columns["user"], "user"), "item": as_ids(table, columns["item"], "item")}
        if "rating" in columns:
            rows["rating"] = as_ratings(table, columns["rating"])
        if "timestamp" in columns:
            rows["timestamp"] = as_seconds(table, columns["timestamp"])
        return pd.DataFrame(rows)

    def _scale(
        self,
        table: Table,
        rows: pd.DataFrame,
        given: RatingScale | Sequence[float] | str | None,
        place: str,
        name: str,
    ) -> RatingScale | None:
        if given is None:
            if "rating" not in rows:
                return None
            warn_of_unrated(rows["rating"].dropna(), place)
            return _inferred(rows["rating"].dropna(), place, name)
        if "rating" not in rows:
            raise InputError(
                f"{place}: a scale is given, but there is no column of ratings; say which column has them with "
                "columns.rating=NAME, or leave out the scale"
            )
        scale = as_scale(given)
        check_in_scale(table, self.columns["rating"], rows["rating"], scale)
        return scale

    def _weights(self, table: Table, rows: pd.DataFrame, place: str) -> pd.Series:
        """The weight of each row: its own one times that of its event."""
        columns = find_weights(table, self.given, self.columns)
        weights = pd.Series(1.0, index=table.frame.index)
        if "weight" in columns:
            weights = as_weights(table, columns["weight"])
        if "event" in columns:
            weights = weights * as_event_weights(table, columns["event"], self.event_weights)
        elif self.event_weights:
            logger.warning("%s: event_weights are not used, because there is no column of events", place)
        origin = " times ".join(f'column "{shown(column)}"' for column in columns.values()) or "1"
        if _feedback_of(rows) == "mixed":
            unrated = rows["rating"].isna().sum()
            logger.warning(
                "%s: %d of %d rows have no rating and are read as events; weight: %s", place, unrated, len(rows), origin
            )
        else:
            logger.info("%s: no column of ratings, so the rows are read as events; weight: %s", place, origin)
            for column in answers_left_out(table, [*self.columns.values(), *columns.values()]):
                logger.warning(
                    '%s: the column "%s" has two answers and is not read, so a row is an event with either of them; '
                    "keep the rows that are events, or write 0 and 1 and name the column with columns.rating",
                    *(place, shown(column)),
                )
        return weights


def _feedback_of(rows: pd.DataFrame) -> Feedback:
    if "rating" not in rows:
        return "implicit"
    return "mixed" if rows["rating"].isna().any() else "explicit"


def _inferred(ratings: pd.Series, place: str, name: str) -> RatingScale:
    try:
        scale = infer_scale(ratings)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    logger.info('domain "%s": scale %s inferred from the ratings in %s', name, scale, place)
    return scale


def _open(
    path: str | Path | pd.DataFrame,
    columns: Mapping[str, str | None] | None,
    event_weights: Mapping[str, float] | None,
    missing: Mapping[str, str] | None,
    encoding: str | None,
) -> _Reading:
    given, fates = check_columns(columns), check_missing(missing)
    for event, weight in (event_weights or {}).items():
        check_positive(**{f"event_weights.{shown(event, 30)}": weight})
    source, default_name, wanted = Source(Path()), "ratings", None
    hints = hints_of(given, encoding)
    if isinstance(path, pd.DataFrame):
        table = read_frame(path)
    else:
        try:
            folder_or_file, wanted = _split(path)
            source = find_source(folder_or_file)
        except OSError as error:
            cure = "check the path and its permissions"
            raise InputError(f"{shown(path, 200)}: cannot be read ({error.strerror}); {cure}") from error
        table, default_name = load(source.ratings, hints), _default_name(source, folder_or_file)
    roles = find_columns(table, given)
    domains: dict[str, pd.Index] = {}
    if "domain" in roles:
        values = as_ids(table, roles["domain"], "domain")
        groups = values.groupby(values).groups
        domains = {value: groups[value] for value in sorted(groups, key=_natural)}
    if wanted is not None and not domains:
        cure = f"leave out #{shown(wanted)}"
        raise InputError(f'{table.path}: there is no column domain to choose "{shown(wanted)}" from; {cure}')
    if wanted is not None and wanted not in domains:
        raise InputError(f'{table.path}: no domain "{shown(wanted)}"; {suggest(wanted, map(shown, domains))}')
    return _Reading(
        table,
        roles,
        given,
        event_weights,
        fates,
        domains,
        _features(source.items, "item", roles, hints),
        _features(source.users, "user", roles, hints),
        wanted,
        default_name,
    )


def _features(path: Path | None, key: str, roles: Mapping[str, str], hints: Hints) -> pd.DataFrame | None:
    """The features of items or users, as far as there are any that can be read: ratings are worth more than these."""
    if path is None:
        return None
    try:
        return read_features(load(path, hints), key, roles[key])
    except InputError as error:
        logger.warning("%s; the features of %ss are left out", error, key)
        return None


def _natural(value: str) -> tuple[int, str]:
    return (len(value), value) if value.isdigit() else (0, value)


def _split(path: str | Path) -> tuple[Path, str | None]:
    """``ciao#8`` -> the path of ciao, and 8; an existing file with a # in its name takes precedence."""
    whole = Path(os.path.expanduser(path))
    if _ADDRESS.match(str(path)) and not whole.exists():
        raise InputError(f"{shown(path, 200)}: this is an address, not a path; download the file, and give its path")
    before, mark, wanted = whole.name.rpartition("#")
    if not mark or not before or whole.exists():
        return whole, None
    return whole.with_name(before), wanted


def _default_name(source: Source, path: Path) -> str:
    if path != source.ratings or source.ratings.name.lower().startswith(NAMED_BY_FOLDER):
        return source.ratings.resolve().parent.name or "ratings"
    stem = path.name.lower().removesuffix(".gz").removesuffix(suffix_of(path))
    return path.name[: len(stem)] or path.name
