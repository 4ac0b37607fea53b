"""From a path to domains."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from metarec.errors import InputError, check_positive, shown
from metarec.ratings._clean import (
    as_event_weights,
    as_ids,
    as_ratings,
    as_seconds,
    as_weights,
    check_in_scale,
    latest_only,
    latest_ratings,
)
from metarec.ratings._columns import check_columns, find_columns, find_weights
from metarec.ratings._domain import Domain, Feedback, RatingScale
from metarec.ratings._features import read_features
from metarec.ratings._files import suffix_of
from metarec.ratings._layouts import NAMED_BY_FOLDER, Source, find_source, load
from metarec.ratings._parquet import read_parquet
from metarec.ratings._scale import as_scale, infer_scale
from metarec.ratings._tables import Table
from metarec.registry import suggest

__all__ = ["read_domain", "read_domains", "read_rows"]

logger = logging.getLogger(__name__)


def read_domain(
    path: str | Path,
    name: str | None = None,
    *,
    scale: RatingScale | Sequence[float] | str | None = None,
    columns: Mapping[str, str] | None = None,
    event_weights: Mapping[str, float] | None = None,
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
        path: the file or folder; ``~`` is expanded.
        name: the domain's name; by default that of the domain column, the folder, or the file.
        scale: the rating scale, also as ``(1, 5)`` or ``"1..5"``; by default the one that `infer_scale` finds.
        columns: names of columns that are not found automatically, such as ``{"user": "who", "rating": "mark"}``;
            the roles are user, item, rating, timestamp, domain, weight and event.
        event_weights: the weight of each name in a column of events, as in ``{"view": 1, "buy": 5}``; a row's own
            weight is multiplied by it.

    Raises:
        InputError: the path, the file, a row, or an argument breaks a rule.
    """
    reading = _open(path, columns, event_weights)
    if reading.wanted is None and len(reading.domains) > 1:
        values = list(reading.domains)
        raise InputError(
            f"{reading.table.path}: the column {reading.columns['domain']} holds {len(values)} domains "
            f"({shown(', '.join(values), 80)}); choose one, as in {shown(path, 200)}#{shown(values[0])}, "
            "or read them all with read_domains"
        )
    value = reading.wanted or next(iter(reading.domains), None)
    return reading.domain(value, name or value or reading.default_name, scale)


def read_domains(
    path: str | Path,
    name: str | None = None,
    *,
    scale: RatingScale | Sequence[float] | str | None = None,
    columns: Mapping[str, str] | None = None,
    event_weights: Mapping[str, float] | None = None,
) -> dict[str, Domain]:
    """Read every domain of a file or folder: one for each value of its column `domain`, or one without such a column.

    Args:
        path: as for `read_domain`.
        name: the prefix of the values of the domain column (``shopping-8``); without such a column, or for a path that
            selects one domain, the domain's name.
        scale: as for `read_domain`; by default inferred for each domain separately.
        columns: as for `read_domain`.
        event_weights: as for `read_domain`.

    Returns:
        name -> domain, in the order of the values, numbers as numbers.

    Raises:
        InputError: as `read_domain`.
    """
    reading = _open(path, columns, event_weights)
    if reading.wanted is not None or not reading.domains:
        single = reading.domain(reading.wanted, name or reading.wanted or reading.default_name, scale)
        return {single.name: single}
    named = {f"{name}-{value}" if name else value: value for value in reading.domains}
    return {full: reading.domain(value, full, scale) for full, value in named.items()}


def read_rows(path: Path, ids: Sequence[str], others: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of a parquet file, with ids as text in the form that `read_domain` gives them.

    Args:
        path: the file. ids: its columns of ids. others: further columns that it must have.

    Raises:
        InputError: a file that cannot be read, a column that is missing or listed twice, an id that breaks a rule.
    """
    frame = read_parquet(path)
    needed = (*ids, *others)
    for column in needed:
        if (number := list(frame.columns).count(column)) != 1:
            what = "is there twice" if number else "is missing"
            raise InputError(f'{path}: needs the columns {", ".join(needed)}, but "{column}" {what}')
    for column in ids:
        if pd.api.types.infer_dtype(frame[column]) == "mixed":
            raise InputError(f"{path}: the {column} ids must be text or numbers but are lists or structures")
    table = Table(path, frame)
    return frame.assign(**{column: as_ids(table, column, column) for column in ids})


@dataclass(frozen=True)
class _Reading:
    """The raw tables of an opened path.

    Attributes:
        table: the feedback; columns: role -> its column; given: the names of columns that the caller gave.
        event_weights: as for `read_domain`.
        domains: value of the domain column -> its rows; empty without such a column.
        items, users: feature tables, or None.
        wanted: the domain that the path selects.
        default_name: the name of a domain without another one.
    """

    table: Table
    columns: Mapping[str, str]
    given: Mapping[str, str]
    event_weights: Mapping[str, float] | None
    domains: Mapping[str, pd.Index]
    items: pd.DataFrame | None
    users: pd.DataFrame | None
    wanted: str | None
    default_name: str

    def domain(self, value: str | None, name: str, scale: RatingScale | Sequence[float] | str | None) -> Domain:
        table, items = self.table, self.items
        place = str(table.path)
        if value is not None:
            table = Table(table.path, table.frame.loc[self.domains[value]], table.records)
            place = f"{place}#{shown(value)}"
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
            return _inferred(rows["rating"].dropna(), place, name) if "rating" in rows else None
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


def _open(path: str | Path, columns: Mapping[str, str] | None, event_weights: Mapping[str, float] | None) -> _Reading:
    given = check_columns(columns)
    for event, weight in (event_weights or {}).items():
        check_positive(**{f"event_weights.{shown(event, 30)}": weight})
    try:
        folder_or_file, wanted = _split(path)
        source = find_source(folder_or_file)
    except OSError as error:
        cure = "check the path and its permissions"
        raise InputError(f"{shown(path, 200)}: cannot be read ({error.strerror}); {cure}") from error
    table = load(source.ratings)
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
        domains,
        None if source.items is None else read_features(load(source.items), "item", given),
        None if source.users is None else read_features(load(source.users), "user", given),
        wanted,
        _default_name(source, folder_or_file),
    )


def _natural(value: str) -> tuple[int, str]:
    return (len(value), value) if value.isdigit() else (0, value)


def _split(path: str | Path) -> tuple[Path, str | None]:
    """``ciao#8`` -> the path of ciao, and 8; an existing file with a # in its name takes precedence."""
    whole = Path(os.path.expanduser(path))
    before, mark, wanted = whole.name.rpartition("#")
    if not mark or not before or whole.exists():
        return whole, None
    return whole.with_name(before), wanted


def _default_name(source: Source, path: Path) -> str:
    if path.is_dir() or source.ratings.name.lower().startswith(NAMED_BY_FOLDER):
        return source.ratings.resolve().parent.name or "ratings"
    return path.name.removesuffix(".gz").removesuffix(suffix_of(path)) or path.name
