"""What a search minimises, as far as the processes that run its trials have to know it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self

import optuna
from optuna.trial import FrozenTrial

from metarec.tracking import StudyRun

__all__ = ["REASON", "Objective", "SearchSettings", "error_of"]

REASON = "reason"
"""An attribute of a trial: why it has no value. A failed trial without a reason was killed."""


class SearchSettings(NamedTuple):
    """How a search draws its trials and which it stops early.

    Attributes:
        trials: how many trials the study has in all.
        sampler: a name of :data:`~metarec.search.sampling.SAMPLERS`; pruner: one of
            :data:`~metarec.search.pruning.PRUNERS`.
        epochs: the most that a trial has. seed: the study's. objectives: how many values a trial has.
    """

    trials: int
    sampler: str
    pruner: str
    epochs: int
    seed: int
    objectives: int = 1


class Objective(ABC):
    """A function of a trial, with a record of each.

    Attributes:
        run: the record of its study; None in a copy for another process.
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
        """Close the record of a trial that this objective has run, in the state that Optuna knows."""

    @abstractmethod
    def recorded_by(self, run: StudyRun | None) -> Self:
        """The same objective with another record, for one process."""


def error_of(trial: FrozenTrial) -> float:
    """The validation error of a complete trial: the first of its values."""
    return float(trial.values[0])
