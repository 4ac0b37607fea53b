"""Files of the Netflix prize: a line ``1:`` gives the movie of the lines below it, which are user, rating and date."""

from __future__ import annotations

import re

__all__ = ["is_netflix", "is_netflix_name", "with_movies"]

_NAME = re.compile(r"(mv_\d{7}|combined_data_\d+)\.txt(\.gz)?", re.IGNORECASE)
_START = re.compile(rb"\d+:[ \t]*\r?\n(\d+,|\Z)")
_MOVIE = re.compile(rb"(?m)^(\d+):[ \t]*$")
_ROW = re.compile(rb"(?m)^.+$")


def is_netflix_name(name: str) -> bool:
    """Whether a file is called like those of the prize: a file for each movie, or four in the edition of Kaggle."""
    return _NAME.fullmatch(name) is not None


def is_netflix(content: bytes) -> bool:
    """Whether a text begins like such a file."""
    return _START.match(content) is not None


def with_movies(content: bytes) -> bytes:
    r"""The text with the movie at the end of each row; a header replaces the first movie, and empty lines the others.

    >>> with_movies(b"8:\n3,5,2005-09-04\n9:\n3,1,2005-09-05\n")
    b'user,rating,timestamp,item\n3,5,2005-09-04,8\n\n3,1,2005-09-05,9\n'
    """
    _, *parts = _MOVIE.split(content.replace(b"\r\n", b"\n"))
    rows = (_ROW.sub(rb"\g<0>," + movie, block) for movie, block in zip(parts[::2], parts[1::2], strict=True))
    return b"user,rating,timestamp,item" + b"".join(rows)
