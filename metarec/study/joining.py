"""Taking part in a study that somebody else has begun: it has in it what whoever joins needs, but for the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import optuna
from optuna.trial import TrialState

from metarec.errors import InputError
from metarec.search import error_of
from metarec.search.storage import end_stale_trials
from metarec.search.trials import IDENTITY, SPEC, counted_trials, equip, join_study
from metarec.study.data import identity_of, read_data
from metarec.study.job import Job, run_search, study_input
from metarec.study.recorded_trial import EXPERIMENT_ID, RUN_ID, RecordedObjective, facts_of
from metarec.study.spec import StudySpec
from metarec.study.trial_files import FileKeeper
from metarec.threads import one_thread
from metarec.tracking import NullTracker

__all__ = ["Replayed", "repair_study", "replay_trial", "run_worker"]


class Replayed(NamedTuple):
    """A trial's error as it was recorded, and computed anew."""

    recorded: float
    value: float


def run_worker(job: Job, data: Mapping[str, str], *, workers: int = 1, timeout: float | None = None) -> int:
    """Run trials of a study until it has as many as are wanted; whoever began it chooses and scores.

    Args:
        job: its tracker's store is that of the study. In its folder only what this process caches is kept.
        data: name -> path of domains, where they are not where they were for whoever began the study.
        workers: processes. timeout: seconds after which no new trial begins.

    Returns:
        How many trials have ended meanwhile, whoever ran them.

    Raises:
        InputError: there is no such study, or the data is not the same.
        KeyboardInterrupt: it was asked to stop.
    """
    study = _study_of(job)[0]
    place = _place_of(study)
    if place.run_id is None and not isinstance(job.tracker, NullTracker):
        raise InputError(f'study "{job.study_name}" has no run yet: whoever began it has not come to its first trial')
    before = len(counted_trials(study))
    study, objective = _joined(job, data, {"workers": workers, "timeout": timeout})
    with job.tracker.join_study(job.study_name, *place) as run:
        run_search(study, objective.recorded_by(run), job)
    return len(counted_trials(study)) - before


def repair_study(job: Job) -> list[str]:
    """Make Optuna and MLflow agree after any accident; no data is needed.

    Trials whose process is gone are ended, and tried again when the study goes on. What dead processes of this folder
    still had to say is sent. Then each run is brought into the state of its trial.

    Returns:
        What was done, a line each; nothing where all was right.

    Raises:
        InputError: there is no such study, or a store does not answer.
    """
    study = _study_of(job)[0]
    before = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.RUNNING}
    end_stale_trials(study)
    trials = study.get_trials(deepcopy=False)
    done = [
        f"trial {number} had lost its process: ended, to be tried again"
        for number in sorted(before)
        if trials[number].state == TrialState.FAIL
    ]
    place = _place_of(study)
    if place.run_id is None:
        return done
    with job.tracker.join_study(job.study_name, *place) as run:
        done += run.reconcile(facts_of(study))
        if not any(trial.state == TrialState.RUNNING for trial in trials):
            done += run.end_if_abandoned()
    return done


def replay_trial(job: Job, data: Mapping[str, str], number: int) -> Replayed:
    """Compute a complete trial's value anew; nothing is recorded.

    Raises:
        InputError: there is no such study or trial, it is not complete, or the data is not the same.
    """
    study = _study_of(job)[0]
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise InputError(f'--trial {number}: study "{job.study_name}" has the trials 0 to {len(trials) - 1}')
    trial = trials[number]
    if trial.state != TrialState.COMPLETE:
        raise InputError(
            f"--trial {number} is {trial.state.name.lower()}: only a complete trial has a value to be computed again"
        )
    _, objective = _joined(job, data, {})
    with one_thread():
        return Replayed(error_of(trial), objective.value_of(trial.params))


class _Place(NamedTuple):
    """Where a study is recorded."""

    run_id: str | None
    experiment_id: str | None


def _place_of(study: optuna.Study) -> _Place:
    return _Place(study.user_attrs.get(RUN_ID), study.user_attrs.get(EXPERIMENT_ID))


def _study_of(job: Job) -> tuple[optuna.Study, StudySpec]:
    """The study of a job that another process has begun, and its spec.

    Raises:
        InputError: there is none of this name, it has no spec yet, or the storage does not answer.
    """
    study = join_study(job.study_name, job.optuna_storage)
    if SPEC not in study.user_attrs:
        raise InputError(
            f'study "{job.study_name}" is not ready to be joined: it was begun elsewhere and has no spec yet'
        )
    spec = StudySpec.model_validate(study.user_attrs[SPEC])
    equip(study, spec.search_settings)
    return study, spec


def _joined(job: Job, data: Mapping[str, str], own: Mapping[str, Any]) -> tuple[optuna.Study, RecordedObjective]:
    study, spec = _study_of(job)
    spec = spec.model_copy(update={**own, **({"domains": dict(data)} if data else {})})
    domains = read_data(spec)
    if identity_of(spec, domains) != study.user_attrs[IDENTITY]:
        raise InputError(
            f'study "{job.study_name}" was begun with other data than {", ".join(domains)} here; '
            "give its own with --data NAME=PATH"
        )
    given = study_input(spec, domains, job.workspace)
    job.make_folders()
    job.watcher.on_begin(domains)
    keeper = FileKeeper(reporter=job.reporter)
    return study, given.prepare().objective(NullTracker().start_study(job.study_name, params={}), keeper)
