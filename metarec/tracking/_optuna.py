"""Records any Optuna study in MLflow, also one that is not metarec's."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock

from metarec.errors import InputError
from metarec.files import make_folder
from metarec.tracking._address import runs_address, ui_command
from metarec.tracking._base import StudyRun
from metarec.tracking._facts import State, TrialFacts, View
from metarec.tracking._mlflow import MlflowTracker, default_uri
from metarec.tracking._notes import markdown_code, markdown_text

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["TrackedStudy", "track"]

logger = logging.getLogger(__name__)

EXPERIMENT = "optuna"
"""The experiment by default. Studies of metarec have one of their own."""

RUN, PLACE = "mlflow_run", "mlflow_experiment"
"""Attributes of the Optuna study: the ids of its run and of the experiment, by which other processes find them."""

ON_ITS_WAY_MS = 60_000
"""How long after the end of a trial another process may still be about to record it."""

START = "start.lock"
"""In the folder of waiting records; held while the run of a study is made or found, and while a process leaves it."""

CURVE = "intermediate"
"""The metric of a trial's intermediate values; each has its step."""


def track(
    study: optuna.Study,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    *,
    folder: str | Path = "mlruns",
    tags: Mapping[str, str] | None = None,
) -> TrackedStudy:
    """Record an Optuna study in MLflow: a parent run for the study, and a child run for each trial.

    The result is a context manager, and the callback of :meth:`optuna.Study.optimize`. Several threads
    (``n_jobs``), processes and machines may record one study. A trial is recorded when it is over: with its parameters,
    values, intermediate values, user attributes, times and true state. Trials that were run without the callback, and
    those of a process that was killed after their end, are recorded on entry or exit. A store that does not answer
    delays no trial: records wait in a folder, and are sent later.

    Args:
        study: any Optuna study.
        tracking_uri: of MLflow's store. By default what MLflow is set to, or else ``mlflow.db`` in `folder`.
        experiment: its name, by default "optuna".
        folder: where records wait that were not sent yet; and, by default, the store and its files.
        tags: of all runs.

    Raises:
        InputError: the store cannot be used; on entry.

    >>> import optuna, tempfile
    >>> study = optuna.create_study(study_name="parabola")
    >>> with tempfile.TemporaryDirectory() as folder, track(study, folder=folder) as tracked:
    ...     study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=3, callbacks=[tracked])
    ...     tracked.flush()
    ...     len(tracked.run_ids())
    0
    3
    """
    place = Path(folder)
    uri = tracking_uri or default_uri(place)
    tracker = MlflowTracker(uri, place / "artifacts", spool=place / "spool", experiment=experiment or EXPERIMENT)
    return TrackedStudy(study, tracker, dict(tags or {}))


