"""Running the trials of a study, up to a number in all, in any number of processes; a study can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from metarec.errors import InputError
from metarec.meta import NonFiniteLossError
from metarec.search.objective import REASON, Objective, SearchSettings
from metarec.search.pruning import PRUNERS
from metarec.search.sampling import SeededByTrial
from metarec.search.storage import end_stale_trials, open_storage, queued_params, reaching
from metarec.threads import one_thread

__all__ = [
    "IDENTITY",
    "SPEC",
    "OnTrial",
    "counted_trials",
    "equip",
    "join_study",
    "open_study",
    "run_trials",
    "wanted_trials",
]

IDENTITY = "identity"
"A study attribute: the hash of everything that its trials depend on."

SPEC = "spec"
"A study attribute: what a process that joins from elsewhere needs."

WANTED = "trials"
"A study attribute: the number of trials in all."

WAIT_S = 0.5
"Pause between two checks whether the last trials, which other processes run, have ended."

OnTrial = Callable[[FrozenTrial], None]


class _Superfluous(Exception):
    """Other processes have begun as many trials as the study has."""


def open_study(
    name: str,
    storage: str,
    settings: SearchSettings,
    *,
    identity: str,
    first_trials: Sequence[Mapping[str, Any]],
    spec: Mapping[str, Any] = MappingProxyType({}),
    free: Collection[str] = (),
) -> optuna.Study:
    """A new study whose first trials are enqueued, or the existing study of this name.

    Args:
        storage: the path of a journal file, or the URL of a database.
        identity: a hash of everything that trials depend on; a study is resumed only with the same.
        first_trials: the configurations that a new study tries before any is drawn.
        spec: what a process that joins the study needs, as JSON values. free: its keys that may change.

    Raises:
        InputError: a study of this name was made from other data or settings, or the storage does not answer.
    """
    quieten_optuna()
    backend = open_storage(storage, _try_again)
    with reaching(storage):
        study = optuna.create_study(
            study_name=name, storage=backend, load_if_exists=True, directions=["minimize"] * settings.objectives
        )
        stored = study.user_attrs.get(IDENTITY)
    if stored is None:
        study.set_user_attr(IDENTITY, identity)
        for params in first_trials:
            study.enqueue_trial(dict(params))
    elif stored != identity:
        before = study.user_attrs.get(SPEC, {})
        changed = [key for key in spec if key in before and key not in free and before[key] != spec[key]]
        which = f" ({', '.join(changed)})" if changed else ""
        raise InputError(
            f'study "{name}" was begun with other data or settings{which}, so its trials cannot be compared; '
            "give another --study-name, or the spec and data that it was begun with"
        )
    study.set_user_attr(SPEC, dict(spec))
    study.set_user_attr(WANTED, settings.trials)
    equip(study, settings)
    return study


def join_study(name: str, storage: str) -> optuna.Study:
    """A study that another process has begun. Call :func:`equip` before it draws trials.

    Raises:
        InputError: there is no study of this name, or the storage does not answer.
    """
    quieten_optuna()
    backend = open_storage(storage, _try_again)
    with reaching(storage):
        names = optuna.get_all_study_names(backend)
    if name not in names:
        stored = ", ".join(names) or "no study yet"
        raise InputError(f'--study-name "{name}" is not in the storage, which has {stored}; begin it, or give another')
    return optuna.load_study(study_name=name, storage=backend)


def equip(study: optuna.Study, settings: SearchSettings) -> None:
    """Set the sampler and the pruner, which no storage keeps."""
    study.sampler = SeededByTrial(settings.sampler, settings.seed)
    study.pruner = PRUNERS[settings.pruner](settings.epochs)


def counted_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count towards the study's number: those that ended by themselves."""
    return [trial for trial in study.get_trials(deepcopy=False) if _counts(trial)]


def wanted_trials(study: optuna.Study) -> int:
    """The number of trials of the study."""
    return int(study.user_attrs[WANTED])


def _counts(trial: FrozenTrial) -> bool:
    # A trial that fails because of its parameters has a reason; a killed or interrupted one has none.
    failed = trial.state == TrialState.FAIL and REASON in trial.user_attrs
    return failed or trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def run_trials(
    study: optuna.Study,
    objective: Objective,
    on_trial: OnTrial,
    *,
    deadline: float = float("inf"),
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Run trials until the study has all its trials, together with other processes.

    A trial whose process is gone is ended, and its configuration tried again.

    Args:
        on_trial: called with each trial that this process has ended.
        deadline: a time of `time.monotonic` after which no trial begins.
        stopping: called before each trial; True stops.

    Returns:
        The number of trials that this process has run.
    """
    done = 0

    def ended(_: optuna.Study, trial: FrozenTrial) -> None:
        nonlocal done
        objective.ended(trial)
        if _counts(trial):
            done += 1
            on_trial(trial)

    # Once for all trials, because it searches all loaded libraries for thread pools.
    with one_thread():
        while not stopping() and time.monotonic() < deadline:
            trials = study.get_trials(deepcopy=False)
            counted = sum(map(_counts, trials))
            running = sum(trial.state == TrialState.RUNNING for trial in trials)
            wanted = wanted_trials(study)
            if counted >= wanted:
                break
            if counted + running >= wanted:
                # Other processes run the last trials. If one dies, its configuration is tried again.
                time.sleep(WAIT_S)
                end_stale_trials(study)
                continue
            try:
                study.optimize(
                    _checked(study, objective, wanted),
                    n_trials=1,
                    catch=(NonFiniteLossError, _Superfluous),
                    callbacks=[ended],
                )
            except AssertionError as error:
                # Optuna asserts that the end of a trial was written, which hides why it could not be.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
    return done


def quieten_optuna() -> None:
    # Optuna logs each failed trial with a traceback, after Ctrl-C too; the trial's run holds the reason.
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _checked(study: optuna.Study, objective: Objective, wanted: int) -> Callable[[optuna.Trial], Sequence[float]]:
    def run(trial: optuna.Trial) -> Sequence[float]:
        # Several processes may have begun the last trial. All agree that the one with the lowest number counts.
        before = study.get_trials(deepcopy=False)[: trial.number]
        if sum(_counts(other) or other.state == TrialState.RUNNING for other in before) >= wanted:
            raise _Superfluous
        try:
            return objective(trial)
        except (optuna.TrialPruned, NonFiniteLossError):
            raise
        except BaseException:
            # Ctrl-C or a broken store is not the fault of these parameters.
            _try_again(study, study.get_trials(deepcopy=False)[trial.number])
            raise

    return run


def _try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    # A trial that was enqueued may have died before it drew its parameters.
    params = trial.params or queued_params(trial)
    if params:
        study.enqueue_trial(params, user_attrs={"again": trial.number})
