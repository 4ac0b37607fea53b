"""Feature tables of items and users: one row an id, without columns that leak ratings."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings._clean import as_ids
from metarec.ratings._columns import ROLES
from metarec.ratings.tables import MOST_COLUMNS, Table, plain_name
from metarec.registry import suggest

__all__ = ["read_features", "titles_of"]

logger = logging.getLogger(__name__)

_AGGREGATES = ("rating", "ratings", "vote", "votes", "review", "reviews", "score", "scores", "stars", "popularity")
_COUNTS = ("playcount", "plays", "listeners", "members")
_FOR_AGES = frozenset(("content", "age", "mpaa", "parental", "maturity"))
_NUMBERED_CLASSES = ("category", "genre", "type", "class", "tag", "language")
_TITLES = ("title", "movietitle", "name")
_PROSE = ("title", "name", "text", "description", "summary")
_YEAR = re.compile(r"\((\d{4})\)\s*$")


def read_features(table: Table, key: str, in_feedback: str) -> pd.DataFrame:
    """Features of items or users from a file's table.

    Numbers become float64; other columns stay text, lists as ``a|b``. Columns that sum up ratings are dropped with a
    warning, because they include ratings of test users. Where titles end in a year and no column holds it, a column
    `year` is added. The first row of a repeated id is kept.

    Args:
        table: the file's table.
        key: ``"item"`` or ``"user"``.
        in_feedback: the column of these ids in the table of feedback; a column of this name is taken first.

    Raises:
        InputError: no column of ids, or an id that is missing.
    """
    names = [str(name) for name in table.frame.columns]
    column = _key_column(table, key, in_feedback, names)
    ids = as_ids(table, column, key)
    features: dict[str, pd.Series] = {}
    for position, name in enumerate(names):
        if name != column:
            features.update(_converted(table, name, table.frame.iloc[:, position]))
    leaking = [name for name, values in features.items() if _sums_up_ratings(name, values)]
    if leaking:
        logger.warning(
            "%s: dropped %s, which sum up ratings, also those of test users", table.path, ", ".join(map(shown, leaking))
        )
    features = {name: values for name, values in features.items() if name not in leaking and name != key}
    if key == "item" and not any("year" in plain_name(name) for name in features):
        features.update(_year_of_title(features))
    frame = pd.DataFrame({key: ids, **features})
    repeated = frame.duplicated(key)
    if repeated.any():
        logger.warning("%s: %d rows repeat an id; the first row of each is kept", table.path, repeated.sum())
    return frame[~repeated].reset_index(drop=True)


def _key_column(table: Table, key: str, in_feedback: str, names: list[str]) -> str:
    by_plain = {plain_name(name): name for name in reversed(names)}
    for usual in (plain_name(in_feedback), key, *ROLES[key], "id"):
        if usual in by_plain:
            column = by_plain[usual]
            if names.count(column) > 1:
                raise InputError(f'{table.path}: two columns are named "{shown(column)}"; rename or remove one of them')
            return column
    present = [shown(name, 30) for name in names[:20]]
    raise InputError(f"{table.path}: no column for the {key}; name it {key} in the header; {suggest(key, present)}")


def _converted(table: Table, name: str, values: pd.Series) -> dict[str, pd.Series]:
    """One column of a file as feature columns. RecBole appends types to the names: ``genre:token_seq``."""
    name, _, kind = name.partition(":")
    name = name.strip() or "unnamed"
    if kind == "float_seq":
        longest = values.astype(str).str.count(r"\S+").max()
        if longest > MOST_COLUMNS:
            raise InputError(
                f'{table.path}: a sequence has at most {MOST_COLUMNS:,} numbers but "{name}" has {longest:,}'
            )
        parts = values.astype(str).str.split(expand=True)
        return {f"{name}_{position}": pd.to_numeric(parts[position], errors="coerce") for position in parts}
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        return {name: pd.Series(values.to_numpy(dtype=np.float64, na_value=np.nan), index=values.index)}
    text = values.astype(object).where(values.notna(), "").map(str).str.strip()
    if kind == "token_seq" and not plain_name(name).endswith(_PROSE):
        return {name: text.str.split().str.join("|")}
    plain = plain_name(name)
    is_year = plain.endswith("year")
    if is_year or not (kind.startswith("token") or plain.endswith(_NUMBERED_CLASSES)):
        numbers = pd.to_numeric(text, errors="coerce").astype(np.float64).replace([np.inf, -np.inf], np.nan)
        if numbers.notna().any() and (is_year or (numbers.notna() | (text == "")).all()):
            return {name: numbers}
    return {name: text}


def _sums_up_ratings(name: str, values: pd.Series) -> bool:
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    if values.dtype == object or _FOR_AGES & set(words):
        return False
    return "".join(words) in _COUNTS or any(
        word.startswith(_AGGREGATES) or word.endswith(_AGGREGATES) for word in words
    )


def titles_of(items: pd.DataFrame | None) -> dict[str, str]:
    """Item -> its title, from a table of item features; empty where there are no titles."""
    for name in items.columns if items is not None else ():
        if items is not None and plain_name(str(name)) in _TITLES and items[name].dtype == object:
            titled = items[items[name].notna() & (items[name] != "")]
            return dict(zip(titled["item"], titled[name].map(str), strict=True))
    return {}


def _year_of_title(features: Mapping[str, pd.Series]) -> dict[str, pd.Series]:
    for name, values in features.items():
        if plain_name(name) in _TITLES and values.dtype == object:
            years = pd.to_numeric(values.str.extract(_YEAR)[0], errors="coerce").astype(np.float64)
            return {"year": years} if years.notna().any() else {}
    return {}
