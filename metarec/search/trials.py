"""Running trials: up to a number in all, by however many processes, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from metarec.errors import InputError
from metarec.meta import NonFiniteLossError
from metarec.search.objective import REASON, Objective, SearchSettings
from metarec.search.pruning import PRUNERS
from metarec.search.sampling import SeededByTrial
from metarec.search.storage import end_stale_trials, open_storage, reaching
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
"Another one: what a process that joins from elsewhere needs."

WANTED = "trials"
"Another one: how many trials there are to be in all."

WAIT_S = 0.5
"How often it is looked whether the last trials, which others run, have ended."

OnTrial = Callable[[FrozenTrial], None]


class _Superfluous(Exception):
    """Others have begun as many trials as are wanted."""


def open_study(
    name: str,
    storage: str,
    settings: SearchSettings,
    *,
    identity: str,
    first_trials: Sequence[Mapping[str, Any]],
    spec: Mapping[str, Any] = MappingProxyType({}),
) -> optuna.Study:
    """The study of this name: a new one whose first trials wait, or the one begun before.

    Args:
        storage: the path of a journal file, or the URL of a database.
        identity: a hash of everything that trials depend on; a study goes on only with the same.
        first_trials: the configurations that a new study tries before any is drawn.
        spec: what a process that joins the study needs, as values that JSON knows.

    Raises:
        InputError: a study of this name was made from other data or settings, or the storage does not answer.
    """
    quieten_optuna()
    backend = open_storage(storage, _try_again)
    with reaching(storage):
        study = optuna.create_study(
            study_name=name, storage=backend, load_if_exists=True, directions=["minimize"] * settings.objectives
        )
        known = study.user_attrs.get(IDENTITY)
    if known is None:
        study.set_user_attr(IDENTITY, identity)
        for params in first_trials:
            study.enqueue_trial(dict(params))
    elif known != identity:
        raise InputError(
            f'study "{name}" was begun with other data or settings, so its trials cannot be compared; '
            "give another --study-name, or the spec and data that it was begun with"
        )
    study.set_user_attr(SPEC, dict(spec))
    study.set_user_attr(WANTED, settings.trials)
    equip(study, settings)
    return study


def join_study(name: str, storage: str) -> optuna.Study:
    """A study that another process has begun. It draws and prunes only after :func:`equip`.

    Raises:
        InputError: there is none of this name, or the storage does not answer.
    """
    quieten_optuna()
    backend = open_storage(storage, _try_again)
    with reaching(storage):
        names = optuna.get_all_study_names(backend)
    if name not in names:
        known = ", ".join(names) or "no study yet"
        raise InputError(f'--study-name "{name}" is not in the storage, which has {known}; begin it, or give another')
    return optuna.load_study(study_name=name, storage=backend)


def equip(study: optuna.Study, settings: SearchSettings) -> None:
    """Give a study its sampler and its pruner, which no storage keeps."""
    study.sampler = SeededByTrial(settings.sampler, settings.seed)
    study.pruner = PRUNERS[settings.pruner](settings.epochs)


def counted_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count towards the study's number: all that ended by themselves."""
    return [trial for trial in study.get_trials(deepcopy=False) if _counts(trial)]


def wanted_trials(study: optuna.Study) -> int:
    """How many trials the study is to have in all."""
    return int(study.user_attrs[WANTED])


def _counts(trial: FrozenTrial) -> bool:
    # Who fails by itself says why. Who was killed or interrupted could not, or it was not the trial's fault.
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
    """Run trials until the study has as many as are wanted, whoever runs them.

    A trial whose process is gone is ended, and its configuration tried again.

    Args:
        on_trial: hears of each trial that this process has ended.
        deadline: a time of `time.monotonic` after which no trial begins.
        stopping: asked before each trial whether to stop.

    Returns:
        How many trials this process has run.
    """
    done = 0

    def told(_: optuna.Study, trial: FrozenTrial) -> None:
        nonlocal done
        objective.ended(trial)
        if _counts(trial):
            done += 1
            on_trial(trial)

    # Once for all trials: it looks for all libraries with threads each time.
    with one_thread():
        while not stopping() and time.monotonic() < deadline:
            trials = study.get_trials(deepcopy=False)
            counted = sum(map(_counts, trials))
            running = sum(trial.state == TrialState.RUNNING for trial in trials)
            wanted = wanted_trials(study)
            if counted >= wanted:
                break
            if counted + running >= wanted:
                # The last ones are others'; should one of them die, its configuration is to be tried again.
                time.sleep(WAIT_S)
                end_stale_trials(study)
                continue
            try:
                study.optimize(
                    _checked(study, objective, wanted),
                    n_trials=1,
                    catch=(NonFiniteLossError, _Superfluous),
                    callbacks=[told],
                )
            except AssertionError as error:
                # Where the end of a trial cannot be written Optuna asserts that it was, and hides the reason.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
    return done


def quieten_optuna() -> None:
    # It warns of every failed trial, with a traceback, after Ctrl-C too; the trial's run says why it failed.
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _checked(study: optuna.Study, objective: Objective, wanted: int) -> Callable[[optuna.Trial], Sequence[float]]:
    def run(trial: optuna.Trial) -> Sequence[float]:
        # Several may have seen the last place free. Numbers are given out one by one, so they agree on who has it.
        before = study.get_trials(deepcopy=False)[: trial.number]
        if sum(_counts(other) or other.state == TrialState.RUNNING for other in before) >= wanted:
            raise _Superfluous
        try:
            return objective(trial)
        except (optuna.TrialPruned, NonFiniteLossError):
            raise
        except BaseException:
            # Ctrl-C or a broken store says nothing about these parameters.
            _try_again(study, study.get_trials(deepcopy=False)[trial.number])
            raise

    return run


def _try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    params: dict[str, Any] = trial.params
    if not params:
        # It did not come to draw them. A configuration that waited for it is known all the same.
        params = trial.system_attrs.get("fixed_params", {})
    if params:
        study.enqueue_trial(params, user_attrs={"again": trial.number})
