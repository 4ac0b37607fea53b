"""How a text is a table: its separator, its quotation marks, whether it has a header."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from metarec.errors import InputError, shown

__all__ = ["DOUBLE_COLON", "Hints", "Records", "is_number", "plain_name", "records_of"]

logger = logging.getLogger(__name__)

SEPARATORS = (",", "\t", ";", "|")

DOUBLE_COLON = "::"

# A byte that no text holds replaces `::` and runs of blanks, because pandas' fast parser splits at single characters.
_ONE_BYTE = b"\x1f"

_SAMPLE = 100
"""Lines in which a separator must cut the same number of fields."""

_EXCELS = re.compile(rb'"?sep=([^\r\n])"?[ \t,;]*(\r\n|\r|\n)', re.IGNORECASE)
"""The first line with which Excel notes a separator."""

_BEFORE = re.compile(rb"(?:(?:[#%][^\r\n]*|[ \t]*)(?:\r\n|\r|\n))+")
"""Lines before a table that are none of its rows: comments and blank ones."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}|$)")

_ESCAPED = re.compile(rb'(?<!\\)\\"')


@dataclass(frozen=True)
class Records:
    """The text of a table.

    Attributes:
        separator, quoting: as of csv. header: whether the first record names the columns. before: lines before it.
    """

    path: Path
    content: bytes
    separator: str
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
    header: bool = True
    before: int = 0

    def where(self, row: int) -> str:
        """The place of a row of the table, as a text editor shows it."""
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
        return f"{self.path}, line {line + self.before}"

    def reader(self, *, strict: bool = False) -> Any:
        """The fields of each record, from the first one, as lists of strings; if `strict`, none ends within a field."""
        text = io.TextIOWrapper(io.BytesIO(self.content), encoding="utf-8", newline="")
        return csv.reader(text, delimiter=self.separator, skipinitialspace=True, quoting=self.quoting, strict=strict)

    def check_quotes(self) -> None:
        """Check that each quotation mark which closes a field is at its end.

        Raises:
            InputError: text follows it, as where the mark is that of a later field and the rows between are hidden.
        """
        reader, line = self.reader(strict=True), 1
        try:
            for _ in reader:
                line = reader.line_num + 1
        except csv.Error as error:
            # Another one is a field of more than 128 KiB, which is no fault.
            if "expected after" in str(error):
                raise InputError(
                    f"{self.path}, line {line + self.before}: a quotation mark opens a field here, and text follows "
                    f'where it closes, in line {reader.line_num + self.before}; write "" for each mark in a text'
                ) from error


@dataclass(frozen=True)
class Hints:
    """What is known of a file before it is read.

    Attributes:
        usual, given: names by which a header is recognised, in the form of `plain_name`: those of most files, and those
            that the user gave. encoding: of its text, by Python's name; by default it is found.
    """

    usual: Collection[str] = ()
    given: Collection[str] = ()
    encoding: str | None = None


def plain_name(name: str) -> str:
    """A column's name without case, punctuation and RecBole's type: ``"User_ID:token"`` -> ``"userid"``."""
    return re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower())


