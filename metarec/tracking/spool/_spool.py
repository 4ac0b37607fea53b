"""The records of one process, on disk until the store of runs has them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from metarec.files import make_folder, write_whole
from metarec.tracking.spool._records import FILES, UNFIT, Operation, UnfitRecord, read_json, read_record

__all__ = ["REFUSED", "Spool"]

logger = logging.getLogger(__name__)

ABOUT, OPERATIONS, SENT, LOCK, REFUSED = "about.json", "operations.jsonl", "sent", "owner.lock", "refused.jsonl"


class Spool:
    """A journal of operations in a folder of its own.

    An operation is a line. How many lines were sent stands in a file beside it. The owner holds a lock, which the
    operating system releases however the process dies: so others see whose operations they have to send.

    Another process, or another hand, may have written a spool that is adopted. Its lines are checked, nothing outside
    its folder is read or changed for it, and no link in it is followed.

    Args:
        folder: its own. about: what it is about, the same for all who adopt it.
    """

    def __init__(self, folder: Path, lock: FileLock) -> None:
        self.folder = folder
        self._lock = lock
        self._writing = threading.Lock()
        self._file = (folder / OPERATIONS).open("ab")

    @classmethod
    def new(cls, root: Path, about: Mapping[str, Any]) -> Self:
        """A spool for this process."""
        folder = root / f"{int(time.time() * 1000)}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        make_folder(folder)
        lock = FileLock(folder / LOCK, thread_local=False)
        lock.acquire()
        # A folder without it belonged to a process that died before it recorded anything.
        (folder / ABOUT).write_text(json.dumps(about))
        return cls(folder, lock)

    @classmethod
    def left_behind(cls, root: Path, about: Mapping[str, Any]) -> Iterator[Self]:
        """The spools of dead processes that are about the same, from the oldest on; this process owns them now."""
        for folder in _folders(root, about):
            lock = FileLock(folder / LOCK, thread_local=False)
            try:
                lock.acquire(timeout=0)
                spool = cls(folder, lock) if (folder / OPERATIONS).exists() else None
            # It is an OSError, too.
            except Timeout:
                continue
            except OSError as error:
                logger.error("%s is left alone: %s", folder, error.strerror)
                continue
            if spool is not None:
                yield spool

    @staticmethod
    def lives(root: Path, about: Mapping[str, Any], but: Collection[Path]) -> bool:
        """Whether a process holds one that is about the same, in another folder than those in `but`."""
        for folder in _folders(root, about):
            try:
                if folder not in but:
                    FileLock(folder / LOCK, timeout=0).acquire().lock.release()
            # It is an OSError, too.
            except Timeout:
                return True
            except OSError:
                continue
        return False

    def append(self, operation: Operation) -> None:
        """Add an operation; it survives the process, and after :meth:`persist` the machine."""
        line = json.dumps(operation, separators=(",", ":")).encode() + b"\n"
        with self._writing:
            self._file.write(line)
            self._file.flush()

    def persist(self) -> None:
        """See to it that everything so far is on the disk."""
        with self._writing:
            os.fsync(self._file.fileno())

    def waiting(self) -> list[Operation]:
        """The operations that were not sent, in order, without half a line of a process that was killed."""
        lines = (self.folder / OPERATIONS).read_bytes().split(b"\n")[:-1]
        return [read_record(line) for line in lines[self.sent :]]

    @property
    def sent(self) -> int:
        """How many operations were sent, or refused for good."""
        try:
            return max(0, int((self.folder / SENT).read_text()))
        except (OSError, ValueError):
            return 0

    @sent.setter
    def sent(self, count: int) -> None:
        write_whole(self.folder / SENT, str(count).encode())

    def refuse(self, operation: Operation, reason: str) -> None:
        """Keep an operation that will never be sent, for people to look at."""
        kept = {"line": operation["line"]} if operation["what"] == UNFIT else operation
        with (self.folder / REFUSED).open("a") as file:
            file.write(json.dumps({**kept, "refused": reason}) + "\n")

    def new_files(self) -> Path:
        """A new folder, for files that are to be sent."""
        folder = self.folder / FILES / uuid.uuid4().hex
        make_folder(folder)
        return folder

    def files_of(self, operation: Operation) -> Path | None:
        """The folder of an operation's files; None where they were sent before.

        Raises:
            UnfitRecord: there is a link, or something else that is neither a file nor a folder, or that cannot be read.
        """
        folder: Path = self.folder / operation["folder"]
        if not os.path.lexists(folder):
            return None
        for path in (folder.parent, folder, *folder.rglob("*")):
            mode = path.lstat().st_mode
            # A link would send a file, or remove a folder, of elsewhere; a pipe would never end.
            if not (stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and path != folder)) or not os.access(path, os.R_OK):
                raise UnfitRecord(f"{path.relative_to(self.folder)} must be a file or a folder that can be read")
        return folder

    def close(self) -> None:
        """Let go of it. It goes away when all was sent and nothing was refused."""
        self._file.close()
        done = not self.waiting() and not (self.folder / REFUSED).exists()
        if done:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
        with suppress(OSError):
            # Others may have theirs in it.
            self.folder.parent.rmdir()


def _folders(root: Path, about: Mapping[str, Any]) -> Iterator[Path]:
    """The folders of the spools that are about the same, the oldest first."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []:
        if (stray := _stray(folder)) is not None:
            logger.error("%s is left alone: a spool has no links, but %s is not its own; remove it", folder, stray.name)
            continue
        try:
            same = read_json((folder / ABOUT).read_bytes()) == dict(about)
        except (OSError, ValueError):
            continue
        if same:
            yield folder


def _stray(folder: Path) -> Path | None:
    """What is a link, or else not what it has to be, among a spool's folder and its files."""
    kinds = {folder: stat.S_ISDIR, folder / FILES: stat.S_ISDIR}
    kinds |= {folder / name: stat.S_ISREG for name in (ABOUT, OPERATIONS, SENT, LOCK, REFUSED)}
    for path, is_kind in kinds.items():
        # A spool that has just been sent goes away.
        with suppress(FileNotFoundError, NotADirectoryError):
            if not is_kind(path.lstat().st_mode):
                return path
    return None
