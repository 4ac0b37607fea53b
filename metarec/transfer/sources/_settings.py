"""Settings of the fusion that transfer strategies train on sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from metarec.fusion import NETWORKS, Task
from metarec.meta import Adapted, NetworkConfig
from metarec.model import FusionConfig, stackers_of

__all__ = ["TransferSettings"]

RANKING: Mapping[str, Any] = {
    "options": {"hidden_dim": 32, "dropout": 0.2, "prediction_loss": "softmax"},
    "loss": "fusion",
    "stackers": ("greedy", "logistic"),
}
"""Defaults of ranking: a loss of lists, and rankers."""


class TransferSettings(NetworkConfig):
    """A fusion network and its training, stackers, and the folds of the target's few users.

    Raises:
        InputError: an unknown name, or a number that breaks its rule.
    """

    task: Task = "rating"
    "What is predicted: ratings, or an order of candidates."
    options: dict[str, Any] = Field(default_factory=lambda: {"hidden_dim": 32, "dropout": 0.2})
    "Arguments of the network."
    engine: Literal["batched"] = "batched"
    "The other engines compute the same, task by task."
    inner_lr: float = 0.001
    inner_steps: int = 1
    adapted: Adapted = "head"
    learn_rates: bool = True
    loss: Literal["mse", "mae", "huber", "fusion"] = "mse"
    outer_lr: float = 0.002
    patience: int = Field(6, ge=1)
    stackers: tuple[str, ...] = ("ridge", "fwls")
    "Stackers, in ranking rankers, that are fitted on the same episodes as the network."
    folds: int = Field(5, ge=2)
    "The most parts into which the target's few users are divided for cross-validation."

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_ranking(cls, values: Any) -> Any:
        is_ranking = isinstance(values, Mapping) and values.get("task") == "ranking"
        return {**RANKING, **values} if is_ranking else values

    def model_post_init(self, context: Any, /) -> None:
        NETWORKS.check(self.network)
        for name in self.stackers:
            stackers_of(self.task).check(name)

    @property
    def fusion(self) -> FusionConfig:
        """The network and the stackers, with equal weights."""
        network = NetworkConfig(**{name: getattr(self, name) for name in NetworkConfig.model_fields})
        return FusionConfig(task=self.task, networks={"network": network}, stackers=self.stackers, weights="equal")
