"""Where Optuna keeps a study: a journal file on one machine, or a database for many.

Both know which running trials have lost their process, so that whoever finds one can end it and try again; and neither
is spoilt by a process that is killed in the middle of writing.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError

from metarec.errors import InputError

__all__ = ["JournalStudies", "OnStale", "PatientDatabase", "end_stale_trials", "open_storage", "reaching"]

logger = logging.getLogger(__name__)

OnStale = Callable[[optuna.Study, FrozenTrial], None]
"""Called with a trial that was just ended because its process is gone."""

HEARTBEAT_S = 15
GRACE_S = 60
"""Of a database: how often a trial says that it lives, and after what silence it is given up."""

PATIENCE_S = 1800.0
"""How long a database may be away before a study gives up."""

FLEETING = {
    JournalOperation.SET_TRIAL_PARAM,
    JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE,
    JournalOperation.SET_TRIAL_USER_ATTR,
    JournalOperation.SET_TRIAL_SYSTEM_ATTR,
}
"""What a trial says before its end. The next lasting line takes it to the disk."""

SETTLED_S, UNLOCKED_S = 1.0, 30.0
"""How long after its start a trial of a journal surely holds its lock, and when one without any lock has lost its
process in between."""


def open_storage(storage: str, on_stale: OnStale | None = None) -> BaseStorage:
    """The storage at the path of a journal file, or at the URL of a database.

    Raises:
        InputError: the storage does not answer.
    """
    with reaching(storage):
        if "://" not in storage:
            return JournalStudies(Path(storage), on_stale)
        database = PatientDatabase(storage, on_stale)
    # Only who has reached it once knows that it is worth waiting for.
    database.patience = PATIENCE_S
    return optuna.storages.get_storage(database)


def end_stale_trials(study: optuna.Study) -> None:
    """End the trials whose process is gone, and tell who opened the storage."""
    storage: Any = study._storage
    for trial_id in storage._get_stale_trial_ids(study._study_id):
        try:
            storage.set_trial_state_values(trial_id, state=TrialState.FAIL)
        except UpdateFinishedTrialError:
            # Somebody else was faster, or the trial has come to its end.
            continue
        on_stale = storage.get_heartbeat_stale_trial_callback()
        if on_stale is not None:
            on_stale(study, storage.get_trial(trial_id))


@contextmanager
def reaching(storage: str) -> Iterator[None]:
    """Turn what goes wrong on the way to a storage into an InputError."""
    try:
        yield
    except (OSError, ImportError, ValueError, SQLAlchemyError, StorageInternalError) as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0].rstrip(".")
        what = f"--storage {storage}" if "://" in storage else f"the journal {storage} of --out"
        raise InputError(f"{what} cannot be opened: {reason}; give another") from None


class _Journal(JournalFileBackend):
    """A journal whose last line is whole, whatever happened to who wrote it.

    The lock is the operating system's, which lets go of it when a process dies.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._file_lock = FileLock(path.with_name(path.name + ".lock"))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self._file_lock:
            end = self._mend()
            try:
                self._append(logs)
            except OSError:
                # A full disk: half a line would spoil the next one.
                os.truncate(self._file_path, end)
                raise

    def _append(self, logs: list[dict[str, Any]]) -> None:
        """Write these lines. What would be worth nothing without what comes later may be lost with the machine."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with open(self._file_path, "ab") as file:
            file.write(lines.encode())
            file.flush()
            if not {log["op_code"] for log in logs} <= FLEETING:
                os.fsync(file.fileno())

    def _mend(self) -> int:
        """Cut off a line that was never finished; the length of what is left."""
        with open(self._file_path, "r+b") as file:
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


class JournalStudies(JournalStorage, BaseHeartbeat):
    """Studies in one file, for processes of one machine (or of several that share a file system with locks).

    A running trial is a lock that its process holds. The operating system lets go of it when the process dies, however
    it dies: so who asks knows at once, and nothing has to wait for a silence.
    """

    def __init__(self, path: Path, on_stale: OnStale | None = None) -> None:
        self._locks = path.with_name(path.name + ".running")
        self._held: dict[int, FileLock] = {}
        self._on_stale = on_stale
        super().__init__(_Journal(path))

    def record_heartbeat(self, trial_id: int) -> None:
        if trial_id not in self._held:
            self._locks.mkdir(exist_ok=True)
            # Taken by one thread and let go of by another.
            lock = FileLock(self._lock_path(trial_id), thread_local=False)
            lock.acquire()
            self._held[trial_id] = lock

    def get_heartbeat_interval(self) -> int | None:
        # Nothing is to be said twice.
        return 24 * 3600

    def get_heartbeat_stale_trial_callback(self) -> OnStale | None:
        return self._on_stale

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        changed = super().set_trial_state_values(trial_id, state, values)
        if state.is_finished():
            lock = self._held.pop(trial_id, None)
            if lock is not None:
                lock.release()
            self._lock_path(trial_id).unlink(missing_ok=True)
        return changed

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        return [trial._trial_id for trial in running if self._is_stale(trial)]

    def _is_stale(self, trial: FrozenTrial) -> bool:
        if trial._trial_id in self._held or trial.datetime_start is None:
            return False
        age = (datetime.now() - trial.datetime_start).total_seconds()
        path = self._lock_path(trial._trial_id)
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
        return self._locks / str(trial_id)


class PatientDatabase(RDBStorage):
    """A database that may go away for a while: whatever is asked of it waits until it is back.

    Attributes:
        patience: seconds that it may be away; 0 until it was reached for the first time.
    """

    patience: float = 0.0
    _away_until: float = 0.0

    def __init__(self, url: str, on_stale: OnStale | None = None) -> None:
        super().__init__(url, engine_kwargs={"pool_pre_ping": True})
        # As arguments Optuna calls them an experiment, as it has done for years, and warns.
        self.heartbeat_interval, self.grace_period = HEARTBEAT_S, GRACE_S
        self._on_stale = on_stale

    def get_heartbeat_stale_trial_callback(self) -> OnStale | None:
        return self._on_stale

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        # After it was away others first have to say that they live.
        if time.monotonic() < self._away_until + GRACE_S:
            return []
        return super()._get_stale_trial_ids(study_id)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        try:
            return super().set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            # It went away after it had understood, and was told again.
            if state in (TrialState.COMPLETE, TrialState.PRUNED):
                known = self.get_trial(trial_id)
                if known.state == state and known.values == (None if values is None else list(values)):
                    return True
            raise


def _is_away(error: BaseException) -> bool:
    """Whether this tells of a database that cannot be reached, and not of something that it refuses."""
    cause = error.__cause__ or error
    return isinstance(cause, OperationalError | InterfaceError | PendingRollbackError) or (
        isinstance(cause, DBAPIError) and cause.connection_invalidated
    )


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a database, tried again while it is away."""

    @wraps(method)
    def wait_and_call(self: PatientDatabase, *args: Any, **kwargs: Any) -> Any:
        waiting_since = None
        pause = 0.1
        while True:
            try:
                answer = method(self, *args, **kwargs)
            except (StorageInternalError, SQLAlchemyError) as error:
                now = time.monotonic()
                if waiting_since is None:
                    waiting_since = now
                if not _is_away(error) or now - waiting_since >= self.patience:
                    raise
                if waiting_since == now:
                    logger.warning("the database of the study does not answer; waiting for it")
                time.sleep(pause)
                pause = min(2 * pause, 1.0)
            else:
                if waiting_since is not None:
                    self._away_until = time.monotonic()
                    away = self._away_until - waiting_since
                    logger.info("the database of the study answers again, after %.0f s", away)
                return answer

    return wait_and_call


# Whatever Optuna asks of a storage: the methods of its abstract class, and what its cache and its heartbeats call.
for _name in (
    *BaseStorage.__abstractmethods__,
    "_create_new_trial",
    "_get_best_trial_id",
    "_get_stale_trial_ids",
    "_get_trials",
    "_set_trial_param",
    "get_trial_id_from_study_id_trial_number",
    "record_heartbeat",
):
    setattr(PatientDatabase, _name, _patient(getattr(PatientDatabase, _name)))
