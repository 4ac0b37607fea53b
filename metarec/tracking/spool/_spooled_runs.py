"""Studies, comparisons and their child runs, as they are spooled: none waits for the store or fails with it."""

from __future__ import annotations

import hashlib
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
from typing import Any

from metarec.errors import masked, printable
from metarec.tracking._base import ComparisonRun, ParentRun, Run, StudyRun, TrialRun
from metarec.tracking._facts import CellRecord, Dataset, Row, State, TrialFacts, View
from metarec.tracking._mlflow_runs import ROW, Parent, Point, Tag, final_name, trial_name
from metarec.tracking._notes import markdown_text
from metarec.tracking._views import view_content, view_key
from metarec.tracking.spool._reconcile import reconciled
from metarec.tracking.spool._records import Operation
from metarec.tracking.spool._sender import Sender, unless_away
from metarec.tracking.spool._spool import Spool

__all__ = ["SpooledComparisonRun", "SpooledStudyRun", "SpooledTrialRun"]

logger = logging.getLogger(__name__)

FLUSH_S = 20.0
"""How long a study waits for the store of runs before it looks at it, and at its end; what is left is sent later."""


class _SpooledRun(Run):
    def __init__(self, sender: Sender, child: int | str | None) -> None:
        self._sender = sender
        self._child = child
        self._metrics: list[Point] = []

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        now = int(time.time() * 1000)
        for key, value in metrics.items():
            number = float(value)
            # SQL stores clamp infinity to 1.8e308, which flattens every chart with it; NaN leaves a gap.
            self._metrics.append((key, number if math.isfinite(number) else math.nan, now, step))

    def tag(self, name: str, text: str) -> None:
        self._record(tags={name: text})

    def describe(self, markdown: str) -> None:
        self._record(tags={Tag.NOTE: markdown})

    def finish(self, state: State, *, reason: str | None = None, value: float | None = None) -> None:
        self._end(state, reason)

    def _end(
        self,
        state: State,
        reason: str | None = None,
        *,
        note: str | None = None,
        labels: Mapping[str, str] | None = None,
        **content: Any,
    ) -> None:
        optional = {Tag.REASON: reason, Tag.NOTE: note}
        tags = {Tag.STATE: state, **(labels or {}), **{tag: text for tag, text in optional.items() if text is not None}}
        self._record("end", tags=tags, state=state, **content)
        self.finished = True

    @contextmanager
    def artifacts(self) -> Iterator[Path]:
        folder = self._sender.spool.new_files()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder)
            raise
        self._sender.record("files", self._child, folder=str(folder.relative_to(self._sender.spool.folder)))

    def _record(self, what: str = "log", **content: Any) -> None:
        """An operation, with the metrics that have gathered."""
        metrics, self._metrics = self._metrics, []
        self._sender.record(what, self._child, metrics=metrics, **content)


class _SpooledRowRun(_SpooledRun):
    """A row of a table. Its numbers are sent with its end."""

    def __init__(self, sender: Sender, child: str, label: str) -> None:
        super().__init__(sender, child)
        self._label = label

    def finish(self, state: State, *, reason: str | None = None, value: float | None = None) -> None:
        self._end(state, reason, name=final_name(self._label, state, value))


class SpooledTrialRun(_SpooledRun, TrialRun):
    """Keeps its numbers until it is persisted, so that a trial costs few calls however many epochs it has."""

    def __init__(self, sender: Sender, number: int, name: str) -> None:
        super().__init__(sender, number)
        self._number = number
        self._name = name
        self._curves: set[str] = set()

    @property
    def run_id(self) -> str | None:  # type: ignore[override]  # set when the store has answered
        return self._sender.run_ids.get(self._number)

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
            self._record()
        self._sender.spool.persist()

    def fail(self, error: BaseException) -> None:
        with self.artifacts() as folder:
            text = printable(masked("".join(traceback.format_exception(error))), keep="\n\t")
            (folder / "traceback.txt").write_text(text, encoding="utf-8")
        super().fail(error)

    def finish(self, state: State, *, reason: str | None = None, value: float | None = None) -> None:
        self.end(state, reason, value)

    def end(self, state: State, reason: str | None, value: float | None, **content: Any) -> None:
        """End the run, with more content of its last record."""
        # The page cuts a long tag short; a description it shows.
        note = None if reason is None else f"**{state}**: {markdown_text(reason)}"
        self._end(state, reason, note=note, name=final_name(self._name, state, value), **content)


def _row_key(key: str) -> str:
    """The key of a row as the spool and the store have it: names of strategies and models are any text."""
    return ROW + hashlib.sha256(key.encode()).hexdigest()[:32]


def _ends_parent(operation: Operation) -> bool:
    return operation["what"] == "end" and operation["child"] is None


