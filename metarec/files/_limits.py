"""Files that are opened and read within limits."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from metarec.errors import InputError, shown

__all__ = ["Limit", "open_regular"]

_CHUNK = 1 << 20
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Limit:
    """The most that something may have. An environment variable replaces the default.

    Attributes:
        variable: the environment variable. default: in this unit. unit: what is counted.
    """

    variable: str
    default: int
    unit: str = "bytes"

    @property
    def most(self) -> int:
        """The limit.

        Raises:
            InputError: the environment variable is no whole number >= 1.
        """
        given = os.environ.get(self.variable, str(self.default))
        if not (given.isdecimal() and len(given) < 20 and int(given)):
            raise InputError(
                f'{self.variable} must be a whole number of {self.unit} >= 1 but is "{shown(given)}"; '
                "correct or remove it"
            )
        return int(given)

    def check(self, size: int, what: str) -> None:
        """Raise InputError where `size` is above the limit; `what` begins the message, as in "x.csv: the table"."""
        if size > self.most:
            raise InputError(
                f"{what} has more than {self.variable}={self.most:,} {self.unit}; if it is meant to be so large, set "
                "that environment variable to more"
            )

    def read(self, file: _Readable, what: str) -> bytes:
        """Everything in an open file.

        Raises:
            InputError: there is more than the limit; no more than that is read.
        """
        content = io.BytesIO()
        while chunk := file.read(_CHUNK):
            content.write(chunk)
            self.check(content.tell(), what)
        return content.getvalue()


@contextmanager
def open_regular(path: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file to be read. A named pipe is not waited for, and a device is not touched.

    Raises:
        InputError: it cannot be opened or read, or is no regular file.
    """
    name = shown(path, 200)
    try:
        _check_regular(name, os.stat(path).st_mode)
        with open(os.open(path, os.O_RDONLY | _AT_ONCE), "rb") as file:
            # Another file may have taken the name since.
            _check_regular(name, os.fstat(file.fileno()).st_mode)
            yield file
    except OSError as error:
        cure = "check the path and its permissions"
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); {cure}") from error


def _check_regular(name: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise InputError(f"{name}: is {kind}; give a regular file, into which the content may be copied")
