"""Running trials: in this process or in several, up to a number in all, resumable."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from metarec.errors import InputError
from metarec.meta import NonFiniteLossError
from metarec.study.recorded_trial import StudyObjective
from metarec.study.spec import StudySpec
from metarec.study.tracking import Tracker
from metarec.threads import one_thread

__all__ = ["counted_trials", "open_storage", "open_study", "run_trials"]

IDENTITY = "identity"
"A study attribute: the hash of everything that its trials depend on."

INTERRUPTED = "interrupted"
"A study attribute: the numbers of the trials that did not end by themselves."

OnTrial = Callable[[FrozenTrial], None]


def open_storage(storage: str) -> optuna.storages.BaseStorage:
    """The storage at the path of a journal file, or at the URL of a database.

    Raises:
        InputError: the storage does not answer.
    """
    with _reaching(storage):
        return optuna.storages.get_storage(storage if "://" in storage else JournalStorage(JournalFileBackend(storage)))


@contextmanager
def _reaching(storage: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ImportError, ValueError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise InputError(f"--storage {storage} cannot be opened: {reason}; give another") from None


def open_study(spec: StudySpec, name: str, storage: str, identity: str) -> optuna.Study:
    """The study of this name: a new one whose first trials wait (trial 0 is the default), or the one begun before.

    Args:
        storage: the path of a journal file, or the URL of a database.
        identity: a hash of everything that trials depend on; a study goes on only with the same.

    Raises:
        InputError: a study of this name was made from other data or settings, or the storage does not answer.
    """
    _quieten_optuna()
    backend = open_storage(storage)
    with _reaching(storage):
        study = optuna.create_study(
            study_name=name, storage=backend, load_if_exists=True, direction="minimize", pruner=_pruner(spec)
        )
        known = study.user_attrs.get(IDENTITY)
    if known is None:
        study.set_user_attr(IDENTITY, identity)
        for params in spec.first_trials:
            study.enqueue_trial(params)
    elif known != identity:
        raise InputError(
            f'study "{name}" was begun with other data or settings, so its trials cannot be compared; '
            "give another --study-name, or the spec and data that it was begun with"
        )
    _end_interrupted(study, spec)
    # Seeded by how far the study is: continued with the first seed, it would draw its first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=spec.seed + len(study.trials), multivariate=True)
    return study


def counted_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count towards the study's number: all that ended by themselves."""
    interrupted = study.user_attrs.get(INTERRUPTED, [])
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and trial.number not in interrupted
    ]


def run_trials(
    study: optuna.Study, objective: StudyObjective, tracker: Tracker, storage: str, on_trial: OnTrial
) -> None:
    """Run trials until the study has `spec.trials` in all or the time is over; `on_trial` hears of each that ended."""
    spec = objective.spec
    left = spec.trials - len(counted_trials(study))
    deadline = time.monotonic() + spec.timeout if spec.timeout else float("inf")
    if spec.workers == 1:
        while left > 0 and time.monotonic() < deadline:
            left -= 1
            _run_one(study, objective, on_trial)
        return
    assert objective.run is not None
    context = multiprocessing.get_context("spawn")
    slots = context.Value("i", left)
    # A run's connection to its store stays in this process; each worker makes its own.
    arguments = (study.study_name, objective.recorded_by(None), tracker, objective.run.run_id, storage, slots, deadline)
    workers = [
        context.Process(target=_work, args=(*arguments, number)) for number in range(min(spec.workers, max(left, 0)))
    ]
    try:
        for worker in workers:
            worker.start()
        told = {trial.number for trial in counted_trials(study)}
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(0.2)
            _tell(study, told, on_trial)
        _tell(study, told, on_trial)
    finally:
        for worker in workers:
            worker.terminate()
    broken = [worker.exitcode for worker in workers if worker.exitcode]
    if len(broken) == len(workers) and workers:
        raise RuntimeError(
            f"all {len(workers)} workers ended early, with exit codes {broken}; see their messages above"
        )


def _run_one(study: optuna.Study, objective: StudyObjective, on_trial: OnTrial) -> None:
    def run(trial: optuna.Trial) -> float:
        try:
            return objective(trial)
        except (optuna.TrialPruned, NonFiniteLossError):
            raise
        except BaseException:
            # Optuna will call it failed, but Ctrl-C or a broken store says nothing about these parameters.
            _put_back(study, objective.spec, {trial.number: trial.params})
            raise

    with one_thread():
        study.optimize(run, n_trials=1, catch=(NonFiniteLossError,), callbacks=[lambda _, trial: on_trial(trial)])


def _work(
    name: str,
    objective: StudyObjective,
    tracker: Tracker,
    run_id: str | None,
    storage: str,
    slots: Any,
    deadline: float,
    number: int,
) -> None:
    """A worker process: takes a slot, runs a trial, until there is none left."""
    spec = objective.spec
    # The parent reports Ctrl-C; a worker just ends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _quieten_optuna()
    sampler = optuna.samplers.TPESampler(seed=spec.seed + 1000 * (number + 1), multivariate=True, constant_liar=True)
    study = optuna.load_study(study_name=name, storage=open_storage(storage), sampler=sampler, pruner=_pruner(spec))
    objective = objective.recorded_by(tracker.join_study(name, run_id))
    while time.monotonic() < deadline:
        with slots.get_lock():
            if slots.value <= 0:
                return
            slots.value -= 1
        _run_one(study, objective, lambda trial: None)


def _tell(study: optuna.Study, told: set[int], on_trial: OnTrial) -> None:
    for trial in counted_trials(study):
        if trial.number not in told:
            told.add(trial.number)
            on_trial(trial)


def _end_interrupted(study: optuna.Study, spec: StudySpec) -> None:
    """Close the trials that a crash left running, and queue their configurations again."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if running:
        _put_back(study, spec, {trial.number: trial.params for trial in running})
    for trial in running:
        study.tell(trial.number, state=TrialState.FAIL)


def _put_back(study: optuna.Study, spec: StudySpec, trials: Mapping[int, Mapping[str, Any]]) -> None:
    """These trials (number -> parameters) do not count, and their configurations wait for the next ones."""
    study.set_user_attr(INTERRUPTED, [*study.user_attrs.get(INTERRUPTED, []), *trials])
    for params in trials.values():
        study.enqueue_trial(dict(params) or spec.trial_zero)


def _quieten_optuna() -> None:
    # It warns of every failed trial, with a traceback, after Ctrl-C too; the trial's run says why it failed.
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    if spec.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=5)
