"""The validation error of one base alone, as a function of its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from metarec.bases import Limits, Range, Setting
from metarec.episodes import QueryScores
from metarec.errors import InputError
from metarec.fusion.ranks import RelevantRanks, ndcg
from metarec.search import REASON, Objective, SearchSettings, error_of
from metarec.tracking import StudyRun

__all__ = ["BaseObjective", "base_error"]


def base_error(found: QueryScores) -> float:
    """The error by which a study compares models: RMSE on the unit scale; in ranking 1 minus the mean nDCG@10."""
    if found.relevant is not None:
        return 1 - float(ndcg(RelevantRanks.of(found.scores, found.targets, found.mask, found.relevant)).mean())
    return float(np.sqrt(np.mean((found.scores - found.targets)[found.mask].astype(np.float64) ** 2)))


class BaseObjective(Objective):
    """The validation error of one base alone. No test user is in it.

    Args:
        space: the searched settings. score: settings -> the scores of a base that is fitted with them.
        settings: of the search.
    """

    run = None

    def __init__(
        self,
        space: Mapping[str, Setting],
        score: Callable[[Mapping[str, Any]], QueryScores],
        settings: SearchSettings,
    ) -> None:
        self._space = space
        self._score = score
        self._settings = settings

    def __call__(self, trial: optuna.Trial) -> list[float]:
        chosen = {name: _suggest(trial, name, own.limits) for name, own in self._space.items()}
        for other in trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if other.params == chosen:
                # A few choices are soon drawn again; a fit is the same with the same seed.
                return [error_of(other)]
        try:
            return [base_error(self._score(chosen))]
        except InputError as error:
            if chosen == self.usual:
                # The study could not go on without this base.
                raise
            trial.set_user_attr(REASON, str(error))
            return [float("nan")]

    @property
    def usual(self) -> dict[str, Any]:
        """The defaults of the searched settings."""
        return {name: own.default for name, own in self._space.items()}

    @property
    def settings(self) -> SearchSettings:
        return self._settings

    def ended(self, trial: FrozenTrial) -> None:
        """Nothing is open: the runs are recorded from Optuna's storage."""

    def recorded_by(self, run: StudyRun | None) -> Self:
        return self


def _suggest(trial: optuna.Trial, name: str, limits: Limits) -> Any:
    if not isinstance(limits, Range):
        return trial.suggest_categorical(name, limits.values)
    if limits.is_whole:
        return trial.suggest_int(name, int(limits.low), int(limits.high), log=limits.log)
    return trial.suggest_float(name, limits.low, limits.high, log=limits.log)
