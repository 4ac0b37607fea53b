"""A study and its trials, as they are spooled: nothing waits for the store of runs, and nothing fails with it."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from metarec.tracking._base import Dataset, Run, State, StudyRun, TrialFacts, TrialRun
from metarec.tracking._limits import clean_key, first_line
from metarec.tracking._mlflow_runs import Tag, final_name, trial_name
from metarec.tracking.spool._reconcile import reconciled
from metarec.tracking.spool._sender import Sender, child_runs, passes
from metarec.tracking.spool._spool import Operation, Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["SpooledStudyRun", "SpooledTrialRun"]

logger = logging.getLogger(__name__)

FLUSH_S = 20.0
"""How long a study waits for the store of runs before it looks at it, and at its end; what is left is sent later."""


class _Channel:
    """What runs of a process share: its spool, and who sends it."""

    def __init__(self, spool: Spool, sender: Sender) -> None:
        self.spool = spool
        self.sender = sender

    def say(self, what: str, trial: int | None, **content: Any) -> None:
        operation: Operation = {"what": what, "trial": trial, "time": int(time.time() * 1000), **content}
        self.spool.append(operation)
        self.sender.put(self.spool, [operation])


class _SpooledRun(Run):
    def __init__(self, channel: _Channel, trial: int | None) -> None:
        self._channel = channel
        self._trial = trial
        self._metrics: list[tuple[str, float, int, int]] = []

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        now = int(time.time() * 1000)
        for key, value in metrics.items():
            number = float(value)
            # SQL stores clamp infinity to 1.8e308, which flattens every chart with it; NaN leaves a gap.
            self._metrics.append((clean_key(key), number if math.isfinite(number) else math.nan, now, step))

    def describe(self, markdown: str) -> None:
        self._say(tags={Tag.NOTE: markdown})

    def finish(self, state: State, *, reason: str | None = None, value: float | None = None) -> None:
        tags: dict[str, str] = {Tag.STATE: state}
        if reason is not None:
            tags[Tag.REASON] = reason
            tags |= self._explanation(state, reason)
        self._say("end", tags=tags, state=state, name=self._final_name(state, value))
        self.finished = True

    @contextmanager
    def artifacts(self) -> Iterator[Path]:
        folder = self._channel.spool.new_files()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder)
            raise
        self._upload(folder)

    def _upload(self, folder: Path) -> None:
        self._channel.say("files", self._trial, folder=str(folder.relative_to(self._channel.spool.folder)))

    def _say(self, what: str = "log", **content: Any) -> None:
        """An operation, with the metrics that have gathered."""
        metrics, self._metrics = self._metrics, []
        self._channel.say(what, self._trial, metrics=metrics, **content)

    def _final_name(self, state: State, value: float | None) -> str | None:
        """What the run is called from now on; None keeps its name."""
        return None

    def _explanation(self, state: State, reason: str) -> dict[str, str]:
        """Tags that say the reason in full, where there is nothing better to read on the run's page."""
        return {}


