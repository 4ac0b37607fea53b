"""From a file to a table of strings (or of parquet's types) that keeps the line of every row."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings._files import read_bytes, read_text, suffix_of

__all__ = ["SUFFIXES", "Table", "read_table"]

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".item", ".user")
PARQUET_SUFFIXES = (".parquet", ".pq")
SUFFIXES = (*TEXT_SUFFIXES, *PARQUET_SUFFIXES)
SEPARATORS = (",", "\t", ";", "|")

# A byte that no text holds replaces MovieLens' `::`, because pandas' fast parser splits at single characters only.
_DOUBLE_COLON = "\x1f"


@dataclass(frozen=True)
class Table:
    """The table of a file.

    Attributes:
        path: the file.
        frame: its columns; the index is the row's number in the file, from 0, blank lines counted.
        records: from a row's number to its line, for messages; None for parquet.
    """

    path: Path
    frame: pd.DataFrame
    records: Records | None = None

    def where(self, row: int) -> str:
        """The place of a row of `frame` (by index label), as a text editor shows it."""
        return f"{self.path}, row {row + 1}" if self.records is None else self.records.where(row)


@dataclass(frozen=True)
class Records:
    """The text of a table, for the line numbers of messages; `quoting` is csv's QUOTE_MINIMAL or QUOTE_NONE."""

    path: Path
    content: bytes
    separator: str
    quoting: Literal[0, 3]
    header: bool

    def where(self, row: int) -> str:
        return self.where_record(row + self.header)

    def where_record(self, record: int) -> str:
        """Records and lines differ where a quoted field holds line ends."""
        reader = self.reader()
        line = 0
        try:
            for _ in range(record + 1):
                line = reader.line_num + 1
                next(reader)
        except (csv.Error, StopIteration):
            line = record + 1
        return f"{self.path}, line {line}"

    def reader(self) -> Any:
        """The fields of each record, from the first one, as lists of strings."""
        text = io.TextIOWrapper(io.BytesIO(self.content), encoding="utf-8", newline="")
        return csv.reader(text, delimiter=self.separator, skipinitialspace=True, quoting=self.quoting)


def read_table(path: Path, names: tuple[str, ...] | None = None, separator: str | None = None) -> Table:
    """Read a table by the suffix of its file.

    Args:
        path: a file whose suffix, without ``.gz``, is one of `SUFFIXES`.
        names: the columns of a file without a header.
        separator: the separator of the layout, with which quotation marks are ordinary letters; by default it is found
            in the header.

    Raises:
        InputError: a file that is missing, empty, damaged, binary, or no table.
    """
    suffix = suffix_of(path)
    if suffix in PARQUET_SUFFIXES:
        return _read_parquet(path)
    if suffix not in SUFFIXES:
        raise InputError(
            f'{shown(path, 200)}: unknown kind of file "{suffix}"; known are {", ".join(SUFFIXES)}, each also with .gz'
        )
    content = read_text(path)
    if separator == "::":
        content, separator = content.replace(b"::", _DOUBLE_COLON.encode()), _DOUBLE_COLON
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if separator is None else csv.QUOTE_NONE
    if separator is None:
        separator = _sniff(path, content, preferred="\t" if suffix == ".tsv" else ",")
    records = Records(path, content, separator, quoting, header=names is None)
    return Table(path, _parse(records, names), records)


def _sniff(path: Path, content: bytes, preferred: str) -> str:
    """The separator that cuts the header into most fields; the preferred one wins a tie."""
    header = re.split(rb"[\r\n]", content, maxsplit=1)[0].decode("utf-8")
    counts = {separator: header.count(separator) for separator in (preferred, *SEPARATORS)}
    best = max(counts, key=lambda separator: counts[separator])
    if not counts[best]:
        raise InputError(
            f'{path}, line 1: the header "{shown(header)}" has one column only; write a header that names the columns, '
            "separated by a comma, tab, semicolon or |"
        )
    return best


def _parse(records: Records, names: tuple[str, ...] | None) -> pd.DataFrame:
    try:
        header = list(names) if names else [name.strip() for name in next(records.reader())]
        frame = pd.read_csv(
            io.BytesIO(records.content),
            sep=records.separator,
            header=None if names else 0,
            names=header if names else None,
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
        raise InputError(
            f"{records.where(0)}: the row has more fields than the {len(header)} columns {shown(', '.join(header))}; "
            "write one field a column, and quotation marks around fields that hold the separator"
        )
    frame.columns = pd.Index(header)
    frame = _without_blank_lines(frame)
    if frame.empty:
        raise InputError(f"{records.path}: the table has a header but no rows; give it some")
    if names:
        # A file without a header may lack its last fields.
        frame = frame.loc[:, [not (frame[name] == "").all() for name in names]]
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


def _read_parquet(path: Path) -> Table:
    # Slow to import, and only needed for this format.
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = read_bytes(path)
    try:
        table = pq.read_table(io.BytesIO(content))
        # Without pandas' metadata, a stored index is a column.
        frame = table.to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a parquet file that can be read ({shown(error)}); write it again") from error
    if frame.empty:
        raise InputError(f"{path}: the table has no rows; give it some")
    frame.columns = frame.columns.map(str)
    for position, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            frame.isetitem(position, [_joined(value) for value in frame.iloc[:, position]])
    return Table(path, frame)


def _joined(value: Any) -> str:
    """A list in a cell as text, in the form of csv files."""
    if isinstance(value, np.ndarray):
        return "|".join(map(str, value))
    return "" if value is None else str(value)
