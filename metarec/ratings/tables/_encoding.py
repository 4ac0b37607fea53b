"""The encoding of a text file."""

from __future__ import annotations

import logging
from pathlib import Path

from metarec.errors import InputError, shown

__all__ = ["as_utf8", "decoded"]

logger = logging.getLogger(__name__)

GUESSES = ("cp1252", "latin-1")
"""Encodings of a file that is not in UTF-8: Windows' for Western Europe, and one in which every byte is a letter."""


def as_utf8(content: bytes, path: Path) -> bytes:
    """The content of a file in UTF-8; a warning names what it was, if it was something else.

    If most of the lines with other letters than ASCII's are in UTF-8, the file is, and each byte that is not becomes
    the replacement character U+FFFD. Otherwise the encoding is the first of `GUESSES` that holds all bytes.
    """
    if _is_utf8(content):
        return content
    lines = content.splitlines()
    others = [number for number, line in enumerate(lines, 1) if not line.isascii()]
    wrong = [number for number in others if not _is_utf8(lines[number - 1])]
    if 2 * len(wrong) < len(others):
        logger.warning(
            "%s, line %d: not UTF-8, as the rest of the file is; %d of %d lines have such bytes, which are read as "
            "U+FFFD; correct these lines",
            *(path, wrong[0], len(wrong), len(lines)),
        )
        return content.decode("utf-8", errors="replace").encode("utf-8")
    for encoding in GUESSES:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        logger.warning(
            "%s, line %d: not UTF-8; the file is read as %s; if its letters are wrong, name the encoding",
            *(path, wrong[0], encoding),
        )
        break
    return text.encode("utf-8")


def decoded(content: bytes, path: Path, encoding: str) -> bytes:
    """The content of a file in UTF-8.

    Args:
        encoding: of the content, by Python's name.

    Raises:
        InputError: an unknown encoding, or another one.
    """
    try:
        return content.decode(encoding).encode("utf-8")
    except LookupError:
        raise InputError(f"unknown encoding {shown(encoding)}; name one of Python's, such as gb18030") from None
    except UnicodeError as error:
        raise InputError(f"{path}: not in {shown(encoding)} ({shown(error)}); name another encoding") from None


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
