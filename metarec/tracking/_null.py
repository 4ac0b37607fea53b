"""The tracker that forgets everything: the default, so that the library runs without MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from metarec.tracking._base import (
    CellRecord,
    ComparisonRun,
    Dataset,
    State,
    StudyRun,
    Tracker,
    TrialFacts,
    TrialRun,
)

__all__ = ["NullTracker"]


class _NullRun(StudyRun, ComparisonRun, TrialRun):
    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        pass

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        pass

    def describe(self, markdown: str) -> None:
        pass

    def persist(self) -> None:
        pass

    def finish(self, state: State, *, reason: str | None = None, value: float | None = None) -> None:
        self.finished = True

    @contextmanager
    def artifacts(self) -> Iterator[Path]:
        with TemporaryDirectory(prefix="metarec-artifacts-") as folder:
            yield Path(folder)

    def start_trial(
        self, number: int, params: Mapping[str, Any], *, label: str = "", tags: Mapping[str, str] | None = None
    ) -> TrialRun:
        return _NullRun()

    def register(self, path: str, name: str, tags: Mapping[str, str]) -> None:
        pass

    def log_datasets(self, datasets: Sequence[Dataset]) -> None:
        pass

    def flush(self, timeout: float) -> int:
        return 0

    def run_ids(self) -> dict[int, str]:
        return {}

    def reconcile(self, trials: Iterable[TrialFacts]) -> list[str]:
        return []

    def end_if_abandoned(self) -> list[str]:
        return []

    def recorded_cells(self) -> set[str]:
        return set()

    def record_cell(self, cell: CellRecord) -> None:
        pass

    def close(self) -> None:
        pass


class NullTracker(Tracker):
    """Records nothing.

    >>> with NullTracker().start_study("quickstart", params={}) as study, study.start_trial(0, {}) as trial:
    ...     trial.log_epoch(0, {"val_rmse": 0.2})
    >>> trial.finished, trial.run_id
    (True, None)
    """

    def open(self) -> None:
        pass

    def start_study(
        self, name: str, *, params: Mapping[str, Any], tags: Mapping[str, str] | None = None, description: str = ""
    ) -> StudyRun:
        return _NullRun()

    def join_study(self, name: str, run_id: str | None, experiment_id: str | None) -> StudyRun:
        return _NullRun()

    def fetch(self, run_id: str, file: str, folder: Path) -> bool:
        return False

    def start_comparison(self, name: str, *, params: Mapping[str, Any], description: str = "") -> ComparisonRun:
        return _NullRun()
