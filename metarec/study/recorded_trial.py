"""One trial on record: its parameters are drawn, somebody judges them, and what came of it is kept."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial, TrialState

from metarec.meta import NonFiniteLossError
from metarec.study.space import suggest_parameters
from metarec.study.spec import StudySpec
from metarec.study.tracking import StudyRun, TrialFacts, TrialRun
from metarec.study.trial_files import FileKeeper, Files

__all__ = ["METRIC", "REASON", "RUN_ID", "RecordedObjective", "facts_of"]

METRIC = "validation_unit_rmse"
"""What a study minimises: the RMSE on the unit scale over all query rows of the target's validation users."""

RUN_ID, REASON = "run_id", "reason"
"""Attributes of a trial: its run, and why it has no value. A trial that failed without a reason was killed."""


CURVE = "val_rmse"
"""The metric of a run that Optuna knows, too, epoch by epoch: as the best so far."""


def facts_of(study: optuna.Study) -> list[TrialFacts]:
    """What Optuna knows of every trial that was begun, to compare with the runs."""
    return [_facts(trial) for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]


def _facts(trial: FrozenTrial) -> TrialFacts:
    states: dict[TrialState, Any] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed" if REASON in trial.user_attrs else "interrupted",
        TrialState.RUNNING: "running",
    }
    return TrialFacts(
        number=trial.number,
        state=states[trial.state],
        params=trial.params,
        metric=METRIC,
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        reason=trial.user_attrs.get(REASON),
        curve_metric=CURVE,
        curve=trial.intermediate_values,
        began=_milliseconds(trial.datetime_start),
        ended=_milliseconds(trial.datetime_complete),
    )


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


class RecordedObjective(ABC):
    """What Optuna minimises in a study, one trial at a time, and its record.

    A trial ends in two steps, so that being killed between them makes no difference: what it found is on record before
    Optuna is told its value, and the record is closed, by :meth:`ended`, after Optuna knows. So a trial that counts is
    whole, and one that does not is never closed as complete.

    Args:
        spec: the study. run: its record. keeper: of the trials' files; by default one that keeps them at once.
    """

    def __init__(self, spec: StudySpec, run: StudyRun | None, keeper: FileKeeper | None = None) -> None:
        self.spec = spec
        self.run = run
        self.keeper = keeper or FileKeeper()
        self._open: dict[int, TrialRun] = {}

    def __call__(self, trial: optuna.Trial) -> float:
        """The trial's value."""
        assert self.run is not None, "an objective needs the record of its study before it runs"
        params = suggest_parameters(trial, self.spec.space)
        record = self.run.start_trial(trial.number, params)
        self._open[trial.number] = record
        try:
            value, files = self._judge(trial, params, record)
            self.keeper.keep(files, record)
            record.log_metrics({METRIC: value})
            record.persist()
        except (optuna.TrialPruned, NonFiniteLossError) as reason:
            self._note_run(trial, record)
            trial.set_user_attr(REASON, str(reason))
            raise
        except BaseException as error:
            # Nobody is told of this end, so it is recorded here.
            with self._open.pop(trial.number):
                raise error
        self._note_run(trial, record)
        if math.isnan(value):
            # Optuna will call it failed, and without a reason it would not count, and be drawn for ever.
            trial.set_user_attr(REASON, "its value is not a number")
        return value

    def ended(self, trial: FrozenTrial) -> None:
        """Close the record of a trial that this objective has run, as Optuna knows it."""
        record = self._open.pop(trial.number, None)
        if record is None:
            return
        if trial.state == TrialState.COMPLETE:
            record.finish("complete", value=trial.value)
        else:
            state = "pruned" if trial.state == TrialState.PRUNED else "failed"
            record.finish(state, reason=trial.user_attrs[REASON])  # type: ignore[arg-type]  # one of two states

    def _note_run(self, trial: optuna.Trial, record: TrialRun) -> None:
        if record.run_id is not None:
            trial.set_user_attr(RUN_ID, record.run_id)

    @abstractmethod
    def recorded_by(self, run: StudyRun | None) -> Self:
        """The same objective, recorded by another run, in this process alone."""

    @abstractmethod
    def value_of(self, params: Mapping[str, Any]) -> float:
        """The value of a configuration, computed anew and without a record."""

    @abstractmethod
    def _judge(self, trial: optuna.Trial, params: Mapping[str, Any], record: TrialRun) -> tuple[float, Files]:
        """The value of a trial with these parameters, and the files that are to be kept with it."""
