"""The files of a folder with ratings, items and users, and their layouts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from metarec.errors import InputError, shown
from metarec.ratings._files import read_text, suffix_of
from metarec.ratings._tables import SUFFIXES, Table, read_table

__all__ = ["NAMED_BY_FOLDER", "Source", "find_source", "load"]

_PLAIN = r"\.(csv|tsv|txt|dat|parquet|pq)(\.gz)?"
_RATINGS = re.compile(rf"ratings?{_PLAIN}|u\.data(\.gz)?|.+\.inter(\.gz)?", re.IGNORECASE)
_EVENTS = re.compile(rf"(interaction|event)s?{_PLAIN}", re.IGNORECASE)
_ITEMS = re.compile(rf"items?{_PLAIN}", re.IGNORECASE)
_THINGS = re.compile(rf"(movie|film|book|product|song|track|artist|joke|anime|game|recipe)s?{_PLAIN}", re.IGNORECASE)
_USERS = re.compile(rf"users?{_PLAIN}", re.IGNORECASE)

NAMED_BY_FOLDER = ("ratings.", "rating.", "u.data", "interactions.", "interaction.", "events.", "event.")
"""Beginnings of file names, lower case, that do not tell one domain from another."""

# fmt: off
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on

# MovieLens' files without a header: name -> separator and columns.
_MOVIELENS: dict[str, tuple[str, tuple[str, ...]]] = {
    "u.data": ("\t", ("user", "item", "rating", "timestamp")),
    "u.item": ("|", ("item", "title", "release_date", "video_release_date", "url", *_GENRES)),
    "u.user": ("|", ("user", "age", "gender", "occupation", "zip")),
    "ratings.dat": ("::", ("user", "item", "rating", "timestamp")),
    "movies.dat": ("::", ("item", "title", "genres")),
    "users.dat": ("::", ("user", "gender", "age", "occupation", "zip")),
}


@dataclass(frozen=True)
class Source:
    """The files behind one path."""

    ratings: Path
    items: Path | None = None
    users: Path | None = None


def find_source(path: Path) -> Source:
    """The files behind a path: a ratings file (with its neighbours, if it has a layout's name), or a folder.

    Raises:
        InputError: the path is missing, or has no file of ratings, or several.
        OSError: the folder is not readable.
    """
    if path.is_dir():
        return _with_neighbours(_ratings_in(path))
    if not path.exists():
        raise InputError(f"{shown(path, 200)}: no such file or folder; check the path")
    in_a_layout = _RATINGS.fullmatch(path.name) or _EVENTS.fullmatch(path.name)
    return _with_neighbours(path) if in_a_layout else Source(path)


def load(path: Path) -> Table:
    """Read one file in the layout of its name."""
    name = path.name.lower().removesuffix(".gz")
    if name in _MOVIELENS:
        separator, names = _MOVIELENS[name]
        if separator != "::" or b"::" in read_text(path)[:4096].splitlines()[0]:
            table = read_table(path, names, separator)
            return _with_genres(table) if name == "u.item" else table
    if suffix_of(path) in (".inter", ".item", ".user"):
        return read_table(path, separator="\t")
    return read_table(path)


def _listing(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_file())


def _ratings_in(folder: Path) -> Path:
    files = _listing(folder)
    # Where there are ratings, a file of events beside them is another domain.
    found = [file for file in files if _RATINGS.fullmatch(file.name)] or [
        file for file in files if _EVENTS.fullmatch(file.name)
    ]
    if not found:
        there = ", ".join(shown(file.name) for file in files[:5]) or "no files"
        raise InputError(
            f"{folder}: no file of ratings in this folder; looked for ratings.* ({', '.join(SUFFIXES[:4])}, .parquet, "
            f"each also .gz), u.data, *.inter, interactions.* and events.*, found {there}; rename the file or "
            "give its path"
        )
    if len(found) > 1:
        candidates = ", ".join(shown(file.name) for file in found[:8])
        raise InputError(f"{folder}: {len(found)} files could hold the ratings: {candidates}; give the path of one")
    return found[0]


def _with_neighbours(ratings: Path) -> Source:
    name = ratings.name.lower().removesuffix(".gz")
    if name == "u.data" or name.endswith(".inter"):
        stem = re.escape(ratings.name[: len(name) - len(Path(name).suffix)])
        items, users = (re.compile(rf"{stem}\.{kind}(\.gz)?", re.IGNORECASE) for kind in ("item", "user"))
        return Source(ratings, _only(ratings, items), _only(ratings, users))
    return Source(ratings, _only(ratings, _ITEMS) or _only(ratings, _THINGS), _only(ratings, _USERS))


def _only(ratings: Path, pattern: re.Pattern[str]) -> Path | None:
    found = [file for file in _listing(ratings.parent) if pattern.fullmatch(file.name)]
    if len(found) > 1:
        names = ", ".join(shown(file.name) for file in found)
        raise InputError(f"{ratings.parent}: {len(found)} files could describe the same ids: {names}; keep one")
    return found[0] if found else None


def _with_genres(table: Table) -> Table:
    """MovieLens-100K's flags as one list of genres, as in its later editions."""
    frame = table.frame
    flags = {genre: frame[genre].to_numpy() == "1" for genre in _GENRES if genre in frame}
    genres = ["|".join(genre for genre, flag in flags.items() if flag[row]) for row in range(len(frame))]
    kept = [name for name in ("item", "title") if name in frame]
    return Table(table.path, frame[kept].assign(genres=genres), table.records)
