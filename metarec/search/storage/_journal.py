"""Studies in a journal file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from metarec.files import make_folder
from metarec.search.storage._optuna import OnStale, StaleTrials, id_of, may_be_lost

__all__ = ["JournalStudies"]

SETTLED_S, UNLOCKED_S = 1.0, 30.0
"""The age from which a running trial surely holds its lock, and the age from which one without a lock file is stale."""


class _Journal(JournalFileBackend):
    """A journal file whose last line is whole, even if its writer was killed.

    The operating system releases the lock when a process dies.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self.lock = FileLock(path.with_name(path.name + ".lock"))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self.lock:
            end = self._mend()
            try:
                with self.path.open("ab") as file:
                    file.write(lines.encode())
                    file.flush()
                    if not may_be_lost(logs):
                        os.fsync(file.fileno())
            except OSError:
                # The disk is full: half a line would spoil the next one.
                os.truncate(self.path, end)
                raise

    def _mend(self) -> int:
        """Cut off an unfinished last line; the length of the rest."""
        with self.path.open("r+b") as file:
            end = file.seek(0, 2)
            if not end:
                return 0
            file.seek(end - 1)
            if file.read(1) == b"\n":
                return end
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            return whole


class JournalStudies(StaleTrials, JournalStorage):
    """Studies in one file, for processes of one machine (or of several that share a file system with locks).

    A process holds a lock for each trial that it runs. The operating system releases the lock when the process dies,
    so stale trials are found at once, without waiting for a missing heartbeat.
    """

    def __init__(self, path: Path, on_stale: OnStale | None = None) -> None:
        self.on_stale = on_stale
        self.held: dict[int, FileLock] = {}
        self.lock_folder = path.with_name(path.name + ".running")
        super().__init__(_Journal(path))

    def record_heartbeat(self, trial_id: int) -> None:
        if trial_id not in self.held:
            make_folder(self.lock_folder)
            # One thread acquires it and another releases it.
            lock = FileLock(self._lock_path(trial_id), thread_local=False)
            lock.acquire()
            self.held[trial_id] = lock

    def get_heartbeat_interval(self) -> int | None:
        # The first heartbeat takes the lock; no other is needed.
        return 24 * 3600

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        changed = super().set_trial_state_values(trial_id, state, values)
        if state.is_finished():
            lock = self.held.pop(trial_id, None)
            if lock is not None:
                lock.release()
            self._lock_path(trial_id).unlink(missing_ok=True)
        return changed

    def stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        return [id_of(trial) for trial in running if self._is_stale(trial)]

    def _is_stale(self, trial: FrozenTrial) -> bool:
        if id_of(trial) in self.held or trial.datetime_start is None:
            return False
        age = (datetime.now() - trial.datetime_start).total_seconds()
        path = self._lock_path(id_of(trial))
        if not path.exists():
            return age > UNLOCKED_S
        if age < SETTLED_S:
            return False
        try:
            FileLock(path, timeout=0).acquire().lock.release()
        except Timeout:
            return False
        return True

    def _lock_path(self, trial_id: int) -> Path:
        return self.lock_folder / str(trial_id)
