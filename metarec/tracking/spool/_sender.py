"""Sends what was spooled, in order and exactly once, however often the store is away."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from metarec.tracking._limits import DIGEST_LENGTH, PARAM_LENGTH, TAG_LENGTH, batches, clean_key, cut, first_line
from metarec.tracking._mlflow_runs import STATUS, Tag, found_runs, trial_name
from metarec.tracking._registry import register
from metarec.tracking.spool._spool import Operation, Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Sender", "child_runs", "passes"]

logger = logging.getLogger(__name__)

PAUSES_S = (0.1, 5.0)
"""Between attempts: the first one, and the longest."""

LINGER_S = 2.0
"""So long what comes first waits for what belongs to it, unless somebody waits: a short trial is sent as one."""

ALONE = frozenset({"begin", "files", "datasets", "register"})
"""What is sent by calls of its own."""

LATE_S = 30.0
"""A run that is created so long after it began may have been created by somebody else meanwhile."""


def child_runs(client: MlflowClient, experiment_id: str, parent_id: str, trial: int | None = None) -> list[Any]:
    """The runs of a study's trials, or of one of them, whatever their state."""
    query = f"tags.`{Tag.PARENT}` = '{parent_id}' and tags.`{Tag.ROLE}` = 'trial'"
    if trial is not None:
        query += f" and tags.`{Tag.TRIAL}` = '{trial}'"
    return list(found_runs(client, experiment_id, query))


class _Entry(NamedTuple):
    """An operation of a spool, and whether another process was to send it, which may have done so."""

    spool: Spool
    operation: Operation
    adopted: bool


class Sender:
    """A thread that tells the store of runs what stands in spools.

    While the store is away it waits and tries again, and nobody else notices. Every call but one may be repeated
    without a second effect; a run is created a second time only after it was looked for. What the store refuses for
    good is kept beside the spool, with an error in the log.

    Args:
        client: of the store. run_id, experiment_id: the study's own run. tags: of every trial's run.
        store: how the store is called in messages.
    """

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str, tags: dict[str, str], store: str) -> None:
        self.run_ids: dict[int, str] = {}
        self._client = client
        self._run_id, self._experiment_id = run_id, experiment_id
        self._tags = tags
        self._store = store
        self._queue: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._flushing = 0
        self._thread: threading.Thread | None = None

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
            self._changed.wait_for(lambda: not self._queue, timeout)
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
                if not passes(error) and len(operations) > 1:
                    # So that no other is lost with the one that is refused.
                    return all(self._until_sent(spool, [alone], adopted=True) for alone in operations)
                if not passes(error):
                    logger.error(
                        "%s refuses what trial %s has to say: %s", self._store, operation["trial"], first_line(error)
                    )
                    spool.refuse(operation, str(error))
                    return True
                if waiting_since is None:
                    waiting_since = time.monotonic()
                    logger.warning("%s does not answer; runs are kept on disk until it does", self._store)
                with self._changed:
                    if self._changed.wait_for(lambda: self._stopping, pause):
                        return False
                pause = min(2 * pause, longest)
            else:
                if waiting_since is not None:
                    logger.info("%s answers again, after %.0f s", self._store, time.monotonic() - waiting_since)
                return True

    def _send(self, spool: Spool, operation: Operation, doubtful: bool) -> None:
        what, trial = operation["what"], operation["trial"]
        run_id = self._run_id if trial is None else self._run_of(trial, operation, doubtful)
        if what == "begin":
            return
        if what == "files":
            folder = spool.folder / operation["folder"]
            if folder.is_dir():
                self._client.log_artifacts(run_id, str(folder))
                shutil.rmtree(folder)
            return
        if what == "register":
            register(self._client, run_id, operation["path"], operation["model"], operation["tags"])
            return
        if what == "datasets":
            self._client.log_inputs(run_id, [_input(dataset) for dataset in operation["datasets"]])
            return
        self._log(run_id, operation)
        if what == "end":
            self._client.set_terminated(run_id, STATUS[operation["state"]], end_time=operation["time"])

    def _run_of(self, trial: int, operation: Operation, doubtful: bool) -> str:
        """The run of a trial, which is created with its first operation."""
        known = self.run_ids.get(trial)
        if known is not None:
            return known
        began = operation.get("began")
        late = began is not None and time.time() - began / 1000 > LATE_S
        found = []
        if doubtful or late or began is None:
            found = child_runs(self._client, self._experiment_id, self._run_id, trial)
        if found:
            self.run_ids[trial] = found[0].info.run_id
        else:
            created = self._client.create_run(
                self._experiment_id,
                start_time=operation["time"] if began is None else began,
                tags={**self._tags, Tag.TRIAL: str(trial)},
                run_name=operation.get("name") or trial_name(trial),
            )
            self.run_ids[trial] = created.info.run_id
        return self.run_ids[trial]

    def _log(self, run_id: str, operation: Operation) -> None:
        """Everything that an operation says, in as few calls as possible."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(*line) for line in operation["metrics"]]
        params = [Param(clean_key(key), cut(value, PARAM_LENGTH)) for key, value in operation["params"].items()]
        # As a tag a name costs no call of its own.
        named = {Tag.NAME: operation["name"]} if operation.get("name") else {}
        said = {**operation["tags"], **named}
        tags = [RunTag(clean_key(key), cut(value, TAG_LENGTH)) for key, value in said.items()]
        for batch in batches(metrics, params, tags):
            self._client.log_batch(run_id, *batch)


def _input(dataset: dict[str, str]) -> Any:
    """A dataset as MLflow has it, whose digests are short; the profile may have the whole one."""
    from mlflow.entities import Dataset, DatasetInput

    digest = dataset["digest"][:DIGEST_LENGTH]
    source = dataset["source"]
    return DatasetInput(Dataset(dataset["name"], digest, "metarec", source, profile=dataset["profile"]), tags=[])


def _together(queue: Iterable[_Entry]) -> list[_Entry]:
    """The entries at the head that can be sent as one: what is said of one run in a row. Some go alone."""
    group: list[_Entry] = []
    for entry in queue:
        if group:
            last = group[-1]
            whats = {last.operation["what"], entry.operation["what"]}
            same = (entry.spool, entry.adopted) == (last.spool, last.adopted)
            if not same or entry.operation["trial"] != last.operation["trial"] or whats & ALONE:
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


def passes(error: BaseException) -> bool:
    """Whether it is worth trying again: the store is away, overloaded or broken, and has not refused."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())
        # Who may not write now may be let in again, with another password or by another proxy.
        return status >= 500 or status in (401, 403, 408, 429)
    return isinstance(error, OSError | SQLAlchemyError)
