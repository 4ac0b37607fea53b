"""Files: opened and read within limits, written whole; cache keys, dotted keys, and a job's folders."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import metarec
from metarec.errors import InputError, shown

__all__ = ["Limit", "code_facts", "content_key", "dotted", "make_folders", "open_regular", "write_whole"]

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
    """The most bytes that something may have. An environment variable replaces the default.

    Attributes:
        variable: the environment variable. default: bytes.
    """

    variable: str
    default: int

    @property
    def most(self) -> int:
        """Bytes.

        Raises:
            InputError: the environment variable is no whole number >= 1.
        """
        given = os.environ.get(self.variable, str(self.default))
        if not (given.isdecimal() and len(given) < 20 and int(given)):
            raise InputError(
                f'{self.variable} must be a whole number of bytes >= 1 but is "{shown(given)}"; correct or remove it'
            )
        return int(given)

    def check(self, size: int, what: str) -> None:
        """Raise InputError where `size` is above the limit; `what` begins the message, as in "x.csv: the table"."""
        if size > self.most:
            raise InputError(
                f"{what} has more than {self.variable}={self.most:,} bytes; if it is meant to be so large, set that "
                "environment variable to more"
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


def content_key(facts: Mapping[str, Any]) -> str:
    """A hash of `facts`, which are JSON values: what some content depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def code_facts(
    parts: Sequence[str], libraries: Sequence[str], root: Path = Path(metarec.__file__).parent
) -> dict[str, Any]:
    """What content depends on that code computes: the code of `parts`, and the versions of the libraries it calls.

    Args:
        parts: Python files below `root`, and folders with all Python files in them.
        libraries: names of distributions.
    """
    return {
        "code": {part: _code_digest(root, root / part) for part in parts},
        "libraries": {n: version(n) for n in libraries},
    }


def _code_digest(root: Path, part: Path) -> str:
    digest = hashlib.sha256()
    for path in [part] if part.is_file() else sorted(part.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys.

    >>> dotted({"a": 1, "b": {"c": 2, "d": {}}})
    {'a': 1, 'b.c': 2, 'b.d': {}}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        flat |= dotted(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def make_folders(out: Path, *inside: Path) -> None:
    """Make the folder of ``--out`` and folders inside it.

    Raises:
        InputError: a folder cannot be made or written.
    """
    for folder in (out, *inside):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written: {error.strerror}; give another folder") from None
    if not os.access(out, os.W_OK):
        raise InputError(f"--out {out}: cannot be written: no permission; give another folder")
