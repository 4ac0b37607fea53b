"""Files: opened and read within limits, written whole; cache keys, dotted keys, and a job's folders."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import metarec
from metarec.errors import InputError, shown

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


__all__ = [
    "Limit",
    "code_facts",
    "content_key",
    "dotted",
    "held",
    "make_folders",
    "open_regular",
    "read_kept",
    "remove_abandoned",
    "write_kept",
    "write_whole",
]

logger = logging.getLogger(__name__)

PART = ".part"
"""The ending of a file that is being written."""

LOCKED_S = 5.0
"""The age from which the writer of a temporary file surely holds its lock."""


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
    """Write a file completely or not at all; what killed processes were writing in its folder is removed.

    Raises:
        InputError: there is a folder in its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent, f"*{PART}")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=PART)
    try:
        with os.fdopen(handle, "wb") as file, held(Path(temporary)):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, IsADirectoryError):
            raise InputError(f"{path}: there is a folder in the place of this file; move it elsewhere") from None
        raise


@contextmanager
def held(temporary: Path) -> Iterator[None]:
    """Hold the lock of a temporary file or folder. The operating system releases it however this process ends."""
    handle = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove the temporary files and folders of this name that no living process holds."""
    for left in folder.glob(pattern):
        # Another process may be faster, or may hold it.
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LOCKED_S:
                with held(left):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()


def write_kept(path: Path, content: bytes) -> None:
    """Write a file whole, with its checksum at the end, where readers of zip archives ignore it."""
    write_whole(path, content + hashlib.sha256(content).digest())


def read_kept(path: Path) -> bytes | None:
    """The content of a file from :func:`write_kept`; None where it is missing, or damaged, which is logged."""
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s cannot be read (%s); it is made again", path, error.strerror)
        return None
    content, digest = stored[:-32], stored[-32:]
    if hashlib.sha256(content).digest() != digest:
        logger.warning("%s is damaged or half-written; it is made again", path)
        return None
    return content


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
