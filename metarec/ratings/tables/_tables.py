"""From a file to a table of strings (or of the file's own types) that keeps the line of every row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings.tables._files import ARCHIVES, check_cells, read_bytes, read_text, suffix_of
from metarec.ratings.tables._forms import Hints, Records, records_of
from metarec.ratings.tables._json import read_json
from metarec.ratings.tables._netflix import is_netflix, is_netflix_name, with_movies
from metarec.ratings.tables._parquet import read_parquet
from metarec.ratings.tables._xlsx import read_xlsx

__all__ = ["SUFFIXES", "Table", "is_part", "one_table", "read_frame", "read_table"]

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".item", ".user")
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet", ".pq")
XLSX_SUFFIX = ".xlsx"
_ARRAYS = (np.ndarray, np.generic)
_NESTED = (np.ndarray, dict, list, tuple)
SUFFIXES = (*TEXT_SUFFIXES, *JSON_SUFFIXES, *PARQUET_SUFFIXES, XLSX_SUFFIX)


class Places(Protocol):
    """Where rows are."""

    def where(self, row: int) -> str:
        """The place of a row (by index label), as a text editor shows it."""


@dataclass(frozen=True)
class _Rows:
    """The rows of a file that counts them."""

    path: Path
    noun: str = "row"
    first: int = 1

    def where(self, row: int) -> str:
        return f"{self.path}, {self.noun} {row + self.first}"


@dataclass(frozen=True)
class _Parts:
    """The rows of several tables, one behind the other."""

    tables: Sequence[Table]

    def where(self, row: int) -> str:
        for table in self.tables:
            if row in table.frame.index:
                return table.where(row)
            row -= _length(table)
        raise KeyError(row)


@dataclass(frozen=True)
class Table:
    """The table of a file.

    Attributes:
        path: the file.
        frame: its columns; the index is the row's number in the file, from 0, blank lines counted. Without a header,
            columns are named by their numbers, from 1.
        places: of rows, for messages; by default they are counted.
        header: whether the file names its columns. commas: whether numbers may have a decimal comma.
        nested: columns in which a row had a list or an object, which are texts in `frame`.
    """

    path: Path
    frame: pd.DataFrame
    places: Places | None = None
    header: bool = True
    commas: bool = False
    nested: frozenset[str] = frozenset()

    def where(self, row: int) -> str:
        """The place of a row of `frame` (by index label), as a text editor shows it."""
        return (self.places or _Rows(self.path)).where(row)


def read_table(
    path: Path,
    columns: tuple[str, ...] | None = None,
    separator: str | None = None,
    hints: Hints = Hints(),  # noqa: B008  # It is frozen.
    *,
    in_parts: bool = False,
) -> Table:
    """Read a table by the suffix of its file.

    Args:
        path: a file whose suffix, without ``.gz``, is one of `SUFFIXES`.
        columns: those of a file without a header. separator: the separator of the layout, with which quotation marks
            are ordinary letters; by default it is found in the text.
        hints: what is known of the file. in_parts: whether it is one part of a table, which may have no rows.

    Raises:
        InputError: a file that is missing, empty, damaged, binary, or no table.
    """
    suffix = suffix_of(path)
    if suffix in PARQUET_SUFFIXES:
        table = _with_texts(Table(path, read_parquet(path)))
    elif suffix in JSON_SUFFIXES:
        table = _with_texts(Table(path, read_json(path, read_text(path, hints.encoding)), _Rows(path, "line")))
    elif suffix == XLSX_SUFFIX:
        table = Table(path, read_xlsx(path, read_bytes(path)), _Rows(path, first=2))
    elif suffix in TEXT_SUFFIXES or is_part(path):
        preferred = "\t" if suffix == ".tsv" else ","
        text = read_text(path, hints.encoding)
        if is_netflix(text):
            text = with_movies(text)
        records = records_of(path, text, columns, separator, hints, preferred)
        frame = _parse(records, columns)
        table = Table(path, frame, records, records.header or columns is not None, records.separator != ",")
    elif suffix in ARCHIVES:
        raise InputError(f"{shown(path, 200)}: this is an archive; unpack it, and give the path of the table")
    else:
        raise InputError(
            f'{shown(path, 200)}: unknown kind of file "{suffix}"; known are {", ".join(SUFFIXES)}, each also with .gz'
        )
    if table.frame.empty and not in_parts:
        raise InputError(f"{path}: the table has a header but no rows; give it some")
    return table


def read_frame(frame: pd.DataFrame) -> Table:
    """A table in memory, read as if it came from a parquet file; an index with a name is a column.

    Raises:
        InputError: it has no rows, or a column that parquet cannot hold.
    """
    # Slow to import, and only needed for this format.
    import pyarrow as pa

    path, content = Path("the DataFrame"), io.BytesIO()
    try:
        frame.set_axis(frame.columns.map(str), axis=1).to_parquet(content)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({shown(error)}); give each column values of one kind") from error
    table = _with_texts(Table(path, read_parquet(path, content.getvalue())))
    if table.frame.empty:
        raise InputError(f"{path}: the table has no rows; give it some")
    return table


def is_part(path: Path) -> bool:
    """Whether a file is one part of a table, as Spark, Hadoop and the Netflix prize name it."""
    return path.name.startswith("part-") or is_netflix_name(path.name)


def one_table(path: Path, tables: Sequence[Table]) -> Table:
    """The tables of the parts of a folder as one.

    Raises:
        InputError: no rows, parts with other columns than the first one, or too many cells.
    """
    tables = [table for table in tables if len(table.frame)]
    if not tables:
        raise InputError(f"{path}: the parts of the table have no rows; give it some")
    first = tables[0]
    rows = 0
    for table in tables:
        if set(table.frame.columns) != set(first.frame.columns):
            raise InputError(
                f"{table.path}: has the columns {shown(', '.join(table.frame.columns))}, but {first.path.name} has "
                f"{shown(', '.join(first.frame.columns))}; the parts of a table must have the same ones"
            )
        rows += len(table.frame)
        check_cells(path, rows, list(first.frame.columns))
    starts = np.cumsum([0, *map(_length, tables)])
    kinds = _kinds_of_unfilled(tables)
    frames = [
        table.frame.set_index(table.frame.index + start).astype(kinds, copy=False)
        for table, start in zip(tables, starts[:-1], strict=True)
    ]
    nested = frozenset().union(*(table.nested for table in tables))
    return Table(path, pd.concat(frames), _Parts(tables), first.header, first.commas, nested)


def _kinds_of_unfilled(tables: Sequence[Table]) -> dict[str, type]:
    """The columns that have no value in one of the tables and have another type there. Objects hold them all."""
    frames = [table.frame for table in tables if table.frame.columns.is_unique]
    unfilled = {name for frame in frames for name in frame if frame[name].isna().all()}
    return {str(name): object for name in unfilled if len({frame[name].dtype for frame in frames}) > 1}


def _length(table: Table) -> int:
    return int(table.frame.index[-1]) + 1


def _parse(records: Records, columns: tuple[str, ...] | None) -> pd.DataFrame:
    try:
        first = [name.strip() for name in next(records.reader())]
    except csv.Error as error:
        raise InputError(_parser_message(records, str(error))) from error
    header = first if records.header else list(columns or map(str, range(1, 1 + len(first))))
    check_cells(records.path, max(records.content.count(b"\n"), records.content.count(b"\r")), header)
    try:
        frame = pd.read_csv(
            io.BytesIO(records.content),
            sep=records.separator,
            header=0 if records.header else None,
            names=None if records.header else header,
            quoting=records.quoting,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            skipinitialspace=True,
            low_memory=False,
            encoding="utf-8",
        )
    except (ValueError, csv.Error) as error:
        raise InputError(_parser_message(records, str(error))) from error
    if not isinstance(frame.index, pd.RangeIndex) or len(frame.columns) != len(header):
        numbered = frame.index.nlevels == 1 and frame.index[0] in ("0", "1")
        cure = "; a first field that numbers the rows needs a name" if numbered else ""
        raise InputError(
            f"{records.where(0)}: the row has more fields than the {len(header)} columns {shown(', '.join(header))}; "
            f"write one field a column, and quotation marks around fields that hold the separator{cure}"
        )
    frame.columns = pd.Index(header)
    ends = records.content.count(b"\n") + records.content.count(b"\r") - records.content.count(b"\r\n")
    if len(frame) + records.header < ends:
        # Some fields hold line ends.
        records.check_quotes()
    frame = _without_blank_lines(frame)
    if not records.header:
        # A file without a header may lack its last fields.
        frame = frame.loc[:, [not (frame[name] == "").all() for name in header]]
    return frame


def _without_blank_lines(frame: pd.DataFrame) -> pd.DataFrame:
    blank = np.ones(len(frame), dtype=bool)
    for position in range(frame.shape[1]):
        blank[blank] = frame.iloc[blank, position].to_numpy() == ""
        if not blank.any():
            return frame
    return frame[~blank]


def _parser_message(records: Records, message: str) -> str:
    if fields := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message):
        expected, record, found = map(int, fields.groups())
        return (
            f"{records.where_record(record - 1)}: expected {expected} fields but the line has {found}; "
            "write one field a column, and quotation marks around fields that hold the separator"
        )
    if quote := re.search(r"inside string starting at row (\d+)", message):
        return f"{records.where_record(int(quote[1]))}: a quotation mark is opened here and never closed; close it"
    return f"{records.path}: not a table that can be read ({shown(message)}); export it as csv in UTF-8"


def _with_texts(table: Table) -> Table:
    """The table with lists as texts such as ``a|b``, as csv files have them, and objects as JSON."""
    frame, nested = table.frame, set()
    for position, name in enumerate(frame.columns):
        values = frame.iloc[:, position]
        # Columns of one type hold neither.
        if pd.api.types.infer_dtype(values) == "mixed" and any(isinstance(value, _NESTED) for value in values):
            nested.add(str(name))
            frame.isetitem(position, [_joined(value) for value in values])
    return replace(table, nested=frozenset(nested))


def _joined(value: Any) -> Any:
    if not isinstance(value, _NESTED):
        return value
    parts = value if isinstance(value, dict) else list(value)
    if isinstance(parts, dict) or any(isinstance(part, _NESTED) for part in parts):
        return json.dumps(parts, default=lambda other: other.tolist() if isinstance(other, _ARRAYS) else str(other))
    return "|".join(map(str, parts))
