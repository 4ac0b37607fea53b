"""Files that are whole or missing, and what killed processes leave."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metarec.errors import InputError
from metarec.files._folders import is_shared, make_folder

__all__ = ["held", "read_kept", "remove_abandoned", "write_kept", "write_whole"]

logger = logging.getLogger(__name__)

PART = ".part"
"""The ending of a file that is being written."""

LOCKED_S = 5.0
"""The age from which the writer of a temporary file surely holds its lock."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all; what killed processes were writing in its folder is removed.

    Raises:
        InputError: there is a folder in its place.
    """
    make_folder(path.parent)
    remove_abandoned(path.parent, f"*{PART}")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=PART)
    try:
        if is_shared(path.parent):
            os.fchmod(handle, 0o660)
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
