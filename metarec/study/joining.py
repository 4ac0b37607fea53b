"""Work on a study that another process has begun. The storage has the study's spec, but not its ratings."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
from optuna.trial import TrialState

from metarec.errors import InputError
from metarec.search import error_of
from metarec.search.storage import end_stale_trials
from metarec.search.trials import IDENTITY, SPEC, counted_trials, equip, join_study
from metarec.study.bases import tuned_bases
from metarec.study.data import domains_of, identity_of, read_data
from metarec.study.job import Job, base_search, run_search, study_input, with_tuned
from metarec.study.records import EXPERIMENT_ID, FileKeeper, RecordedObjective, facts_of
from metarec.study.results import RUN_ID
from metarec.study.spec import StudySpec, stored_spec
from metarec.threads import one_thread
from metarec.tracking import NullTracker

__all__ = ["repair_study", "replay_trial", "run_worker"]


def run_worker(job: Job, data: Mapping[str, str], *, workers: int = 1, timeout: float | None = None) -> int:
    """Run trials of a study until it has its number of trials. The process that began it chooses and scores.

    Args:
        job: its tracker has the study's store. Its folder holds only the cache of this process.
        data: name -> path of domains whose path differs from that in the spec.
        workers: processes. timeout: seconds after which no new trial begins.

    Returns:
        The number of trials that have ended meanwhile, in all processes.

    Raises:
        InputError: there is no such study, or the data is not the same.
        KeyboardInterrupt: a stop was requested.
    """
    study, spec = _study_of(job)
    place = _place_of(study)
    if place[0] is None and not isinstance(job.tracker, NullTracker):
        raise InputError(f'study "{job.study_name}" has no run yet: its first process has not come to its first trial')
    before = len(counted_trials(study))
    spec = spec.model_copy(update={"workers": workers, "timeout": timeout})
    objective = _objective_of(job, study, spec, data)
    with job.tracker.join_study(job.study_name, *place) as run:
        run_search(study, objective.recorded_by(run), job)
    return len(counted_trials(study)) - before


def repair_study(job: Job) -> list[str]:
    """Make Optuna and MLflow agree after an accident; no data is needed.

    Trials without a process are ended, and run again when the study continues. Unsent records of dead processes of
    this folder are sent. Then each run gets the state of its trial.

    Returns:
        One line for each repair.

    Raises:
        InputError: there is no such study, or a store does not answer.
    """
    study, _ = _study_of(job)
    # A store that does not answer cannot be repaired.
    job.tracker.open()
    before = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.RUNNING}
    end_stale_trials(study)
    trials = study.get_trials(deepcopy=False)
    done = [
        f"trial {number} had lost its process: ended, to be tried again"
        for number in sorted(before)
        if trials[number].state == TrialState.FAIL
    ]
    place = _place_of(study)
    if place[0] is None:
        return done
    with job.tracker.join_study(job.study_name, *place) as run:
        done += run.reconcile(facts_of(study))
        if not any(trial.state == TrialState.RUNNING for trial in trials):
            done += run.end_if_abandoned()
    return done


def replay_trial(job: Job, data: Mapping[str, str], number: int) -> tuple[float, float]:
    """The recorded value of a complete trial, and the same value computed again; nothing is recorded.

    Raises:
        InputError: there is no such study or trial, it is not complete, or the data is not the same.
    """
    study, spec = _study_of(job)
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise InputError(f'--trial {number}: study "{job.study_name}" has the trials 0 to {len(trials) - 1}')
    trial = trials[number]
    if trial.state != TrialState.COMPLETE:
        raise InputError(
            f"--trial {number} is {trial.state.name.lower()}: only a complete trial has a value to be computed again"
        )
    objective = _objective_of(job, study, spec, data)
    with one_thread():
        return error_of(trial), objective.value_of(trial.params)


def _place_of(study: optuna.Study) -> tuple[str | None, str | None]:
    """The ids of a study's run and of its experiment."""
    return study.user_attrs.get(RUN_ID), study.user_attrs.get(EXPERIMENT_ID)


def _study_of(job: Job) -> tuple[optuna.Study, StudySpec]:
    """The study of a job that another process has begun, and its spec.

    Raises:
        InputError: there is none of this name, its spec is missing or breaks a rule, or the storage does not answer.
    """
    study = join_study(job.study_name, job.optuna_storage)
    if SPEC not in study.user_attrs:
        raise InputError(f'study "{job.study_name}" cannot be joined yet: it was begun elsewhere and has no spec yet')
    spec = stored_spec(study.user_attrs[SPEC], job.study_name)
    equip(study, spec.search_settings)
    return study, spec


def _objective_of(job: Job, study: optuna.Study, spec: StudySpec, data: Mapping[str, str]) -> RecordedObjective:
    """The objective of a study on the ratings of this process."""
    if data:
        spec = spec.model_copy(update={"domains": dict(data)})
    domains = domains_of(spec, read_data(spec))
    if identity_of(spec, domains) != study.user_attrs[IDENTITY]:
        raise InputError(
            f'study "{job.study_name}" was begun with other data than {", ".join(domains)} here; '
            "give its own with --data NAME=PATH"
        )
    tuning = base_search(spec, domains, job)
    if tuning is not None:
        spec = with_tuned(spec, tuned_bases(tuning))
    given = study_input(spec, domains, job.workspace)
    job.make_folders()
    job.watcher.on_begin(domains)
    keeper = FileKeeper(reporter=job.reporter)
    return given.prepare().objective(NullTracker().start_study(job.study_name, params={}), keeper)
