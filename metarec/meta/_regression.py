"""A plain network as a fusion network, so that any engine can meta-learn it."""

from __future__ import annotations

from torch import nn

from metarec.episodes import FusionInputs
from metarec.fusion import FusionNetwork, FusionOutput

__all__ = ["RegressionNetwork"]


class RegressionNetwork(FusionNetwork):
    """Hands a module that maps x[B, F] to [B, 1] the context of each row as its x."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        answer = self.module(inputs.context)
        if answer.shape != (*inputs.targets.shape, 1):
            raise ValueError(
                f"the model must map x[B, F] to [B, 1] but maps {list(inputs.context.shape)} to {list(answer.shape)}"
            )
        return FusionOutput(answer.squeeze(-1))
