"""What runs in MLflow are called and tagged, and the run of a comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarec.tracking._base import CellRecord, ComparisonRun, Run, State, TrackingError
from metarec.tracking._limits import PARAM_LENGTH, TAG_LENGTH, batches, clean_key, cut, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

__all__ = ["STATUS", "MlflowComparisonRun", "MlflowRun", "Tag", "final_name", "found_runs", "reaching", "trial_name"]

STATUS: dict[State, str] = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}


class Tag:
    """The tags by which runs are told apart and found again."""

    NAME = "mlflow.runName"
    NOTE = "mlflow.note.content"
    PARENT = "mlflow.parentRunId"
    SOURCE = "mlflow.source.name"
    STUDY = "metarec.study"
    ROLE = "metarec.role"
    TRIAL = "metarec.trial"
    STATE = "state"
    REASON = "metarec.reason"
    CELL = "metarec.cell"


def trial_name(number: int, label: str = "") -> str:
    """What a trial's run is called, wherever it is made: names sort as trials do.

    >>> trial_name(17, "attention/batched product"), trial_name(3)
    ('trial-017 attention/batched product', 'trial-003')
    """
    return f"trial-{number:03d} {label}".rstrip()


def final_name(name: str, state: State, value: float | None) -> str:
    """What a trial's run of this name is called at its end.

    Metric columns are out of sight in the table of runs, so the name says what came out.

    >>> final_name("trial-003", "pruned", None), final_name("trial-004 gated/batched", "complete", 0.91234)
    ('trial-003 · pruned', 'trial-004 gated/batched · 0.9123')
    """
    result = f"{value:.4f}" if value is not None else ""
    ending = "" if state == "complete" else state
    return " · ".join(part for part in (name, result, ending) if part)


@contextmanager
def reaching(store: str, doing: str) -> Iterator[None]:
    """Turn what MLflow and its transports raise into one error that says what was being done, and where."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = first_line(error)
        raise TrackingError(
            f"could not {doing} in {store}: {reason}. What was computed so far is kept beside it: "
            "mend the store and run the same command again with the same name"
        ) from error


def found_runs(client: MlflowClient, experiment_id: str, query: str) -> Iterator[Any]:
    """All runs that a query finds, page by page."""
    token = None
    while True:
        page = client.search_runs([experiment_id], query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


class MlflowRun(Run):
    """A run that is written at once, and fails with the store."""

    def __init__(self, client: MlflowClient, store: str, run_id: str, label: str) -> None:
        self._client = client
        self._store = store
        self._label = label
        self.run_id: str = run_id
        self._metrics: list[Metric] = []

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for key, value in metrics.items():
            number = float(value)
            # SQL stores clamp infinity to 1.8e308, which flattens every chart with it; NaN leaves a gap.
            number = number if math.isfinite(number) else math.nan
            self._metrics.append(Metric(clean_key(key), number, now, step))

    def write(self, params: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None) -> None:
        """Everything that has gathered, in as few calls as possible: each costs a transaction."""
        from mlflow.entities import Param, RunTag

        columns = [Param(clean_key(key), cut(value, PARAM_LENGTH)) for key, value in (params or {}).items()]
        labels = [RunTag(clean_key(key), cut(value, TAG_LENGTH)) for key, value in (tags or {}).items()]
        with reaching(self._store, f"write {self._label}"):
            for batch in batches(self._metrics, columns, labels):
                self._client.log_batch(self.run_id, *batch)
        self._metrics = []

    def describe(self, markdown: str) -> None:
        self.write(tags={Tag.NOTE: markdown})

    def finish(self, state: State, *, reason: str | None = None, value: float | None = None) -> None:
        tags: dict[str, str] = {Tag.STATE: state}
        if reason is not None:
            tags[Tag.REASON] = reason
        self.write(tags=tags)
        with reaching(self._store, f"finish {self._label}"):
            self._client.set_terminated(self.run_id, STATUS[state])
        self.finished = True

    def _upload(self, folder: Path) -> None:
        with reaching(self._store, f"keep the files of {self._label}"):
            self._client.log_artifacts(self.run_id, str(folder))


class MlflowComparisonRun(MlflowRun, ComparisonRun):
    """The parent run of a comparison. It is written at once: a comparison can be asked for again, cell by cell."""

    def __init__(self, client: MlflowClient, store: str, run_id: str, name: str, experiment_id: str) -> None:
        super().__init__(client, store, run_id, f'comparison "{name}"')
        self.name = name
        self.experiment_id: str = experiment_id

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        super().log_metrics(metrics, step=step)
        self.write()

    def recorded_cells(self) -> set[str]:
        query = f"tags.`{Tag.PARENT}` = '{self.run_id}' and tags.`{Tag.ROLE}` = 'cell'"
        recorded = set()
        with reaching(self._store, f"look for the cells of {self._label}"):
            for run in list(found_runs(self._client, self.experiment_id, query)):
                if run.info.status == STATUS["complete"]:
                    recorded.add(run.data.tags[Tag.CELL])
                else:
                    self._client.delete_run(run.info.run_id)
        return recorded

    def record_cell(self, cell: CellRecord) -> None:
        # It is marked complete by the last call alone, so that a half-written one is known by its status.
        began, ended = int(1000 * cell.began), int(1000 * (cell.began + cell.seconds))
        own = {Tag.PARENT: self.run_id, Tag.STUDY: self.name, Tag.ROLE: "cell", Tag.SOURCE: "metarec"}
        tags = {**own, Tag.CELL: cell.key, Tag.STATE: "complete"}
        with reaching(self._store, f"record {cell.label}"):
            created = self._client.create_run(self.experiment_id, start_time=began, tags=tags, run_name=cell.label)
            run = MlflowRun(self._client, self._store, created.info.run_id, cell.label)
            run.log_metrics(cell.metrics)
            run.write(params=cell.params)
            for name, text in cell.files.items():
                self._client.log_text(run.run_id, text, name)
            self._client.set_terminated(run.run_id, STATUS["complete"], end_time=ended)