class _SpooledParentRun(_SpooledRun, ParentRun):
    """The run of a study or a comparison, and the records of this process on it and its children.

    Args:
        spools: the folder of the spools.
        starts: whether this process began it, and so looks after all of it; else it only adds child runs.
    """

    def __init__(self, parent: Parent, spools: Path, *, starts: bool) -> None:
        self.run_id: str = parent.run_id
        self.experiment_id: str = parent.experiment_id
        self._parent = parent
        self._spools = spools
        self._starts = starts
        self._about = {"study": parent.name, "run_id": parent.run_id}
        self._adopted: list[Spool] = []
        self._rows: list[Run] = []
        super().__init__(Sender(parent, Spool.new(spools, self._about)), None)
        if starts:
            self.adopt()

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        super().log_metrics(metrics, step=step)
        self._record()

    def adopt(self) -> None:
        """Send what dead processes recorded of it and did not send."""
        for spool in Spool.left_behind(self._spools, self._about):
            self._adopted.append(spool)
            waiting = spool.waiting()
            if self._starts:
                # It goes on: that an earlier session has ended it is no longer true.
                waiting = [{**one, "what": "log", "tags": {}} if _ends_parent(one) else one for one in waiting]
            self._sender.put(spool, waiting, adopted=True)

    def flush(self, timeout: float) -> int:
        return self._sender.flush(timeout)

    def close(self) -> None:
        waiting = self.flush(FLUSH_S)
        self._sender.stop()
        for spool in self._spools_held():
            spool.close()
        if waiting:
            repair = ", and so does python -m metarec.study repair" if self._parent.role == "study" else ""
            logger.warning(
                "%d records of %s %s could not be sent and wait in %s: the same command sends them%s",
                *(waiting, self._parent.role, self._parent.name, self._spools, repair),
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._starts:
            super().__exit__(kind, error, trace)
        self.close()

    def _spools_held(self) -> list[Spool]:
        return [*self._adopted, self._sender.spool]

    def recorded_cells(self) -> set[str]:
        # First the spools: what is sent meanwhile is in the store.
        waiting = [one for spool in self._spools_held() for one in spool.waiting()]
        ended = {str(one["child"]) for one in waiting if one["what"] == "end"}
        tag = f"metarec.{self._parent.cell_role}"
        with unless_away():
            ended |= {run.data.tags[tag] for run in self._parent.cells() if run.info.status != "RUNNING"}
        return ended

    def finish(self, state: State, *, reason: str | None = None, value: float | None = None) -> None:
        for row in self._rows:
            if not row.finished:
                row.finish(state, reason=reason)
        self._end(state, reason, name=final_name(self._parent.name, state, value))

    def start_row(self, row: Row) -> Run:
        child = _row_key(row.key)
        self._sender.record("begin", child, name=row.label)
        values = {key: str(value) for key, value in row.params.items()}
        self._sender.record("log", child, params=values, tags={Tag.STATE: "running", **row.tags})
        self._rows.append(_SpooledRowRun(self._sender, child, row.label))
        return self._rows[-1]

    def show(self, view: View) -> None:
        content = view_content(view, self.run_id)
        self._sender.record("view", None, key=view_key(self.run_id, view.kind), content=content)

    def record_cell(self, cell: CellRecord) -> None:
        began, ended = int(1000 * cell.began), int(1000 * (cell.began + cell.seconds))
        below = {} if cell.row is None else {"below": _row_key(cell.row)}
        self._sender.record("begin", cell.key, name=cell.label, time=began, **below)
        run = _SpooledRun(self._sender, cell.key)
        if cell.files:
            with run.artifacts() as folder:
                for name, text in cell.files.items():
                    (folder / name).write_text(text, encoding="utf-8")
        run.log_metrics(cell.metrics)
        values = {key: str(value) for key, value in cell.params.items()}
        # The last operation alone ends it, so that a half-recorded one is not complete.
        run._end("complete" if cell.reason is None else "failed", cell.reason, params=values, time=ended)


class SpooledStudyRun(_SpooledParentRun, StudyRun):
    """The parent run of a study."""

    def start_trial(
        self, number: int, params: Mapping[str, Any], *, label: str = "", tags: Mapping[str, str] | None = None
    ) -> TrialRun:
        values = {key: str(value) for key, value in params.items()}
        name = trial_name(number, label)
        # Its run is created at once; its parameters may wait for more.
        self._sender.record("begin", number, name=name)
        self._sender.record("log", number, params=values, tags={Tag.STATE: "running", **(tags or {})})
        return SpooledTrialRun(self._sender, number, name)

    def record_trial(self, trial: TrialFacts) -> None:
        assert trial.state != "running", "a running trial is not over"
        name = trial_name(trial.number, trial.label)
        began, ended = ({} if at is None else {"time": at} for at in (trial.began, trial.ended))
        self._sender.record("begin", trial.number, name=name, **began)
        run = SpooledTrialRun(self._sender, trial.number, name)
        for step, value in trial.curve.items():
            run.log_epoch(step, {trial.curve_metric: value})
        run.log_metrics(trial.metrics)
        params = {key: str(value) for key, value in trial.params.items()}
        run.end(trial.state, trial.reason, trial.value, params=params, labels=trial.tags, **ended)

    def is_shared(self) -> bool:
        return Spool.lives(self._spools, self._about, but=[spool.folder for spool in self._spools_held()])

    def log_datasets(self, datasets: Sequence[Dataset]) -> None:
        content = [{**one._asdict(), "profile": json.dumps(dict(one.profile))} for one in datasets]
        self._sender.record("datasets", None, datasets=content)

    def register(self, path: str, name: str, tags: Mapping[str, str], about: str = "") -> None:
        self._sender.record("register", None, path=path, model=name, tags=dict(tags), about=about)

    def run_ids(self) -> dict[int, str]:
        with unless_away():
            runs = self._parent.trials()
            return {int(run.data.tags[Tag.TRIAL]): run.info.run_id for run in runs if Tag.TRIAL in run.data.tags}
        return {}

    def reconcile(self, trials: Iterable[TrialFacts]) -> list[str]:
        self.adopt()
        if self.flush(FLUSH_S):
            return []
        with unless_away(f"the runs of study {self._parent.name} could not be compared with its trials"):
            return reconciled(self._parent, trials)
        return []

    def end_if_abandoned(self) -> list[str]:
        if self.is_shared():
            return []
        running = False
        with unless_away():
            running = self._parent.client.get_run(self.run_id).info.status == "RUNNING"
        if not running:
            return []
        self.finish("interrupted", reason="the process that began it was killed")
        return [f"the run of study {self._parent.name} was left open: ended as interrupted"]


class SpooledComparisonRun(_SpooledParentRun, ComparisonRun):
    """The parent run of a comparison."""
