"""The rating sets of the benchmarks, and their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from metarec.errors import InputError
from metarec.ratings import Domain, read_domain
from metarec.registry import suggest

__all__ = ["SETS", "RatingSet", "find_sets", "largest_domain", "largest_domains"]

ML100K = "ml-100k"
CIAO = "ciao"
SETS = ("ml_latest_small", "goodbooks_5pct", "jester5k", "movietweetings_100k", CIAO, ML100K)

FOLDER = "METAREC_DATA"


@dataclass(frozen=True)
class RatingSet:
    """The name of a set, and its path for `read_domain`."""

    name: str
    path: str

    def read(self) -> Domain:
        """The ratings, under the set's name.

        Raises:
            InputError: they cannot be read.
        """
        return read_domain(self.path, self.name)


def find_sets(names: Sequence[str], data: Path | None, ml100k: Path | None) -> list[RatingSet]:
    """The sets of these names.

    Args:
        names: some of `SETS`, or a category of ciao, as in ``ciao-10``; ``ciao`` alone is its largest.
        data: the folder with a folder for each set except MovieLens-100K.
        ml100k: the folder of MovieLens-100K's atomic files.

    Raises:
        InputError: a name is unknown, or a set is missing.
    """
    for name in names:
        if name not in SETS and not name.startswith(f"{CIAO}-"):
            raise InputError(f'--sets: unknown set "{name}"; {suggest(name, SETS)}')
    if not names or len(set(names)) < len(names):
        raise InputError(f"--sets must name different sets but got {','.join(names) or 'none'}")
    return [_find(name, data, ml100k) for name in names]


def largest_domain(path: Path) -> str:
    """The value of the column `domain` with the most ratings; of equal ones the first in the alphabet."""
    return largest_domains(path, 1)[0]


def largest_domains(path: Path, count: int | None = None) -> list[str]:
    """The first `count` values of the column `domain` (all by default), those with the most ratings first."""
    counts = pd.read_csv(path, usecols=["domain"], dtype=str)["domain"].value_counts()
    return sorted(map(str, counts.index), key=lambda name: (-counts[name], name))[:count]


def _find(name: str, data: Path | None, ml100k: Path | None) -> RatingSet:
    of, _, category = name.partition("-") if name != ML100K else (name, "", "")
    if name == ML100K:
        option, folder = "--ml100k", ml100k
    else:
        option, folder = FOLDER, data / of if data else None
    if folder is None or not folder.is_dir():
        where = f"{option} is not given" if folder is None else f"{folder} is not there"
        others = ",".join(other for other in SETS if other not in (name, of))
        raise InputError(f"{name}: {where}; name its folder with {option}, or leave it out, as in --sets {others}")
    if of == CIAO:
        categories = largest_domains(folder / "ratings.csv.gz")
        if category and category not in categories:
            raise InputError(f'--sets: {CIAO} has no category "{category}"; {suggest(category, categories)}')
        return RatingSet(name, f"{folder}#{category or categories[0]}")
    return RatingSet(name, str(folder))
