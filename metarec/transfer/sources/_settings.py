"""Settings of the fusion that transfer strategies train on sources."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from metarec.fusion import NETWORKS
from metarec.fusion.stackers import STACKERS
from metarec.meta import NetworkConfig
from metarec.model import FusionConfig

__all__ = ["TransferSettings"]


class TransferSettings(NetworkConfig):
    """A fusion network and its training, stackers, and the folds of the target's few users.

    Raises:
        InputError: an unknown name, or a number that breaks its rule.
    """

    options: dict[str, Any] = Field(default_factory=lambda: {"hidden_dim": 32, "dropout": 0.2})
    "Arguments of the network."
    engine: Literal["batched"] = "batched"
    "The other engines compute the same, task by task."
    inner_lr: float = 0.001
    inner_steps: int = 1
    adapted: Literal["all", "head"] = "head"
    learn_rates: bool = True
    loss: Literal["mse", "mae", "huber", "fusion"] = "mse"
    outer_lr: float = 0.002
    patience: int = Field(6, ge=1)
    stackers: tuple[str, ...] = ("ridge", "fwls")
    "Stackers that are fitted on the same episodes as the network."
    folds: int = Field(5, ge=2)
    "The most parts into which the target's few users are divided for cross-validation."

    def model_post_init(self, context: Any, /) -> None:
        NETWORKS.check(self.network)
        for name in self.stackers:
            STACKERS.check(name)

    @property
    def fusion(self) -> FusionConfig:
        """The network and the stackers, with equal weights."""
        network = NetworkConfig(**{name: getattr(self, name) for name in NetworkConfig.model_fields})
        return FusionConfig(networks={"network": network}, stackers=self.stackers, weights="equal")
