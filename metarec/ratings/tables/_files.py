"""The bytes of a file, decompressed, or an error with the reason."""

from __future__ import annotations

import codecs
import gzip
import io
import logging
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from metarec.errors import InputError
from metarec.files import Limit, open_regular
from metarec.ratings.tables._encoding import as_utf8, decoded

logger = logging.getLogger(__name__)

__all__ = ["ARCHIVES", "MOST_COLUMNS", "TABLE", "check_cells", "read_bytes", "read_text", "suffix_of"]

TABLE = Limit("METAREC_MAX_TABLE_BYTES", 4 << 30)
"""Of a table: its bytes without compression, and eight for each cell, because that is the memory of one."""

MOST_COLUMNS = 10_000
"""In a table. One-hot item features are a thousand or two."""

MOST_TIMES = 200
"""How often the compressed size a table may have. Tables of ratings are compressed to a tenth."""

_SMALL = 64 << 20
"""Bytes up to which the ratio does not matter."""

ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst", ".lz4")
"""Suffixes of files that have to be unpacked first."""

_IN_ITS_PLACE = {
    b"<!doctype html": "a page of HTML, not a table; download the file again",
    b"<html": "a page of HTML, not a table; download the file again",
    b"version https://git-lfs.": "a pointer of Git LFS, not the table; fetch it with git lfs pull",
}
"""Beginnings, in small letters, of what a download or a checkout may leave under the name of a table."""

_MAGIC = {
    b"\x1f\x8b": ("gzip", "name it .gz"),
    b"PAR1": ("parquet", "name it .parquet"),
    b"PK\x03\x04": ("zip or Excel", "unpack it, or export it as csv"),
    b"BZh": ("bzip2", "unpack it"),
    b"\xfd7zXZ": ("xz", "unpack it"),
    b"(\xb5/\xfd": ("zstandard", "unpack it"),
}


_MARKS = {
    # The mark of UTF-32 begins with that of UTF-16.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks of encodings other than UTF-8."""

_JOINT = re.compile(rb"(?m)^(?:\xef\xbb\xbf)+")


def suffix_of(path: Path) -> str:
    """The suffix of the format, lower case, without ``.gz``."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def check_cells(path: Path, rows: int, names: Sequence[object]) -> None:
    """Check the size of a table before it is made: a short row, and one value for many rows, take little of a file.

    Raises:
        InputError: too many columns, or too many cells.
    """
    if len(names) > MOST_COLUMNS:
        raise InputError(f"{path}: a table has at most {MOST_COLUMNS:,} columns but has {len(names):,}; remove some")
    TABLE.check(8 * rows * len(names), f"{path}: the table of {rows:,} rows of {len(names):,} columns")


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed if it is named ``.gz``.

    Raises:
        InputError: a file that cannot be read, is empty, damaged, no regular file, or above the limit `TABLE`.
    """
    with open_regular(path) as file:
        compressed = path.name.lower().endswith(".gz")
        content = _decompressed(path, file) if compressed else TABLE.read(file, f"{path}: the table")
    if not content:
        raise InputError(f"{path}: the file is empty; a table with a header and rows is needed")
    start = content[:200].lstrip().lower()
    for beginning, what in _IN_ITS_PLACE.items():
        if start.startswith(beginning):
            raise InputError(f"{path}: this is {what}")
    return content


def read_text(path: Path, encoding: str | None = None) -> bytes:
    """The content of a text file in UTF-8, without a byte order mark.

    Args:
        encoding: of the file; by default that of its byte order mark, or else see `as_utf8`.
    """
    content = read_bytes(path)
    if encoding is None:
        encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark) and b"\0" in content), None)
        if encoding is not None:
            logger.info("%s: read as %s, by its byte order mark", path, encoding)
    if encoding is not None:
        content = decoded(content, path, encoding)
    for magic, (kind, cure) in _MAGIC.items():
        if content.startswith(magic):
            if kind == "gzip" and path.name.lower().endswith(".gz"):
                raise InputError(f"{path}: the file is compressed twice; decompress it once")
            raise InputError(f"{path}: this is a {kind} file under another name; {cure}")
    if b"\0" in content or _is_binary(content[:4096]):
        raise InputError(f"{path}: this is not text; export the table as csv in UTF-8")
    # Files that were joined have a mark each.
    content = as_utf8(_JOINT.sub(b"", content), path)
    if not content.strip():
        raise InputError(f"{path}: the file is empty; a table with a header and rows is needed")
    return content


def _is_binary(start: bytes) -> bool:
    controls = bytes(code for code in range(32) if code not in b"\t\n\r\f\x1a")
    return len(start.translate(None, controls)) < len(start)


class _Unpacked(gzip.GzipFile):
    """A gzip file that ends in an error where it becomes far larger than it is."""

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        super().__init__(fileobj=file)
        self._path = path
        self._most = max(_SMALL, MOST_TIMES * os.fstat(file.fileno()).st_size)

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if self.tell() > self._most:
            raise InputError(
                f"{self._path}: the table has more than {MOST_TIMES} times its compressed size; if it is meant to, "
                "decompress it first"
            )
        return content


def _decompressed(path: Path, file: io.BufferedReader) -> bytes:
    start = file.peek(2)[:2]
    try:
        return TABLE.read(_Unpacked(path, file), f"{path}: the table without compression") if start else b""
    except EOFError as error:
        raise InputError(f"{path}: the gzip file ends too early; copy or download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        if start != b"\x1f\x8b":
            raise InputError(f"{path}: named .gz but not compressed with gzip; rename it or compress it") from error
        raise InputError(f"{path}: the gzip file is damaged ({error}); copy or download it again") from error
