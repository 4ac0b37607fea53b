"""Published splits of the ratings of users with known histories."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from metarec.errors import InputError
from metarec.ratings import Domain, read_domain

__all__ = ["WARM_SETS", "WarmSet"]

Masks = Callable[[Domain, Path], list[np.ndarray]]


@dataclass(frozen=True)
class WarmSet:
    """A table of ratings with a split that others have published numbers on.

    Attributes:
        folder: in METAREC_DATA. about: the split, for the report.
        masks: (domain, folder) -> for each fold [R] whether a rating is one of the test.
        has_items: whether the features of the items are used.
        published: model -> its RMSE, as published; figures that this project did not compute.
    """

    name: str
    folder: str
    about: str
    masks: Masks
    has_items: bool = True
    published: Mapping[str, float] = field(default_factory=dict)

    def read(self, data: Path) -> Domain:
        """The ratings in the order of their file, under the set's name.

        Raises:
            InputError: they cannot be read.
        """
        domain = read_domain(data / self.folder, self.name)
        return domain if self.has_items else Domain(domain.name, domain.ratings, domain.scale)

    def test_masks(self, domain: Domain, data: Path) -> list[np.ndarray]:
        """For each fold [R] booleans, in the order of the domain's ratings.

        Raises:
            InputError: the files of the split are missing, or are not of these ratings.
        """
        return self.masks(domain, data / self.folder)


def surprise_folds(domain: Domain, folder: Path) -> list[np.ndarray]:
    """The five folds of Surprise's published table: its KFold with random_state 0, in the order of the file."""
    count = len(domain.ratings)
    if count % 5:
        raise InputError(f"{folder}: five equal folds need a number of ratings that 5 divides but there are {count}")
    order = np.arange(count)
    # Surprise shuffles with this generator.
    np.random.RandomState(0).shuffle(order)
    return [_mask(rows, count) for rows in np.split(order, 5)]


def listed_ratings(domain: Domain, folder: Path, *, file: str) -> list[np.ndarray]:
    """One fold: the pairs of user and item in a gzipped, tab-separated file."""
    path = folder / file
    try:
        lines = gzip.decompress(path.read_bytes()).decode("ascii").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the test ratings cannot be read: {error}") from None
    listed = {tuple(line.split("\t")[:2]) for line in lines}
    pairs = list(zip(domain.ratings["user"], domain.ratings["item"], strict=True))
    strange = listed.difference(pairs)
    if not listed or strange:
        raise InputError(f"{path}: each test rating must be one of the ratings but {len(strange)} are not")
    return [np.fromiter((pair in listed for pair in pairs), bool, len(pairs))]


def random_tenth(domain: Domain, folder: Path) -> list[np.ndarray]:
    """One fold: a random tenth of the ratings, by seed 0."""
    count = len(domain.ratings)
    return [_mask(np.random.default_rng(0).permutation(count)[: count // 10], count)]


def _mask(rows: np.ndarray, count: int) -> np.ndarray:
    mask = np.zeros(count, dtype=bool)
    mask[rows] = True
    return mask


_SURPRISE = {
    "Surprise SVD": 0.934,
    "Surprise SVD++": 0.919,
    "Surprise k-NN baseline": 0.931,
    "Surprise baseline": 0.944,
    "Surprise co-clustering": 0.963,
    "Auto-Surprise, two hours of search": 0.9116,
}
_U1 = {"GC-MC": 0.905, "GLocal-K": 0.8889, "myFM, regression": 0.8833, "myFM, ordered probit": 0.8808}


def _u1(domain: Domain, folder: Path) -> list[np.ndarray]:
    return listed_ratings(domain, folder, file="u1.test.gz")


_SETS = (
    WarmSet(
        "surprise_ratings",
        "ml100k",
        "MovieLens-100K, the five folds of Surprise's table, ratings alone",
        surprise_folds,
        has_items=False,
        published=_SURPRISE,
    ),
    WarmSet(
        "surprise",
        "ml100k",
        "MovieLens-100K, the five folds of Surprise's table, with genres and years",
        surprise_folds,
    ),
    WarmSet("u1", "ml100k", "MovieLens-100K, the published split u1, with genres and years", _u1, published=_U1),
    WarmSet(
        "ml1m",
        "ml1m",
        "MovieLens-1M, a random tenth, ratings alone",
        random_tenth,
        published={"myFM, another random tenth": 0.8140},
    ),
)

WARM_SETS: Mapping[str, WarmSet] = MappingProxyType({one.name: one for one in _SETS})
