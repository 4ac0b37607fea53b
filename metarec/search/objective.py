"""The objective of a search: the part that the processes running its trials need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import optuna
from optuna.trial import FrozenTrial

from metarec.tracking import StudyRun

__all__ = ["REASON", "Objective", "SearchSettings", "error_of", "ranked"]

REASON = "reason"
"""The trial attribute that says why a trial has no value. A failed trial without it was killed or interrupted."""


class SearchSettings(NamedTuple):
    """How a search draws its trials and which it stops early.

    Attributes:
        trials: number of trials of the study.
        sampler: a name of :data:`~metarec.search.sampling.SAMPLERS`; pruner: one of
            :data:`~metarec.search.pruning.PRUNERS`.
        epochs: most epochs of a trial. seed: the study's. objectives: number of values of a trial.
    """

    trials: int
    sampler: str
    pruner: str
    epochs: int
    seed: int
    objectives: int = 1


class Objective(ABC):
    """A function of a trial that records each trial in the tracking store.

    Attributes:
        run: the record of the study; None in a copy for another process.
    """

    run: StudyRun | None

    @property
    @abstractmethod
    def settings(self) -> SearchSettings:
        """The settings of the search."""

    @abstractmethod
    def __call__(self, trial: optuna.Trial) -> Sequence[float]:
        """The trial's values, one for each objective of the study."""

    @abstractmethod
    def ended(self, trial: FrozenTrial) -> None:
        """Close the record of a trial that this objective has run, in its state in Optuna."""

    @abstractmethod
    def recorded_by(self, run: StudyRun | None) -> Self:
        """A copy of the objective with another record, for one process."""


def error_of(trial: FrozenTrial) -> float:
    """The validation error of a complete trial: the first of its values."""
    return float(trial.values[0])


def ranked(complete: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Complete trials, the best first."""
    return sorted(complete, key=lambda trial: (error_of(trial), trial.number))
