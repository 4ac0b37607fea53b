"""Training on sources, and on the few users of a target."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from metarec.episodes import DomainEpisodes, EpisodeBatch, Episodes
from metarec.meta import MetaLearner, MetaLearningTrainer
from metarec.meta._outer import make_adam
from metarec.transfer.settings import FusionSettings

__all__ = ["Epochs", "few_users", "fine_tune", "train_on_sources"]


def few_users(episodes: Episodes, count: int, seed: int) -> Episodes:
    """So many users, drawn by seed: the few of a larger number are among those of a larger one."""
    drawn = torch.randperm(len(episodes), generator=torch.Generator().manual_seed(seed))
    return episodes.select(drawn[:count].sort().values)


def train_on_sources(
    learner: MetaLearner,
    sources: Iterable[DomainEpisodes],
    settings: FusionSettings,
    seed: int,
    *,
    beside: Sequence[Episodes] = (),
) -> MetaLearner:
    """Train on all sources together, and on what is `beside` them, until their validation users see no progress."""
    train, validation = [], []
    for source in sources:
        train.append(source.train.batch)
        validation.append(source.validation.batch)
    MetaLearningTrainer(learner, seed=seed).fit(
        [*train, *(episodes.batch for episodes in beside)],
        validation,
        num_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        patience=settings.patience,
    )
    return learner


Epochs = Callable[[MetaLearner, EpisodeBatch, int], Iterator[None]]
"""Trains a meta-learner on tasks of the target for so many epochs; after each of them it is the caller's turn."""


def fine_tune(
    learner: MetaLearner, target: Episodes, settings: FusionSettings, seed: int, epochs: Epochs | None = None
) -> MetaLearner:
    """Train on the target's few users as long as that helps other ones of them; perhaps not at all.

    How many epochs is chosen by cross-validation: in each fold the others are trained on, and after every epoch, and
    before the first, those of the fold are judged. The number with the lowest RMSE over all of them wins.

    Args:
        epochs: how to train; by default on the target's meta-loss alone.
    """
    if len(target) == 1:
        return learner
    epochs = partial(_epochs, settings=settings, seed=seed) if epochs is None else epochs
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    errors = np.zeros(settings.epochs + 1)
    for part in order.tensor_split(min(settings.folds, len(target))):
        others = torch.tensor([user for user in order.tolist() if user not in part.tolist()])
        judged = target.batch.select(part)
        own = copy.deepcopy(learner)
        judge = MetaLearningTrainer(own)
        curve = [judge.validate(judged).rmse]
        for _ in epochs(own, target.batch.select(others), settings.epochs):
            curve.append(judge.validate(judged).rmse)
        errors += float(judged.query.mask.sum()) * np.square(curve)
    for _ in epochs(learner, target.batch, int(errors.argmin())):
        pass
    learner.eval()
    return learner


def _epochs(
    learner: MetaLearner, batch: EpisodeBatch, count: int, *, settings: FusionSettings, seed: int
) -> Iterator[None]:
    """At a constant rate."""
    trainer = MetaLearningTrainer(learner, seed=seed)
    optimizer = make_adam(learner, settings.learning_rate)
    for _ in range(count):
        trainer.train_epoch(batch, optimizer, batch_size=settings.batch_size)
        yield
