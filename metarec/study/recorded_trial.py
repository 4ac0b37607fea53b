"""One trial on record: its parameters are drawn, somebody judges them, and what came of it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import optuna

from metarec.meta import NonFiniteLossError
from metarec.study.space import suggest_parameters
from metarec.study.spec import StudySpec
from metarec.study.tracking import StudyRun, TrialRun
from metarec.study.trial_files import FileKeeper, Files

__all__ = ["METRIC", "RUN_ID", "StudyObjective", "recorded_trial"]

METRIC = "validation_unit_rmse"
"""What a study minimises: the RMSE on the unit scale over all query rows of the target's validation users."""

RUN_ID = "run_id"

Judge = Callable[[Mapping[str, Any], TrialRun], tuple[float, Files]]
"""From a trial's parameters and its record to its value, and the files that are to be kept with it."""


class StudyObjective(Protocol):
    """What Optuna minimises in a study; `run` is its record."""

    spec: StudySpec
    run: StudyRun | None

    def recorded_by(self, run: StudyRun | None) -> StudyObjective:
        """The same objective, recorded by another run."""

    def __call__(self, trial: optuna.Trial) -> float:
        """The trial's value."""


def recorded_trial(objective: StudyObjective, trial: optuna.Trial, judge: Judge, keeper: FileKeeper) -> float:
    """Run a trial of an objective; however it ends, its record says how and why."""
    assert objective.run is not None, "an objective needs the record of its study before it runs"
    params = suggest_parameters(trial, objective.spec.space)
    with objective.run.start_trial(trial.number, params) as record:
        if record.run_id is not None:
            trial.set_user_attr(RUN_ID, record.run_id)
        try:
            value, files = judge(params, record)
        except optuna.TrialPruned as reason:
            record.finish("pruned", reason=str(reason))
            raise
        except NonFiniteLossError as reason:
            record.finish("failed", reason=str(reason))
            raise
        keeper.keep(files, record)
        record.log_metrics({METRIC: value})
        record.finish("complete", value=value)
    return value
