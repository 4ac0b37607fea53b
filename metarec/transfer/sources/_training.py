"""Fine-tuning on the few users of a target."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from metarec.episodes import EpisodeBatch, Episodes
from metarec.meta import MetaLearner, MetaLearningTrainer, NonFiniteLossError, judge_of, make_adam
from metarec.model import fold_indices
from metarec.transfer.sources._settings import TransferSettings

__all__ = ["Epochs", "best_epoch", "fine_tune"]

Epochs = Callable[[MetaLearner, EpisodeBatch, int], Iterator[None]]
"""Trains a meta-learner on tasks for a number of epochs and yields after each."""


def best_epoch(curves: Iterable[Iterator[float]], patience: int) -> int:
    """The epoch with the smallest sum of errors over the folds' learning curves, which start with epoch 0.

    All curves advance together, and none further than `patience` epochs beyond the best.
    """
    best, chosen = math.inf, 0
    for epoch, errors in enumerate(zip(*curves, strict=False)):
        if sum(errors) < best:
            best, chosen = sum(errors), epoch
        if epoch - chosen >= patience:
            break
    return chosen


def fine_tune(
    learner: MetaLearner, target: Episodes, settings: TransferSettings, seed: int, epochs: Epochs | None = None
) -> MetaLearner:
    """Train on the target's few users; cross-validation among them chooses the number of epochs, which may be 0.

    Args:
        epochs: how to train; by default on the target's meta-loss alone.
    """
    if len(target) == 1:
        return learner
    epochs = partial(_epochs, settings=settings, seed=seed) if epochs is None else epochs
    curves = [
        _curve(copy.deepcopy(learner), target.batch.select(others), target.select(part), epochs, settings.epochs)
        for others, part in fold_indices(len(target), settings.folds, seed)
    ]
    for _ in epochs(learner, target.batch, best_epoch(curves, settings.patience)):
        pass
    learner.eval()
    return learner


def _curve(
    learner: MetaLearner, train: EpisodeBatch, validation: Episodes, epochs: Epochs, count: int
) -> Iterator[float]:
    """The sum of validation errors before the first epoch and after each; infinite where training diverges.

    The errors of ratings are squared; the error of a list is 1 - nDCG@10.
    """
    trainer, judge = MetaLearningTrainer(learner), judge_of([validation])
    rows = int(validation.batch.query.mask.sum())

    def errors() -> float:
        error = trainer.validate(validation.batch, judge).error
        return rows * error**2 if validation.task == "rating" else len(validation) * error

    yield errors()
    try:
        for _ in epochs(learner, train, count):
            yield errors()
    except NonFiniteLossError:
        yield math.inf


def _epochs(
    learner: MetaLearner, batch: EpisodeBatch, count: int, *, settings: TransferSettings, seed: int
) -> Iterator[None]:
    """Epochs at a constant learning rate."""
    trainer = MetaLearningTrainer(learner, seed=seed)
    optimizer = make_adam(learner, settings.outer_lr)
    for _ in range(count):
        trainer.train_epoch(batch, optimizer, batch_size=settings.batch_size)
        yield
