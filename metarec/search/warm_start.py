"""The first trials of a new study: its default configuration, and the best ones of earlier studies on any domain.

Good rates and widths of one domain are often good on the next one (Feurer, Springenberg and Hutter 2015, "Initializing
Bayesian hyperparameter optimization via meta-learning"). Only configurations are carried over, not values: errors of
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
from metarec.fusion import Limits
from metarec.registry import suggest
from metarec.search.objective import ranked
from metarec.search.storage import open_storage, reaching

__all__ = ["best_configurations", "first_trials"]

COUNT = 5
"""Most configurations from all earlier studies together."""

APART = 0.1
"""Two of them differ in some parameter by this part of its range: the best trials of a search resemble each other."""


def first_trials(
    earlier: Sequence[str],
    own: Sequence[Mapping[str, Any]],
    space: Mapping[str, Limits],
    *,
    name: str,
    storage: str,
) -> list[Mapping[str, Any]]:
    """The configurations that a new study tries first: its own, then the best of earlier studies.

    Args:
        earlier: names of earlier studies. own: the configurations of the new one; the first is its default.
        space: the range of each parameter. name: of the new study; an existing study has its first trials already.
        storage: the path of a journal file, or the URL of a database, that holds all these studies.

    Raises:
        InputError: an earlier study is not there, or has no complete trial.
    """
    if not earlier:
        return list(own)
    names: list[str] = []
    if "://" in storage or Path(storage).exists():
        backend = open_storage(storage)
        with reaching(storage):
            names = optuna.get_all_study_names(backend)
    if name in names:
        return list(own)
    ended = []
    for other in earlier:
        if other not in names:
            near = suggest(other, names) if names else "it has no study yet"
            raise InputError(f'warm_start: study "{other}" is not in the storage of this one; {near}')
        study = optuna.load_study(study_name=other, storage=backend)
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not trials:
            raise InputError(f'warm_start: study "{other}" has no complete trial; name another, or finish it')
        ended.append(trials)
    return [*own, *best_configurations(ended, space, own[0], but=own)]


def best_configurations(
    earlier: Sequence[Sequence[FrozenTrial]],
    space: Mapping[str, Limits],
    usual: Mapping[str, Any],
    *,
    but: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """At most five configurations in this space: the best of each study in turn, then each second best, and so on.

    A value outside a range is moved to its end. A parameter that an earlier study did not have gets its default. A
    configuration that resembles another is left out.

    Args:
        earlier: the complete trials of each study. usual: the default configuration. but: those that are tried anyway.
    """
    chosen: list[dict[str, Any]] = []
    for trial in chain.from_iterable(zip_longest(*map(ranked, earlier))):
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
