"""Tables whose rows lie in the files of a folder, as Spark, Hadoop and Arrow write them, and the Netflix prize does."""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from metarec.errors import InputError, shown
from metarec.ratings.tables._files import suffix_of
from metarec.ratings.tables._forms import Hints
from metarec.ratings.tables._netflix import is_netflix_name
from metarec.ratings.tables._tables import Table, is_part, one_table, read_table

__all__ = ["is_table_of_parts", "read_parts"]

logger = logging.getLogger(__name__)

FOLDERS = (".csv", ".tsv", ".json", ".parquet", ".pq")
"""Suffixes of folders that are a table."""

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""A folder's value where the column has none."""


def is_table_of_parts(folder: Path) -> bool:
    """Whether a folder is one table: it is named as a file, or it holds nothing but parts."""
    if not folder.is_dir():
        return False
    entries = list(_visible(folder))
    parts = [entry for entry in entries if is_part(entry) or (entry.is_dir() and "=" in entry.name)]
    named = suffix_of(folder) in FOLDERS and {suffix_of(entry) for entry in entries} == {suffix_of(folder)}
    return bool(entries) and (parts == entries or named)


def read_parts(folder: Path, hints: Hints) -> Table:
    """The table whose parts lie in a folder. A folder ``year=2014`` inside it is a column `year` of its parts.

    Args:
        hints: what is known of the files.

    Raises:
        InputError: no parts, a part that cannot be read, or parts with different columns.
    """
    tables: list[Table] = []
    before: tuple[Path, Mapping[str, str]] | None = None
    for path, values in _parts(folder, {}):
        # A writer without rows leaves an empty file.
        if path.stat().st_size:
            table = read_table(path, hints=hints, in_parts=True)
            new = {name: value for name, value in values.items() if name not in table.frame}
            tables.append(replace(table, frame=table.frame.assign(**new)))
            if len(table.frame):
                if before is not None and before[1] == values and filecmp.cmp(before[0], path, shallow=False):
                    logger.warning(
                        "%s: %s and %s hold the same rows; if one is a copy, remove it",
                        *(shown(folder, 200), shown(before[0].name), shown(path.name)),
                    )
                before = path, values
    if not tables:
        raise InputError(f"{shown(folder, 200)}: no part of a table in this folder; check the path")
    return one_table(folder, tables)


def _parts(folder: Path, values: Mapping[str, str]) -> Iterator[tuple[Path, Mapping[str, str]]]:
    entries = _visible(folder)
    # The others beside them are the titles of the movies and the tests of the prize.
    netflix = [entry for entry in entries if is_netflix_name(entry.name)]
    for entry in netflix or entries:
        name, equals, value = entry.name.partition("=")
        if entry.is_dir() and equals:
            yield from _parts(entry, {**values, name: "" if value == NO_VALUE else unquote(value)})
        elif entry.is_file():
            yield entry, values


def _visible(folder: Path) -> list[Path]:
    """The entries that are no marks of a writer, such as ``_SUCCESS`` and ``.part-00000.crc``."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(("_", ".")))
