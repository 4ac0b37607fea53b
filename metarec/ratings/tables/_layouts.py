"""The files of a folder with ratings, items and users, and their layouts."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

from metarec.errors import InputError, shown
from metarec.ratings.tables._files import ARCHIVES, suffix_of
from metarec.ratings.tables._forms import DOUBLE_COLON, Hints
from metarec.ratings.tables._netflix import is_netflix_name
from metarec.ratings.tables._parts import is_table_of_parts, read_parts
from metarec.ratings.tables._tables import SUFFIXES, Table, read_table

logger = logging.getLogger(__name__)

__all__ = ["NAMED_BY_FOLDER", "Source", "find_source", "load"]

_PLAIN = r"\.(csv|tsv|txt|dat|parquet|pq)(\.gz)?"
_OTHER = r"\.(jsonl?|ndjson|xlsx)(\.gz)?"
_RATINGS = re.compile(rf"ratings?{_PLAIN}|u\.data(\.gz)?|.+\.inter(\.gz)?", re.IGNORECASE)
_EVENTS = re.compile(rf"(interaction|event)s?{_PLAIN}", re.IGNORECASE)
_OTHER_RATINGS = re.compile(rf"(rating|review|interaction|event)s?{_OTHER}", re.IGNORECASE)
_KINDS = (_RATINGS, _EVENTS, _OTHER_RATINGS)
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
    "ratings.dat": (DOUBLE_COLON, ("user", "item", "rating", "timestamp")),
    "movies.dat": (DOUBLE_COLON, ("item", "title", "genres")),
    "users.dat": (DOUBLE_COLON, ("user", "gender", "age", "occupation", "zip")),
}


@dataclass(frozen=True)
class Source:
    """The files behind one path, or folders with the parts of a table."""

    ratings: Path
    items: Path | None = None
    users: Path | None = None


def find_source(path: Path) -> Source:
    """The files behind a path: a ratings file (with its neighbours, if it has a layout's name), or a folder.

    Raises:
        InputError: the path is missing, or has no file of ratings, or several.
        OSError: the folder is not readable.
    """
    if path.is_dir() and not is_table_of_parts(path):
        ratings = _ratings_in(path)
        return Source(path) if ratings == path else _with_neighbours(ratings)
    if not path.exists():
        raise InputError(f"{shown(path, 200)}: no such file or folder; check the path")
    in_a_layout = any(kind.fullmatch(path.name) for kind in _KINDS)
    return _with_neighbours(path) if in_a_layout else Source(path)


def load(path: Path, hints: Hints) -> Table:
    """Read one file in the layout of its name, or the parts of a table in a folder.

    Args:
        hints: what is known of the file.
    """
    if path.is_dir():
        return read_parts(path, hints)
    name = path.name.lower().removesuffix(".gz")
    if name in _MOVIELENS:
        separator, columns = _MOVIELENS[name]
        table = read_table(path, columns, separator, hints)
        return _with_genres(table) if name == "u.item" else table
    if suffix_of(path) in (".inter", ".item", ".user"):
        return read_table(path, separator="\t", hints=hints)
    return read_table(path, hints=hints)


def _listing(folder: Path) -> list[Path]:
    """The tables of a folder; files that begin with a point are hidden, as those which macOS adds to archives.

    A link to a file that is gone is one of them, so that no other table is read in its place.
    """
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return sorted(entry for entry in entries if entry.is_file() or is_table_of_parts(entry) or not entry.exists())


def _ratings_in(folder: Path) -> Path:
    """The file of ratings in a folder, or the folder of its parts, which may be the folder itself."""
    files = _listing(folder)
    # Where there are ratings, a file of events beside them is another domain.
    named = ([file for file in files if kind.fullmatch(file.name)] for kind in _KINDS)
    tables = [file for file in files if suffix_of(file) in SUFFIXES]
    parts = [file for file in files if file.is_dir() and file not in tables]
    netflix = [folder] if any(is_netflix_name(file.name) for file in files) else []
    found = next(filter(None, (*named, netflix, parts)), tables if len(tables) == 1 else [])
    if not found:
        there = ", ".join(shown(file.name) for file in files[:5]) or "no files"
        packed = any(suffix_of(file) in ARCHIVES for file in files)
        cure = "unpack the archive" if packed and not tables else "rename the file or give its path"
        raise InputError(
            f"{folder}: no file of ratings in this folder; looked for ratings.* ({', '.join(SUFFIXES[:4])}, .parquet, "
            f"each also .gz), u.data, *.inter, interactions.* and events.*, found {there}; {cure}"
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
        logger.warning(
            "%s: %d files could describe the same ids: %s; none of them is read; keep one",
            ratings.parent,
            len(found),
            names,
        )
    return found[0] if len(found) == 1 else None


def _with_genres(table: Table) -> Table:
    """MovieLens-100K's flags as one list of genres, as in its later editions."""
    frame = table.frame
    flags = {genre: frame[genre].to_numpy() == "1" for genre in _GENRES if genre in frame}
    genres = ["|".join(genre for genre, flag in flags.items() if flag[row]) for row in range(len(frame))]
    kept = [name for name in ("item", "title") if name in frame]
    return replace(table, frame=frame[kept].assign(genres=genres))
