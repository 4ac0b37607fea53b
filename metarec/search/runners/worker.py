"""The work of a worker, wherever it runs, and the report of its trials."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import NamedTuple, Self

import optuna

from metarec.errors import masked
from metarec.importing import importing
from metarec.search.objective import Objective
from metarec.search.trials import OnTrial, counted_trials, equip, join_study, run_trials
from metarec.tracking import Tracker

__all__ = ["POLL_S", "Work", "report_new"]

POLL_S = 0.2
"Pause between two checks for trials that have ended."


class Work(NamedTuple):
    """The trials of a study, for a worker that makes its own connections to the storage and the tracking store."""

    study_name: str
    storage: str
    objective: Objective
    tracker: Tracker
    run_id: str | None
    experiment_id: str | None

    @classmethod
    def of(cls, study: optuna.Study, storage: str, objective: Objective, tracker: Tracker) -> Self:
        """The work on a study, whose run the objective has."""
        run = objective.run
        assert run is not None
        return cls(study.study_name, storage, objective.recorded_by(None), tracker, run.run_id, run.experiment_id)

    def do(self, deadline: float, stopping: Callable[[], bool]) -> int:
        """Run trials until the study has all of them or is stopped; the number of trials that were run.

        Raises:
            RuntimeError: what failed, with its traceback as text: Python and Ray print it, and Ray writes it to files.
        """
        try:
            return self._do(deadline, stopping)
        except Exception as error:
            raise RuntimeError(masked("".join(traceback.format_exception(error)))) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.study_name!r})"

    def _do(self, deadline: float, stopping: Callable[[], bool]) -> int:
        with importing():
            study = join_study(self.study_name, self.storage)
            equip(study, self.objective.settings)
            run = self.tracker.join_study(self.study_name, self.run_id, self.experiment_id)
        with run:
            objective = self.objective.recorded_by(run)
            return run_trials(study, objective, lambda _: None, deadline=deadline, stopping=stopping)


def report_new(study: optuna.Study, reported: set[int], on_trial: OnTrial) -> int:
    """Call `on_trial` with each trial that has ended and was not reported yet; the number of these trials."""
    new = [trial for trial in counted_trials(study) if trial.number not in reported]
    for trial in new:
        reported.add(trial.number)
        on_trial(trial)
    return len(new)