class SpooledTrialRun(_SpooledRun, TrialRun):
    """Keeps its numbers until it is persisted, so that a trial costs few calls however many epochs it has."""

    def __init__(self, channel: _Channel, number: int, name: str) -> None:
        super().__init__(channel, number)
        self._number = number
        self._name = name
        self._curves: set[str] = set()

    @property
    def run_id(self) -> str | None:  # type: ignore[override]  # known once the store has answered
        return self._channel.sender.run_ids.get(self._number)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._curves.update(metrics)
        super().log_metrics(metrics, step=epoch)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        # MLflow takes the value at the last step for the metric: the last epoch's and not this one.
        if clash := sorted(self._curves.intersection(metrics)):
            raise ValueError(f"final metrics must have names of their own but got the curves {clash}")
        super().log_metrics(metrics, step=step)

    def persist(self) -> None:
        if self._metrics:
            self._say()
        self._channel.spool.persist()

    def fail(self, error: BaseException) -> None:
        with self.artifacts() as folder:
            (folder / "traceback.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        super().fail(error)

    def _final_name(self, state: State, value: float | None) -> str:
        return final_name(self._name, state, value)

    def _explanation(self, state: State, reason: str) -> dict[str, str]:
        # The page cuts a long tag short; a description it shows.
        return {Tag.NOTE: f"**{state}**: {reason}"}


def _ends_study(operation: Operation) -> bool:
    return operation["what"] == "end" and operation["trial"] is None


class SpooledStudyRun(_SpooledRun, StudyRun):
    """The parent run of a study, and what this process has to say of it and of its trials.

    Args:
        client: of the store, which is called `store` in messages. run_id, experiment_id: the run's.
        spools: the folder of the spools. starts: whether this process began the study, and so looks after all of it;
            else it only adds trials.
    """

    def __init__(
        self,
        client: MlflowClient,
        store: str,
        name: str,
        run_id: str,
        experiment_id: str,
        spools: Path,
        *,
        starts: bool,
    ) -> None:
        self.name = name
        self.run_id: str = run_id
        self.experiment_id: str = experiment_id
        self._client = client
        self._spools = spools
        self._starts = starts
        self._about = {"study": name, "run_id": run_id}
        tags = {Tag.PARENT: run_id, Tag.STUDY: name, Tag.ROLE: "trial", Tag.SOURCE: "metarec"}
        sender = Sender(client, run_id, experiment_id, tags, store)
        self._adopted: list[Spool] = []
        super().__init__(_Channel(Spool.new(spools, self._about), sender), None)
        if starts:
            self.adopt()

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        super().log_metrics(metrics, step=step)
        self._say()

    def start_trial(
        self, number: int, params: Mapping[str, Any], *, label: str = "", tags: Mapping[str, str] | None = None
    ) -> TrialRun:
        values = {key: str(value) for key, value in params.items()}
        name = trial_name(number, label)
        # Its run is there at once; what is said of it may wait for more.
        self._channel.say("begin", number, name=name)
        self._channel.say("log", number, params=values, tags={Tag.STATE: "running", **(tags or {})})
        return SpooledTrialRun(self._channel, number, name)

    def log_datasets(self, datasets: Sequence[Dataset]) -> None:
        said = [{**one._asdict(), "profile": json.dumps(dict(one.profile))} for one in datasets]
        self._channel.say("datasets", None, datasets=said)

    def register(self, path: str, name: str, tags: Mapping[str, str]) -> None:
        self._channel.say("register", None, path=path, model=name, tags=dict(tags))

    def adopt(self) -> None:
        """Send what dead processes had to say of this study."""
        for spool in Spool.left_behind(self._spools, self._about):
            self._adopted.append(spool)
            waiting = spool.waiting()
            if self._starts:
                # The study goes on: that an earlier session of it has ended is no longer so.
                waiting = [{**one, "what": "log", "tags": {}} if _ends_study(one) else one for one in waiting]
            self._channel.sender.put(spool, waiting, adopted=True)

    def flush(self, timeout: float) -> int:
        return self._channel.sender.flush(timeout)

    def run_ids(self) -> dict[int, str]:
        try:
            runs = child_runs(self._client, self.experiment_id, self.run_id)
        except Exception as error:
            if not passes(error):
                raise
            return {}
        return {int(run.data.tags[Tag.TRIAL]): run.info.run_id for run in runs if Tag.TRIAL in run.data.tags}

    def reconcile(self, trials: Iterable[TrialFacts]) -> list[str]:
        self.adopt()
        if self.flush(FLUSH_S):
            return []
        try:
            return reconciled(self._client, self.experiment_id, self.run_id, self.name, trials)
        except Exception as error:
            if not passes(error):
                raise
            logger.warning(
                "the runs of study %s could not be compared with its trials: %s", self.name, first_line(error)
            )
            return []

    def end_if_abandoned(self) -> list[str]:
        if Spool.lives(self._spools, self._about, but=self._channel.spool.folder):
            return []
        try:
            status = self._client.get_run(self.run_id).info.status
        except Exception as error:
            if not passes(error):
                raise
            return []
        if status != "RUNNING":
            return []
        self.finish("interrupted", reason="whoever began it was killed")
        return [f"the run of study {self.name} was left open: ended as interrupted"]

    def close(self) -> None:
        waiting = self.flush(FLUSH_S)
        self._channel.sender.stop()
        for spool in (*self._adopted, self._channel.spool):
            spool.close()
        if waiting:
            logger.warning(
                "%d records of study %s could not be sent and wait in %s: the same command sends them, and so does "
                "python -m metarec.study repair",
                waiting,
                self.name,
                self._spools,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._starts:
            super().__exit__(kind, error, trace)
        self.close()
