"""Running trials: up to a number in all, by however many processes, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from metarec.errors import InputError
from metarec.meta import NonFiniteLossError
from metarec.study.recorded_trial import REASON, RecordedObjective
from metarec.study.spec import StudySpec
from metarec.study.storage import end_stale_trials, open_storage, reaching
from metarec.threads import one_thread

__all__ = ["OnTrial", "counted_trials", "join_study", "open_study", "run_trials", "wanted_trials"]

IDENTITY = "identity"
"A study attribute: the hash of everything that its trials depend on."

SPEC, WANTED = "spec", "trials"
"Study attributes: what a process needs that joins from elsewhere, and how many trials there are to be in all."

WAIT_S = 0.5
"How often it is looked whether the last trials, which others run, have ended."

OnTrial = Callable[[FrozenTrial], None]


class _Superfluous(Exception):
    """Others have begun as many trials as are wanted."""


def open_study(spec: StudySpec, name: str, storage: str, identity: str) -> optuna.Study:
    """The study of this name: a new one whose first trials wait (trial 0 is the default), or the one begun before.

    Args:
        storage: the path of a journal file, or the URL of a database.
        identity: a hash of everything that trials depend on; a study goes on only with the same.

    Raises:
        InputError: a study of this name was made from other data or settings, or the storage does not answer.
    """
    quieten_optuna()
    backend = open_storage(storage, _try_again)
    with reaching(storage):
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
    study.set_user_attr(SPEC, spec.model_dump(mode="json"))
    study.set_user_attr(WANTED, spec.trials)
    study.sampler = _SeededByTrial(spec.seed)
    return study


def join_study(name: str, storage: str) -> tuple[optuna.Study, StudySpec, str]:
    """A study that somebody has begun, its spec, and the hash of what its trials depend on.

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
    study = optuna.load_study(study_name=name, storage=backend)
    attributes = study.user_attrs
    if SPEC not in attributes:
        raise InputError(f'study "{name}" is not ready to be joined: it was begun elsewhere and has no spec yet')
    spec = StudySpec.model_validate(attributes[SPEC])
    study.pruner = _pruner(spec)
    study.sampler = _SeededByTrial(spec.seed)
    return study, spec, attributes[IDENTITY]


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
    objective: RecordedObjective,
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
        with one_thread():
            study.optimize(
                _checked(study, objective, wanted),
                n_trials=1,
                catch=(NonFiniteLossError, _Superfluous),
                callbacks=[told],
            )
    return done


def quieten_optuna() -> None:
    # It warns of every failed trial, with a traceback, after Ctrl-C too; the trial's run says why it failed.
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _checked(study: optuna.Study, objective: RecordedObjective, wanted: int) -> Callable[[optuna.Trial], float]:
    def run(trial: optuna.Trial) -> float:
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


class _SeededByTrial(optuna.samplers.BaseSampler):
    """A sampler that begins anew with each trial, seeded by the study's seed and the trial's number.

    So what is drawn depends on the trials before and not on who draws: a study that goes on does not draw its first
    trials again, and no two processes draw the same.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._now: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
        self._now = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        self._now.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._now.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._now.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._now.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._now.after_trial(study, trial, state, values)


def _pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    if spec.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=5)
