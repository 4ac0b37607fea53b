"""The configuration of a fusion network, its inner loop and its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field

from metarec.config import Config
from metarec.episodes import EpisodeBatch, Episodes
from metarec.fusion import NETWORKS, FusionNetwork
from metarec.fusion.ranks import RankingJudge
from metarec.meta._base import Adapted, MetaLearner
from metarec.meta._data import Shape
from metarec.meta.engines import make_engine
from metarec.meta.trainer import RMSE, Judge, MetaLearningTrainer

__all__ = ["NetworkConfig", "OnEpoch", "TrainedNetwork", "judge_of"]

OnEpoch = Callable[[MetaLearner, int, Mapping[str, float]], None]
"""Called with the learner, the epoch from 0, and its metrics."""


class TrainedNetwork(NamedTuple):
    """A meta-learned network.

    Attributes:
        learner: the network in its engine, with the weights of its best epoch.
        curves: name -> one number for each epoch. error: that of the judge on validation users, in the best epoch.
    """

    learner: MetaLearner
    curves: dict[str, list[float]]
    error: float


class NetworkConfig(Config):
    """The configuration of a meta-learned network; data and seed are passed to :meth:`fit`.

    Raises:
        InputError: a value breaks its rule; in :meth:`build`, a name or an option is unknown.
    """

    network: str = "gated"
    "Name of a fusion network."
    options: dict[str, Any] = Field(default_factory=dict)
    "Arguments of its constructor."
    engine: str = "batched"
    "Name of the engine that computes the meta-gradient."
    inner_lr: float = 0.02
    "Rate of the inner steps on a user's support rows."
    inner_steps: int = 1
    "How many inner steps; 0 does not adapt."
    first_order: bool = False
    "Whether the outer gradient drops its second-order part."
    loss: Literal["mse", "mae", "huber", "fusion"] = "fusion"
    "Loss of the inner and the outer loop; fusion is the network's own."
    learn_rates: bool = False
    "Whether an inner rate is learned for each parameter tensor."
    adapted: Adapted = "all"
    "What a user's support rows change: all parameters or the head by inner steps, or a ridge regression beside them."
    outer_lr: float = 3e-3
    "Rate of Adam over train users."
    epochs: int = Field(60, ge=1)
    "The most passes over the train users."
    batch_size: int = Field(128, ge=1)
    "Users in one outer step."
    patience: int = Field(12, ge=1)
    "Epochs without progress on validation users after which training stops."

    def build(self, shape: Shape, seed: int) -> MetaLearner:
        """An untrained meta-learner for rows of this shape, initialised from the seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network: FusionNetwork = NETWORKS.get(self.network).for_episodes(*shape, **self.options)
            return make_engine(
                self.engine,
                network,
                inner_lr=self.inner_lr,
                inner_steps=self.inner_steps,
                first_order=self.first_order,
                loss=self.loss,
                learn_rates=self.learn_rates,
                adapted=self.adapted,
                shape=shape,
            )

    def fit(
        self,
        train: Sequence[EpisodeBatch],
        validation: Sequence[EpisodeBatch],
        *,
        seed: int,
        judge: Judge = RMSE,
        on_epoch: OnEpoch | None = None,
    ) -> TrainedNetwork:
        """Meta-learn the network on train users, with early stopping on validation users.

        Args:
            train: one batch for each domain. validation: the same, of other users.
            judge: the error of the predictions for validation users; by default the RMSE on the unit scale.
        """
        learner = self.build(Shape.of(train[0]), seed)
        trainer = MetaLearningTrainer(learner, seed=seed)
        best = trainer.fit(
            train,
            validation,
            num_epochs=self.epochs,
            learning_rate=self.outer_lr,
            batch_size=self.batch_size,
            patience=self.patience,
            judge=judge,
            on_epoch=None if on_epoch is None else partial(on_epoch, learner),
        )
        return TrainedNetwork(learner, trainer.training_history, best)


def judge_of(validation: Sequence[Episodes]) -> Judge:
    """The error by which training stops on these users: the RMSE, in ranking 1 - nDCG@10."""
    relevant = [one.relevant for one in validation if one.relevant is not None]
    return RankingJudge(relevant) if relevant else RMSE