def records_of(
    path: Path,
    content: bytes,
    columns: tuple[str, ...] | None,
    separator: str | None,
    hints: Hints,
    preferred: str,
) -> Records:
    """The records of a text in UTF-8.

    Args:
        columns: of the layout, which has no header as a rule. separator: of the layout, with which quotation marks are
            ordinary letters; by default it is found in the text.
        hints: names by which a header is recognised. preferred: the separator that wins a tie.

    Raises:
        InputError: the first line has one field only, or is no record.
    """
    before, content = _from_its_start(path, content, hints)
    start = re.split(rb"[\r\n]", content, maxsplit=1)[0]
    if separator is not None and separator.encode() not in start:
        separator = None
    if separator is None and (noted := _EXCELS.match(content)):
        before, content, preferred = before + 1, content[noted.end() :], noted[1].decode("latin-1")
        found = preferred
    else:
        found = separator or _separator(path, content, preferred)
    if found == DOUBLE_COLON:
        content = content.replace(b"::", _ONE_BYTE)
    elif found == " ":
        content = re.sub(rb"[ \t]+", _ONE_BYTE, re.sub(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)", b"", content))
    plain = separator is not None or found == DOUBLE_COLON
    if not plain:
        content = _with_doubled_quotes(content, found)
    one = _ONE_BYTE.decode() if found in (DOUBLE_COLON, " ") else found
    records = Records(path, content, one, csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL, before=before)
    try:
        first = [field.strip() for field in next(records.reader())]
    except (csv.Error, StopIteration):
        return records
    header = _names_columns(first, hints) if columns else not _is_data(first, hints)
    return Records(path, content, one, records.quoting, header, before)


def _from_its_start(path: Path, content: bytes, hints: Hints) -> tuple[int, bytes]:
    """How many comments and blank lines stand before a table, and the text without them.

    The last comment may be the header.
    """
    found = _BEFORE.match(content)
    if found is None or not content[found.end() :].strip():
        return 0, content
    lines, content = found[0].splitlines(keepends=True), content[found.end() :]
    comments = [line for line in lines if line.strip()]
    if comments:
        last = comments[-1]
        fields = [plain_name(field) for field in re.split(r"[,;|\s]+|::", last.decode().strip("#% \r\n")) if field]
        if len(fields) > 1 and {*fields[:2]} <= {*hints.usual, *hints.given}:
            return len(lines) - 1, re.sub(rb"^[#%][ \t]+", b"", last) + content
        logger.warning("%s: %d lines before the table begin with # or %% and are passed over", path, len(comments))
    return len(lines), content


def is_number(field: str) -> bool:
    """Whether a field is a number, with a point or a comma."""
    return re.fullmatch(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?", field) is not None


def _is_data(first: list[str], hints: Hints) -> bool:
    """Whether the first record is no header: it has numbers or dates, and no name of a column."""
    words = [plain_name(field) for field in first if not is_number(field) and not _DATE.match(field)]
    numbers = len(first) - len(words)
    # The name that was given may be one of the first row's own values.
    named = not set(words).isdisjoint(hints.given) and 2 * numbers < len(first)
    return bool(numbers) and not named and set(words).isdisjoint(hints.usual)


def _names_columns(first: list[str], hints: Hints) -> bool:
    """Whether the first record of a layout without a header is one."""
    return len(first) > 1 and all(plain_name(field) in hints.usual for field in first[:2])


def _separator(path: Path, content: bytes, preferred: str) -> str:
    """`::` or blanks where they cut all lines alike, else what cuts the first line into most fields.

    The preferred one wins a tie.
    """
    lines = [line for line in re.split(r"[\r\n]+", content[: 1 << 16].decode("utf-8", errors="ignore")) if line.strip()]
    # The last line of the sample may be cut.
    sample = lines[: min(_SAMPLE, max(1, len(lines) - 1))]
    header = re.split(rb"[\r\n]", content, maxsplit=1)[0].decode("utf-8")
    colons = {line.count(DOUBLE_COLON) for line in sample}
    if len(colons) == 1 and min(colons) > 1:
        return DOUBLE_COLON
    counts = {separator: header.count(separator) for separator in (preferred, *SEPARATORS)}
    best = max(counts, key=lambda separator: counts[separator])
    fields = [line.split() for line in sample]
    widths = {len(own) for own in fields[1:]}
    # R writes the number of each row, without a name for it.
    if len(fields[0]) > 2 and (widths <= {len(fields[0])} or (widths == {len(fields[0]) + 1} and not counts[best])):
        numbers = all(is_number(field) for own in fields for field in own)
        # Tabs may stand beside blanks, or be doubled; a tab for each number is a table of tabs.
        if not counts[best] or (best == "\t" and numbers and counts[best] != len(fields[0]) - 1):
            return " "
    if not counts[best]:
        raise InputError(
            f'{path}, line 1: the header "{shown(header)}" has one column only; write a header that names the columns, '
            "separated by a comma, tab, semicolon or |"
        )
    return best


def _with_doubled_quotes(content: bytes, separator: str) -> bytes:
    r"""A text in which `\"` inside of fields is `""`, if there is one that is not the end of a field."""
    inside = rb'(?<!\\)\\"(?=[^"\r\n' + re.escape(separator.encode()) + rb"])"
    if b'\\"' not in content or not re.search(inside, content):
        return content
    return _ESCAPED.sub(b'""', content)
