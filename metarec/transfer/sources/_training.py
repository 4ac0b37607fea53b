"""Training on sources, and on the few users of a target."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch

from metarec.episodes import EpisodeBatch, Episodes
from metarec.meta import MetaLearner, MetaLearningTrainer, NonFiniteLossError, make_adam
from metarec.transfer.sources._few import deal_places
from metarec.transfer.sources.settings import TransferSettings

__all__ = ["Epochs", "few_users", "fine_tune"]


def few_users(episodes: Episodes, count: int, seed: int) -> Episodes:
    """So many users, drawn by seed: the few of a larger number are among those of a larger one."""
    drawn = torch.randperm(len(episodes), generator=torch.Generator().manual_seed(seed))
    return episodes.select(drawn[:count].sort().values)


Epochs = Callable[[MetaLearner, EpisodeBatch, int], Iterator[None]]
"""Trains a meta-learner on tasks of the target for so many epochs; after each of them it is the caller's turn."""


def fine_tune(
    learner: MetaLearner, target: Episodes, settings: TransferSettings, seed: int, epochs: Epochs | None = None
) -> MetaLearner:
    """Train on the target's few users as long as that helps other ones of them; perhaps not at all.

    How many epochs is chosen by cross-validation: in each fold the others are trained on, and after every epoch, and
    before the first, those of the fold are judged. The number with the lowest RMSE over all of them wins. All folds are
    trained side by side, and no longer than the patience allows: so one that is not trained at all costs little.

    Args:
        epochs: how to train; by default on the target's meta-loss alone.
    """
    if len(target) == 1:
        return learner
    epochs = partial(_epochs, settings=settings, seed=seed) if epochs is None else epochs
    curves = [
        _curve(copy.deepcopy(learner), target.batch.select(others), target.batch.select(part), epochs, settings.epochs)
        for others, part in deal_places(len(target), settings.folds, seed)
    ]
    best, chosen = math.inf, 0
    for epoch, errors in enumerate(zip(*curves, strict=False)):
        if sum(errors) < best:
            best, chosen = sum(errors), epoch
        if epoch - chosen >= settings.patience:
            break
    for _ in epochs(learner, target.batch, chosen):
        pass
    learner.eval()
    return learner


def _curve(
    learner: MetaLearner, known: EpisodeBatch, judged: EpisodeBatch, epochs: Epochs, count: int
) -> Iterator[float]:
    """The sum of squared errors on `judged` before the first epoch of training on `known`, and after each.

    Where training breaks down the errors are infinite, and there are no more.
    """
    judge = MetaLearningTrainer(learner)
    rows = int(judged.query.mask.sum())
    yield rows * judge.validate(judged).rmse ** 2
    try:
        for _ in epochs(learner, known, count):
            yield rows * judge.validate(judged).rmse ** 2
    except NonFiniteLossError:
        yield math.inf


def _epochs(
    learner: MetaLearner, batch: EpisodeBatch, count: int, *, settings: TransferSettings, seed: int
) -> Iterator[None]:
    """At a constant rate."""
    trainer = MetaLearningTrainer(learner, seed=seed)
    optimizer = make_adam(learner, settings.outer_lr)
    for _ in range(count):
        trainer.train_epoch(batch, optimizer, batch_size=settings.batch_size)
        yield
