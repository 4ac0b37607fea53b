"""Pruners, and the intermediate values that a trial reports to them: one an epoch, or one a validation user."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import optuna
import torch
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner

from metarec.episodes import Episodes
from metarec.meta import MetaLearner

__all__ = ["PRUNERS", "Progress", "progress_of", "reports_epochs"]

WARM_UP = 5
"""First epochs, in which no trial is compared with others."""

PRUNERS: Mapping[str, Callable[[int], BasePruner]] = {
    "median": lambda epochs: MedianPruner(n_startup_trials=4, n_warmup_steps=WARM_UP),
    "hyperband": lambda epochs: HyperbandPruner(min_resource=min(WARM_UP, epochs), max_resource=epochs),
    "wilcoxon": lambda epochs: WilcoxonPruner(),
    "none": lambda epochs: NopPruner(),
}
"""Name -> function from the most epochs of a trial to the pruner."""


class Progress:
    """Reports the intermediate values of a trial.

    This one reports nothing: Optuna takes no intermediate values in a study of several objectives.

    Args:
        pruner: name of the study's pruner, for messages.
    """

    def __init__(self, trial: optuna.Trial, pruner: str) -> None:
        self.trial = trial
        self._pruner = pruner

    def after_epoch(self, epoch: int, rmse: float, learner: MetaLearner) -> None:
        """Report an epoch, counted from 0, and the RMSE on all validation users after it.

        Raises:
            optuna.TrialPruned: the pruner stops the trial.
        """

    def at_end(self, learner: MetaLearner) -> None:
        """Report what is left, with the network that is kept."""

    def _check(self, epoch: int, what: str) -> None:
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"given up after epoch {epoch}, {what}; pruner: {self._pruner}")


class _ByEpoch(Progress):
    """Reports the best RMSE so far after each epoch, not the latest: the value of a trial is that of its best epoch."""

    _best = math.inf

    def after_epoch(self, epoch: int, rmse: float, learner: MetaLearner) -> None:
        self._best = min(self._best, rmse)
        self.trial.report(self._best, epoch)
        self._check(epoch, f"with {self._best:.5f} at best")


class _ByUser(Progress):
    """Reports the RMSE of some more validation users after each epoch, of each user once.

    Trials are compared in pairs: on the same users, each after as many epochs. The errors of different users are
    independent, as Wilcoxon's test requires, and the test has more users with each epoch.

    Args:
        epochs: most epochs of a trial. seed: of the order of the users.
    """

    def __init__(self, trial: optuna.Trial, pruner: str, validation: Episodes, epochs: int, seed: int) -> None:
        super().__init__(trial, pruner)
        self._batch = validation.batch
        order = np.random.default_rng(seed).permutation(len(validation))
        self._turns = np.array_split(order, max(1, epochs - WARM_UP))
        self._reported = 0

    def after_epoch(self, epoch: int, rmse: float, learner: MetaLearner) -> None:
        if epoch >= WARM_UP:
            self._report(self._turns.pop(0), learner)
            self._check(epoch, f"with {rmse:.5f}, by the errors of {self._reported} users")

    def at_end(self, learner: MetaLearner) -> None:
        # If it is the best, trials that train for longer are compared with it on all users.
        while self._turns:
            self._report(self._turns.pop(0), learner)

    def _report(self, users: np.ndarray, learner: MetaLearner) -> None:
        if not len(users):
            return
        some = self._batch.select(torch.from_numpy(users))
        predicted = learner.adapt(some.support).predict(some.query)
        squared = torch.where(some.query.mask, (predicted - some.query.targets) ** 2, 0.0).sum(1)
        errors = (squared / some.query.mask.sum(1)).sqrt()
        for user, error in zip(users.tolist(), errors.tolist(), strict=True):
            self.trial.report(error, user)
        self._reported += len(users)


def reports_epochs(pruner: BasePruner) -> bool:
    """Whether the trials of a study with this pruner report a value for each epoch."""
    return not isinstance(pruner, WilcoxonPruner)


def progress_of(trial: optuna.Trial, pruner: str, validation: Episodes, *, epochs: int, seed: int) -> Progress:
    """Reports the intermediate values that the pruner of this name compares.

    Args:
        validation: the users that trials are compared on. epochs: most epochs of a trial. seed: the study's.
    """
    if len(trial.study.directions) > 1:
        return Progress(trial, pruner)
    if pruner == "wilcoxon":
        return _ByUser(trial, pruner, validation, epochs, seed)
    return _ByEpoch(trial, pruner)