class TrackedStudy:
    """A study that is being recorded; see :func:`track`."""

    def __init__(self, study: optuna.Study, tracker: MlflowTracker, tags: Mapping[str, str]) -> None:
        self._study = study
        self._tracker = tracker
        self._tags = tags
        self._run: StudyRun | None = None
        self._recorded: set[int] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self._run is not None:
            raise RuntimeError("the study is being recorded already; enter its context once")
        study = self._study
        params = {
            "sampler": type(study.sampler).__name__,
            "pruner": type(study.pruner).__name__,
            "direction": ", ".join(one.name.lower() for one in study.directions),
        }
        make_folder(self._tracker.spool)
        # Of two processes that begin together, one makes the run and the other one finds it.
        with FileLock(self._tracker.spool / START):
            self._run = self._tracker.start_study(
                study.study_name, params=params, tags=self._tags, run_id=study.user_attrs.get(RUN)
            )
        study.set_user_attr(RUN, self._run.run_id)
        study.set_user_attr(PLACE, self._run.experiment_id)
        self._record_missing()
        return self

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Record a trial that is over. Optuna calls it.

        Raises:
            InputError: the trial is of another study, or the context was not entered.
        """
        if self._run is None:
            raise InputError("the callback records only in its context; write: with track(study) as tracked: ...")
        if study.study_name != self._study.study_name:
            raise InputError(f'the callback records study "{self._study.study_name}" but got "{study.study_name}"')
        self._record(trial)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run, self._run = self._started, None
        state, reason = _end_of(error)
        try:
            # Optuna calls no callback for a trial whose error ends the search.
            self._record_missing(run)
            for line in run.reconcile(self._facts()):
                logger.info(line)
            self._sum_up(run)
            run.flush(20.0)
        finally:
            # Of two processes that end together, the second one ends the run of the study.
            with FileLock(self._tracker.spool / START):
                if not run.is_shared():
                    run.finish(state, reason=reason)
                run.close()

    @property
    def run_id(self) -> str | None:
        """The id of the study's run."""
        return self._started.run_id

    @property
    def address(self) -> str:
        """The page of the study's trials, the best first, in MLflow's UI on this machine, and what starts the UI."""
        run = self._started
        page = runs_address(run.experiment_id or "", run.run_id, view="trial")
        command = ui_command(self._tracker.tracking_uri)
        return page if command is None else f"{page} (after: {command})"

    def run_ids(self) -> dict[int, str]:
        """Trial -> the id of its run, for those in the store; none if the store does not answer."""
        return self._started.run_ids()

    def flush(self, timeout: float = 20.0) -> int:
        """Wait until the store has every record, at most so many seconds; how many records still wait."""
        return self._started.flush(timeout)

    @property
    def _started(self) -> StudyRun:
        if self._run is None:
            raise RuntimeError("the study is not being recorded; enter its context first")
        return self._run

    def _record(self, trial: FrozenTrial) -> None:
        with self._lock:
            if trial.number in self._recorded:
                return
            self._recorded.add(trial.number)
        self._started.record_trial(self._facts_of(trial))

    def _record_missing(self, run: StudyRun | None = None) -> None:
        """Record the trials that are over and have no run, but not those that another process may be recording."""
        run = run or self._started
        run.flush(20.0)
        shared, now = run.is_shared(), time.time() * 1000
        # A store that does not answer has no ids; those of the entry are kept.
        self._recorded |= run.run_ids().keys()
        for facts in self._facts():
            settled = not shared or now - (facts.ended or 0) > ON_ITS_WAY_MS
            if facts.state != "running" and facts.number not in self._recorded and settled:
                self._recorded.add(facts.number)
                run.record_trial(facts)

    def _facts(self) -> Iterator[TrialFacts]:
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False):
            if trial.state != TrialState.WAITING:
                yield self._facts_of(trial)

    def _facts_of(self, trial: FrozenTrial) -> TrialFacts:
        from optuna.trial import TrialState

        states: dict[TrialState, Any] = {
            TrialState.COMPLETE: "complete",
            TrialState.PRUNED: "pruned",
            TrialState.FAIL: "failed",
            TrialState.RUNNING: "running",
        }
        values = trial.values if trial.state == TrialState.COMPLETE else None
        attributes = {
            f"user.{key}": value if isinstance(value, str) else json.dumps(value, default=str)
            for key, value in trial.user_attrs.items()
        }
        return TrialFacts(
            number=trial.number,
            state=states[trial.state],
            params=trial.params,
            metrics=dict(zip(self._names, values, strict=True)) if values else {},
            reason=None,
            curve_metric=CURVE,
            curve=trial.intermediate_values,
            began=_milliseconds(trial.datetime_start),
            ended=_milliseconds(trial.datetime_complete),
            tags={**self._tags, **attributes},
        )

    @property
    def _names(self) -> list[str]:
        """The names of the study's values."""
        study = self._study
        if study.metric_names:
            return list(study.metric_names)
        return ["value"] if len(study.directions) == 1 else [f"value_{place}" for place in range(len(study.directions))]

    def _sum_up(self, run: StudyRun) -> None:
        """The best trials, as the description of the study's run, and the best value as a metric."""
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        ended = [trial for trial in trials if trial.state.is_finished()]
        best = self._study.best_trials if any(trial.state == TrialState.COMPLETE for trial in ended) else []
        lines = [f"Optuna study {markdown_text(self._study.study_name)}: {len(ended)} trials are over."]
        for trial in best[:10]:
            values = ", ".join(f"{name} {value:g}" for name, value in zip(self._names, trial.values, strict=True))
            params = markdown_code(json.dumps(trial.params, default=str))
            lines.append(f"- best: trial {trial.number}, {values}; {params}")
        run.describe("\n".join(lines))
        metrics = {"trials": float(len(ended))}
        if best and len(self._names) == 1:
            metrics[f"best_{self._names[0]}"] = best[0].values[0]
        run.log_metrics(metrics)
        first = self._study.directions[0].name == "MINIMIZE"
        searched = dict.fromkeys(name for trial in ended for name in trial.params)
        run.show(View("trial", self._names[0], first, self._names, list(searched)))


def _end_of(error: BaseException | None) -> tuple[State, str | None]:
    if error is None:
        return "complete", None
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted"
    return "failed", f"{type(error).__name__}: {error}"


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
