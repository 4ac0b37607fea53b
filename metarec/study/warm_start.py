"""What a new study tries before it draws: its default, and what was best in earlier studies, on whatever domain.

Good rates and widths of one domain are often good on the next one (Feurer, Springenberg and Hutter 2015, "Initializing
Bayesian hyperparameter optimization via meta-learning"). Values are never carried over, only configurations: errors of
different domains cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from metarec.errors import InputError
from metarec.registry import suggest
from metarec.study.recorded_trial import error_of
from metarec.study.space import Limits
from metarec.study.spec import StudySpec
from metarec.study.storage import open_storage, reaching

__all__ = ["best_configurations", "first_trials"]

COUNT = 5
"""How many earlier configurations are tried, of all earlier studies together."""

APART = 0.1
"""By so much of a range two of them must differ in some parameter: the best trials of one search are much alike."""


def first_trials(spec: StudySpec, name: str, storage: str) -> list[dict[str, Any]]:
    """The configurations that a new study tries first: those of its spec, then the best of the earlier studies.

    Args:
        name: the new study's. If it is not new, it has them already.
        storage: the path of a journal file, or the URL of a database, which holds the earlier studies, too.

    Raises:
        InputError: an earlier study is not there, or has no complete trial.
    """
    if not spec.warm_start:
        return spec.first_trials
    names: list[str] = []
    if "://" in storage or Path(storage).exists():
        backend = open_storage(storage)
        with reaching(storage):
            names = optuna.get_all_study_names(backend)
    if name in names:
        return spec.first_trials
    earlier = []
    for other in spec.warm_start:
        if other not in names:
            near = suggest(other, names) if names else "it has no study yet"
            raise InputError(f'warm_start: study "{other}" is not in the storage of this one; {near}')
        study = optuna.load_study(study_name=other, storage=backend)
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not trials:
            raise InputError(f'warm_start: study "{other}" has no complete trial; name another, or finish it')
        earlier.append(trials)
    first = spec.first_trials
    return first + best_configurations(earlier, spec.space, spec.trial_zero, but=first)


def best_configurations(
    earlier: Sequence[Sequence[FrozenTrial]],
    space: Mapping[str, Limits],
    usual: Mapping[str, Any],
    *,
    but: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """At most five configurations in this space: the best of each study in turn, then each second best, and so on.

    What lies outside of a range is moved to its end, and what an earlier study did not have is as usual. One that is
    much like another is passed over.

    Args:
        earlier: of each study its complete trials. usual: the default configuration. but: those that are tried anyway.
    """
    ranked = [sorted(trials, key=lambda trial: (error_of(trial), trial.number)) for trials in earlier]
    chosen: list[dict[str, Any]] = []
    for trial in chain.from_iterable(zip_longest(*ranked)):
        if trial is None:
            continue
        moved = {
            name: limits.nearest(trial.params[name]) if name in trial.params else None for name, limits in space.items()
        }
        params = {name: usual[name] if value is None else value for name, value in moved.items()}
        if all(_apart(space, params, other) >= APART for other in (*but, *chosen)):
            chosen.append(params)
        if len(chosen) == COUNT:
            break
    return chosen


def _apart(space: Mapping[str, Limits], one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return max(abs(limits.place(one[name]) - limits.place(other[name])) for name, limits in space.items())
