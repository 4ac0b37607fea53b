"""When a trial is given up before its end, and what it tells of itself until then: epoch by epoch, or user by user."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import numpy as np
import optuna
import torch
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner

from metarec.episodes import Episodes
from metarec.meta import MetaLearner

__all__ = ["PRUNERS", "Progress", "progress_of", "tells_epochs"]

WARM_UP = 5
"""Epochs in which no trial is compared with others."""


PRUNERS: Mapping[str, Callable[[int], BasePruner]] = {
    "median": lambda epochs: MedianPruner(n_startup_trials=4, n_warmup_steps=WARM_UP),
    "hyperband": lambda epochs: HyperbandPruner(min_resource=min(WARM_UP, epochs), max_resource=epochs),
    "wilcoxon": lambda epochs: WilcoxonPruner(),
    "none": lambda epochs: NopPruner(),
}
"""Name -> makes the pruner of trials that have at most so many epochs."""


class Progress(ABC):
    """What a trial tells its study while it learns.

    Args:
        trial: who tells. pruner: the name of who listens, for messages.
    """

    def __init__(self, trial: optuna.Trial, pruner: str) -> None:
        self.trial = trial
        self._pruner = pruner

    @abstractmethod
    def after_epoch(self, epoch: int, rmse: float, learner: MetaLearner) -> None:
        """Tell of an epoch, counted from 0, after which the RMSE on all validation users is this.

        Raises:
            optuna.TrialPruned: the trial is to be given up.
        """

    @abstractmethod
    def at_end(self, learner: MetaLearner) -> None:
        """Tell what is left, of the network that is kept."""

    def _ask(self, epoch: int, what: str) -> None:
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"given up after epoch {epoch}, {what}; pruner: {self._pruner}")


class _Untold(Progress):
    """Of several objectives Optuna wants to hear nothing before the end."""

    def after_epoch(self, epoch: int, rmse: float, learner: MetaLearner) -> None:
        pass

    def at_end(self, learner: MetaLearner) -> None:
        pass


class _ByEpoch(Progress):
    """The best RMSE so far, after each epoch, and not the latest: a trial is judged by its best epoch."""

    _best = math.inf

    def after_epoch(self, epoch: int, rmse: float, learner: MetaLearner) -> None:
        self._best = min(self._best, rmse)
        self.trial.report(self._best, epoch)
        self._ask(epoch, f"with {self._best:.5f} at best")

    def at_end(self, learner: MetaLearner) -> None:
        pass


class _ByUser(Progress):
    """The RMSE of some more validation users after each epoch, of each user once.

    So trials are compared in pairs: on the same users, each after as many epochs. What is said of one user says nothing
    that was said before, as Wilcoxon's test demands, and with the epochs the test comes to know more users.

    Args:
        validation: the users. epochs: how many there are at most. seed: of the order in which users are taken.
    """

    def __init__(self, trial: optuna.Trial, pruner: str, validation: Episodes, epochs: int, seed: int) -> None:
        super().__init__(trial, pruner)
        self._batch = validation.batch
        order = np.random.default_rng(seed).permutation(len(validation))
        self._turns = np.array_split(order, max(1, epochs - WARM_UP))
        self._told = 0

    def after_epoch(self, epoch: int, rmse: float, learner: MetaLearner) -> None:
        if epoch >= WARM_UP:
            self._tell(self._turns.pop(0), learner)
            self._ask(epoch, f"with {rmse:.5f}, by the errors of {self._told} users")

    def at_end(self, learner: MetaLearner) -> None:
        # Should it be the best, others that learn for longer are compared with all of its users.
        while self._turns:
            self._tell(self._turns.pop(0), learner)

    def _tell(self, users: np.ndarray, learner: MetaLearner) -> None:
        if not len(users):
            return
        some = self._batch.select(torch.from_numpy(users))
        predicted = learner.adapt(some.support).predict(some.query)
        squared = torch.where(some.query.mask, (predicted - some.query.targets) ** 2, 0.0).sum(1)
        errors = (squared / some.query.mask.sum(1)).sqrt()
        for user, error in zip(users.tolist(), errors.tolist(), strict=True):
            self.trial.report(error, user)
        self._told += len(users)


def tells_epochs(pruner: BasePruner) -> bool:
    """Whether the trials of a study with this pruner tell their curve, epoch by epoch."""
    return not isinstance(pruner, WilcoxonPruner)


def progress_of(trial: optuna.Trial, pruner: str, validation: Episodes, *, epochs: int, seed: int) -> Progress:
    """Tells what the pruner of this name wants to know.

    Args:
        validation: the users that trials are compared on. epochs: how many a trial has at most. seed: the study's.
    """
    if len(trial.study.directions) > 1:
        return _Untold(trial, pruner)
    if pruner == "wilcoxon":
        return _ByUser(trial, pruner, validation, epochs, seed)
    return _ByEpoch(trial, pruner)
