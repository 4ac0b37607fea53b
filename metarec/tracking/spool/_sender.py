"""Sends spooled operations in order and exactly once, however often the store is away."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from metarec.errors import masked, printable
from metarec.tracking._limits import (
    DATASET_NAME_LENGTH,
    DATASET_SOURCE_LENGTH,
    DIGEST_LENGTH,
    RUN_NAME_LENGTH,
    cut,
    first_line,
)
from metarec.tracking._mlflow_runs import STATUS, Parent, Tag, trial_name, write
from metarec.tracking._registry import model_name, register
from metarec.tracking._views import view_tag
from metarec.tracking.spool._records import UNFIT, Operation, UnfitRecord
from metarec.tracking.spool._spool import REFUSED, Spool

__all__ = ["Sender", "unless_away"]

logger = logging.getLogger(__name__)

PAUSES_S = (0.1, 5.0)
"""Between attempts: the first one, and the longest."""

QUIET_S = 10.0
"""How long a flush waits without a message."""

LINGER_S = 2.0
"""How long an operation waits for others of its run, unless there is a flush: a short trial is sent as one."""

ALONE = frozenset({"begin", "files", "datasets", "register", "view", UNFIT})
"""Operations that are sent by calls of their own."""

LATE_S = 30.0
"""A run that is created so long after it began may have been created by another process meanwhile."""


class _Entry(NamedTuple):
    """An operation of a spool, and whether another process was to send it, which may have done so."""

    spool: Spool
    operation: Operation
    adopted: bool


class Sender:
    """A thread that sends the operations of spools to the store of runs.

    While the store is away it waits and tries again. Every call but the creation of a run may be repeated without a
    second effect; in doubt a run is looked for before it is created. What the store refuses for good, and a record that
    breaks a rule of the spool, is kept beside the others, with an error in the log.

    Args:
        parent: the run of the study or comparison whose records are sent. spool: of this process.
    """

    def __init__(self, parent: Parent, spool: Spool) -> None:
        self.spool = spool
        self.run_ids: dict[int | str, str] = {}
        self._parent = parent
        self._client = parent.client
        self._queue: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._flushing = 0
        self._thread: threading.Thread | None = None

    def record(self, what: str, child: int | str | None, **content: Any) -> None:
        """Spool an operation of this process, and send it."""
        operation: Operation = {"what": what, "child": child, "time": int(time.time() * 1000), **content}
        self.spool.append(operation)
        self.put(self.spool, [operation])

    def put(self, spool: Spool, operations: Iterable[Operation], *, adopted: bool = False) -> None:
        """Send these operations of a spool, after all that was put before."""
        with self._changed:
            self._queue.extend(_Entry(spool, operation, adopted) for operation in operations)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="metarec-sender", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> int:
        """Wait until all was sent, at most so many seconds; how many operations still wait."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            quiet = min(timeout, QUIET_S)
            if not self._changed.wait_for(lambda: not self._queue, quiet) and quiet < timeout:
                now = time.time()
                since, until = (
                    time.strftime("%H:%M:%S", time.localtime(at)) for at in (now - quiet, now + timeout - quiet)
                )
                logger.warning("waiting for %s since %s, until %s at the latest", self._parent.store, since, until)
                self._changed.wait_for(lambda: not self._queue, timeout - quiet)
            self._flushing -= 1
            return len(self._queue)

    def stop(self) -> None:
        """End the thread, after the attempt that it is at."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(1.0)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                self._changed.wait_for(lambda: self._stopping or self._flushing or not self._may_grow(), LINGER_S)
                if self._stopping:
                    return
                group = _together(self._queue)
            spool = group[0].spool
            if not self._until_sent(spool, [entry.operation for entry in group], group[0].adopted):
                return
            spool.sent += len(group)
            with self._changed:
                for _ in group:
                    self._queue.popleft()
                self._changed.notify_all()

    def _may_grow(self) -> bool:
        """Whether what comes next may belong to what is sent next."""
        return len(_together(self._queue)) == len(self._queue) and self._queue[-1].operation["what"] == "log"

    def _until_sent(self, spool: Spool, operations: Sequence[Operation], adopted: bool) -> bool:
        """Send operations of one run as one, however long that takes; False if it is to stop before."""
        operation = _merged(operations)
        pause, longest = PAUSES_S
        waiting_since = None
        while True:
            try:
                self._send(spool, operation, adopted or waiting_since is not None)
            except Exception as error:
                if not _passes(error) and len(operations) > 1:
                    # So that no other is lost with the one that is refused.
                    return all(self._until_sent(spool, [alone], adopted=True) for alone in operations)
                if not _passes(error):
                    self._log_refusal(spool, operation, error)
                    spool.refuse(operation, masked(str(error)))
                    return True
                if waiting_since is None:
                    waiting_since = time.monotonic()
                    logger.warning("%s does not answer; runs are kept on disk until it does", self._parent.store)
                with self._changed:
                    if self._changed.wait_for(lambda: self._stopping, pause):
                        return False
                pause = min(2 * pause, longest)
            else:
                if waiting_since is not None:
                    logger.info("%s answers again, after %.0f s", self._parent.store, time.monotonic() - waiting_since)
                return True

    def _log_refusal(self, spool: Spool, operation: Operation, error: Exception) -> None:
        if isinstance(error, UnfitRecord):
            logger.error("%s: a record is not sent but kept in %s: %s", spool.folder, REFUSED, error)
            return
        child = operation["child"]
        whose = self._parent.role if child is None else self._parent.child_role(child)
        name = self._parent.name if child is None else child
        logger.error("%s refuses a record of %s %s: %s", self._parent.store, whose, name, first_line(error))

    def _check(self, operation: Operation) -> None:
        """Raise UnfitRecord for a record of something else than this study or comparison."""
        what, child = operation["what"], operation["child"]
        if what == UNFIT:
            raise UnfitRecord(operation["problem"])
        if isinstance(child, int) and self._parent.role != "study":
            raise UnfitRecord(f"a {self._parent.role} has no {self._parent.child_role(child)} {child}")
        own = model_name(self._parent.name)
        if what == "register" and operation["model"] != own:
            raise UnfitRecord(f"the model of this study is {own} but another one was to be registered")

    def _send(self, spool: Spool, operation: Operation, doubtful: bool) -> None:
        self._check(operation)
        what, child = operation["what"], operation["child"]
        run_id = self._parent.run_id if child is None else self._run_of(child, operation, doubtful)
        if what == "begin":
            return
        if what == "files":
            folder = spool.files_of(operation)
            if folder is not None:
                self._client.log_artifacts(run_id, str(folder))
                shutil.rmtree(folder)
            return
        if what == "register":
            # Earlier versions recorded no description.
            about = operation.get("about", "")
            register(self._client, run_id, operation["path"], operation["model"], operation["tags"], about)
            return
        if what == "view":
            self._client.set_experiment_tag(
                self._parent.experiment_id, view_tag(operation["key"]), operation["content"]
            )
            return
        if what == "datasets":
            self._client.log_inputs(run_id, [_input(dataset) for dataset in operation["datasets"]])
            return
        # As a tag a name costs no call of its own.
        named = {Tag.NAME: cut(operation["name"], RUN_NAME_LENGTH)} if operation.get("name") else {}
        write(self._client, run_id, operation["metrics"], operation["params"], {**operation["tags"], **named})
        if what == "end":
            self._client.set_terminated(run_id, STATUS[operation["state"]], end_time=operation["time"])

    def _run_of(self, child: int | str, operation: Operation, doubtful: bool) -> str:
        """The run of a trial, a cell or a row, which is created with its first operation."""
        if child in self.run_ids:
            return self.run_ids[child]
        began = operation.get("began")
        name = operation.get("name") or (trial_name(child) if isinstance(child, int) else child)
        late = began is not None and time.time() - began / 1000 > LATE_S
        found = []
        # A row is there already where its study or comparison goes on.
        if doubtful or late or began is None or self._parent.child_role(child) == "row":
            found = self._parent.children(child)
        tags = self._parent.child_tags(child)
        if not found and "below" in operation:
            tags[Tag.PARENT] = self._run_of(operation["below"], {"time": operation["time"]}, doubtful)
        run = (
            found[0]
            if found
            else self._client.create_run(
                self._parent.place_of(child),
                start_time=operation["time"] if began is None else began,
                tags=tags,
                run_name=cut(name, RUN_NAME_LENGTH),
            )
        )
        self.run_ids[child] = run.info.run_id
        return self.run_ids[child]


def _input(dataset: dict[str, str]) -> Any:
    """A dataset as MLflow has it, whose digests are short; the profile may have the whole one."""
    from mlflow.entities import Dataset, DatasetInput

    digest = printable(dataset["digest"])[:DIGEST_LENGTH]
    name, source = cut(dataset["name"], DATASET_NAME_LENGTH), cut(dataset["source"], DATASET_SOURCE_LENGTH)
    return DatasetInput(Dataset(name, digest, "metarec", source, profile=printable(dataset["profile"])), tags=[])


def _together(queue: Iterable[_Entry]) -> list[_Entry]:
    """The entries at the head that can be sent as one: those of one run in a row. Some go alone."""
    group: list[_Entry] = []
    for entry in queue:
        if group:
            last = group[-1]
            whats = {last.operation["what"], entry.operation["what"]}
            same = (entry.spool, entry.adopted) == (last.spool, last.adopted)
            if not same or entry.operation["child"] != last.operation["child"] or whats & ALONE:
                break
            if last.operation["what"] == "end":
                break
        group.append(entry)
    return group


def _merged(operations: Sequence[Operation]) -> Operation:
    """Several operations of one run as one, which ends it if the last one does; ``began`` is when the run began."""
    first, last = operations[0], operations[-1]
    merged: Operation = {**last, "metrics": [], "params": {}, "tags": {}}
    if first["what"] == "begin":
        merged["began"] = first["time"]
    for operation in operations:
        merged["metrics"] += operation.get("metrics", [])
        merged["params"] |= operation.get("params", {})
        merged["tags"] |= operation.get("tags", {})
    return merged


@contextmanager
def unless_away(message: str = "") -> Iterator[None]:
    """Leave the block where the store does not answer; with a message, this is logged."""
    try:
        yield
    except Exception as error:
        if not _passes(error):
            raise
        if message:
            logger.warning("%s: %s", message, first_line(error))


def _passes(error: BaseException) -> bool:
    """Whether it is worth trying again: the store is away, overloaded or broken, and has not refused."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())
        # Who may not write now may be let in again, with another password or by another proxy.
        return status >= 500 or status in (401, 403, 408, 429)
    return isinstance(error, OSError | SQLAlchemyError)
