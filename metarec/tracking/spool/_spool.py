"""The records of one process, on disk until the store of runs has them."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from metarec.files import make_folder

__all__ = ["Operation", "Spool"]

Operation = dict[str, Any]
"""JSON values. ``what`` is begin, log, files, datasets, register or end. ``child`` is a trial's number or a cell's key;
for the parent's own run it is None."""

ABOUT, OPERATIONS, SENT, LOCK, REFUSED = "about.json", "operations.jsonl", "sent", "owner.lock", "refused.jsonl"


class Spool:
    """A journal of operations in a folder of its own.

    An operation is a line. How many lines were sent stands in a file beside it. The owner holds a lock, which the
    operating system releases however the process dies: so others see whose operations they have to send.

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
            except Timeout:
                continue
            if (folder / OPERATIONS).exists():
                yield cls(folder, lock)

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
        # Earlier versions wrote "trial" for "child".
        found = [json.loads(line) for line in lines[self.sent :]]
        return [{"child": one.pop("trial", None), **one} for one in found]

    @property
    def sent(self) -> int:
        """How many operations were sent, or refused for good."""
        try:
            return int((self.folder / SENT).read_text())
        except (OSError, ValueError):
            return 0

    @sent.setter
    def sent(self, count: int) -> None:
        temporary = self.folder / f"{SENT}.part"
        temporary.write_text(str(count))
        os.replace(temporary, self.folder / SENT)

    def refuse(self, operation: Operation, reason: str) -> None:
        """Keep an operation that the store will never take, for people to look at."""
        with (self.folder / REFUSED).open("a") as file:
            file.write(json.dumps({**operation, "refused": reason}) + "\n")

    def new_files(self) -> Path:
        """A new folder, for files that are to be sent."""
        folder = self.folder / "files" / uuid.uuid4().hex
        make_folder(folder)
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
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            same = json.loads((folder / ABOUT).read_text()) == dict(about)
        except (OSError, ValueError):
            continue
        if same:
            yield folder
