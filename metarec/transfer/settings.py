"""The fusion network that is carried from domain to domain, and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from metarec.episodes import Episodes
from metarec.errors import InputError
from metarec.fusion import NETWORKS, FusionNetwork
from metarec.meta import MetaLearner, make_engine

__all__ = ["FusionSettings"]


@dataclass(frozen=True)
class FusionSettings:
    """A fusion network, its inner loop and its training.

    Attributes:
        network: its name; options: its arguments by name.
        inner_lr, inner_steps, adapted, learn_rates, loss: of the inner loop, see :func:`~metarec.meta.make_engine`.
        learning_rate: the outer rate; batch_size: tasks per step.
        epochs: how often each task is seen at the most; patience: epochs without progress after which training on
            sources stops.
        stackers: which of them are trained beside the network, on the same episodes.
        folds: into how many parts the target's few users are divided to choose how long to train on them.
    """

    network: str = "gated"
    options: Mapping[str, Any] = field(default_factory=lambda: {"hidden_dim": 32, "dropout": 0.2})
    inner_lr: float = 0.001
    inner_steps: int = 1
    adapted: Literal["all", "head"] = "head"
    learn_rates: bool = True
    loss: str = "mse"
    learning_rate: float = 0.002
    batch_size: int = 128
    epochs: int = 60
    patience: int = 6
    folds: int = 5
    stackers: tuple[str, ...] = ("ridge", "fwls")

    def __post_init__(self) -> None:
        NETWORKS.check(self.network)
        for name, least in (("batch_size", 1), ("epochs", 1), ("patience", 1), ("folds", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be an integer >= {least} but got {value!r}")

    def start(self, episodes: Episodes, seed: int) -> MetaLearner:
        """An untrained meta-learner for tasks of the shape of these."""
        rows = episodes.batch.query
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network: FusionNetwork = NETWORKS.get(self.network).for_episodes(
                *rows.algorithm_features.shape[-2:], rows.context.shape[-1], **self.options
            )
        return make_engine(
            "batched",
            network,
            inner_lr=self.inner_lr,
            inner_steps=self.inner_steps,
            adapted=self.adapted,
            learn_rates=self.learn_rates,
            loss=self.loss,  # type: ignore[arg-type]  # make_engine checks it
        )
