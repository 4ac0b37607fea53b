"""A fusion network and its engine as plain values, from which they are built, here or elsewhere."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from metarec.fusion import NETWORKS, FusionNetwork
from metarec.meta._base import Adapted, MetaLearner
from metarec.meta.engines import make_engine

__all__ = ["LearnerConfig"]


class LearnerConfig(BaseModel):
    """Everything that makes a meta-learner but what it has learned.

    Attributes:
        network: the name of a fusion network; options: its keyword arguments.
        num_algorithms: A, how many bases it combines. feature_dim: F, features of each; context_dim: C.
        engine: the name of an engine; what follows are arguments of :func:`metarec.meta.make_engine`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    options: dict[str, Any]
    num_algorithms: int
    feature_dim: int
    context_dim: int
    engine: str
    inner_lr: float
    inner_steps: int
    first_order: bool
    loss: Literal["mse", "mae", "huber", "fusion"]
    learn_rates: bool
    adapted: Adapted

    def build(self, seed: int) -> MetaLearner:
        """The meta-learner, freshly started from the seed.

        Raises:
            InputError: a name or an option that is unknown.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network: FusionNetwork = NETWORKS.get(self.network).for_episodes(
                self.num_algorithms, self.feature_dim, self.context_dim, **self.options
            )
        return make_engine(
            self.engine,
            network,
            inner_lr=self.inner_lr,
            inner_steps=self.inner_steps,
            first_order=self.first_order,
            loss=self.loss,
            learn_rates=self.learn_rates,
            adapted=self.adapted,
        )
