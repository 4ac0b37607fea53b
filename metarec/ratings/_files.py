"""The bytes of a file, decompressed, or an error with the reason."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from metarec.errors import InputError, shown

__all__ = ["read_bytes", "read_text", "suffix_of"]

_MAGIC = {
    b"\x1f\x8b": ("gzip", "name it .gz"),
    b"PAR1": ("parquet", "name it .parquet"),
    b"PK\x03\x04": ("zip or Excel", "unpack it, or export it as csv"),
    b"BZh": ("bzip2", "unpack it"),
    b"\xfd7zXZ": ("xz", "unpack it"),
    b"(\xb5/\xfd": ("zstandard", "unpack it"),
}


def suffix_of(path: Path) -> str:
    """The suffix of the format, lower case, without ``.gz``."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed if it is named ``.gz``."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        cure = "check the path and its permissions"
        raise InputError(f"{shown(path, 200)}: cannot be read ({reason}); {cure}") from error
    if path.name.lower().endswith(".gz") and content:
        content = _decompress(path, content)
    if not content:
        raise InputError(f"{path}: the file is empty; a table with a header and rows is needed")
    return content


def read_text(path: Path) -> bytes:
    """The content of a text file in UTF-8, decoded as UTF-8 with or without a byte order mark, else as Latin-1."""
    content = read_bytes(path)
    for magic, (kind, cure) in _MAGIC.items():
        if content.startswith(magic):
            raise InputError(f"{path}: this is a {kind} file under another name; {cure}")
    if b"\0" in content or _is_binary(content[:4096]):
        raise InputError(f"{path}: this is not text; export the table as csv in UTF-8")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        content = content.decode("latin-1").encode("utf-8")
    if not content.strip():
        raise InputError(f"{path}: the file is empty; a table with a header and rows is needed")
    return content


def _is_binary(start: bytes) -> bool:
    controls = bytes(code for code in range(32) if code not in b"\t\n\r\f\x1a")
    return len(start.translate(None, controls)) < len(start)


def _decompress(path: Path, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except EOFError as error:
        raise InputError(f"{path}: the gzip file ends too early; copy or download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        if not content.startswith(b"\x1f\x8b"):
            raise InputError(f"{path}: named .gz but not compressed with gzip; rename it or compress it") from error
        raise InputError(f"{path}: the gzip file is damaged ({error}); copy or download it again") from error
