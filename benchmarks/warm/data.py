"""Ratings of known users, what is known about users and items, and the rows that each fold may see."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from metarec.errors import InputError

__all__ = ["Asked", "Known", "Table", "five_folds", "inner_parts", "read_table"]

SECONDS_A_DAY = 86400.0


class Asked(NamedTuple):
    """Rows whose rating is to be predicted. There is no rating in it, so nothing that gets it can look."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray


class Known(NamedTuple):
    """Rows whose rating is known. Times are days."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    ratings: np.ndarray


@dataclass(frozen=True)
class Table:
    """A table of ratings in the order of its file.

    Attributes:
        users, items: [R] codes from 0; times: [R] days; ratings: [R].
        user_features: [U, F] and item_features: [I, G], of all users and items. decades: [I] release periods.
        digest: a hash of all of it.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    ratings: np.ndarray
    user_features: np.ndarray
    item_features: np.ndarray
    decades: np.ndarray
    digest: str

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.user_features), len(self.item_features)

    def known(self, rows: np.ndarray) -> Known:
        return Known(self.users[rows], self.items[rows], self.times[rows], self.ratings[rows])

    def asked(self, rows: np.ndarray) -> Asked:
        return Asked(self.users[rows], self.items[rows], self.times[rows])


def five_folds(count: int) -> list[np.ndarray]:
    """The test rows of the five folds of Surprise's published table: its KFold with random_state 0."""
    if count % 5:
        raise InputError(f"five equal folds need a number of ratings that 5 divides, but the table has {count}")
    order = np.arange(count)
    np.random.RandomState(0).shuffle(order)
    return np.split(order, 5)


def inner_parts(rows: np.ndarray, parts: int, seed: int) -> list[np.ndarray]:
    """Training rows of a fold, in `parts` random parts that are held out in turn."""
    return np.array_split(np.random.default_rng(seed).permutation(rows), parts)


def read_table(folder: Path) -> Table:
    """Read MovieLens as atomic files: NAME.inter, NAME.user and NAME.item in the folder called NAME.

    Raises:
        InputError: a file or a column is missing, or a value is not what it has to be.
    """
    name = folder.resolve().name
    ratings = _read(folder / f"{name}.inter", ["user_id", "item_id", "rating", "timestamp"])
    users = _read(folder / f"{name}.user", ["user_id", "age", "gender", "occupation"])
    items = _read(folder / f"{name}.item", ["item_id", "release_year", "class"])
    numbers = ratings[["rating", "timestamp"]].apply(pd.to_numeric, errors="coerce")
    if not np.isfinite(numbers.to_numpy()).all():
        raise InputError(f"{folder / f'{name}.inter'}: every rating and timestamp must be a finite number")
    if len(ratings) < 100:
        raise InputError(f"{folder / f'{name}.inter'}: needs at least 100 ratings but has {len(ratings)}")
    if ratings.duplicated(["user_id", "item_id"]).any():
        raise InputError(f"{folder / f'{name}.inter'}: a user has rated an item twice")
    user_codes, user_names = ratings["user_id"].factorize()
    item_codes, item_names = ratings["item_id"].factorize()
    years = pd.to_numeric(_of(items, "item_id", item_names)["release_year"], errors="coerce")
    years = years.fillna(years.median() if years.notna().any() else 0.0).to_numpy(dtype=np.float64)
    genres = _of(items, "item_id", item_names)["class"].fillna("").str.get_dummies(" ").to_numpy(dtype=np.float64)
    people = _of(users, "user_id", user_names)
    ages = pd.to_numeric(people["age"], errors="coerce")
    ages = _standardised(ages.fillna(ages.median() if ages.notna().any() else 0.0).to_numpy(dtype=np.float64))
    groups = pd.get_dummies(people[["gender", "occupation"]].fillna("unknown")).to_numpy(dtype=np.float64)
    aged = _standardised(years)
    arrays = {
        "users": user_codes,
        "items": item_codes,
        "times": numbers["timestamp"].to_numpy(dtype=np.float64) / SECONDS_A_DAY,
        "ratings": numbers["rating"].to_numpy(dtype=np.float64),
        "user_features": np.column_stack([groups, ages, ages**2]),
        "item_features": np.column_stack([genres, aged, aged**2]),
        "decades": (years // 5).astype(np.int64),
    }
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(np.ascontiguousarray(array).tobytes())
    return Table(**arrays, digest=digest.hexdigest()[:16])


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} is not there; --data takes the folder of the atomic files of MovieLens-100K")
    table = pd.read_csv(path, sep="\t", dtype=str)
    table.columns = [column.partition(":")[0] for column in table.columns]
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}; it has {', '.join(table.columns)}")
    return table[list(columns)]


def _of(table: pd.DataFrame, key: str, names: pd.Index) -> pd.DataFrame:
    return table.drop_duplicates(key).set_index(key).reindex(names)


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(float(values.std()), 1e-9)
