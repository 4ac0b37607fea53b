"""A fusion network: the mean of the recommenders, and what a linear map of all features says beyond it."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from metarec.episodes import FusionInputs
from metarec.fusion import FusionNetwork, FusionOutput, Parameter, RealRange

__all__ = ["TiltedMean"]


class TiltedMean(FusionNetwork):
    """Starts as the mean of the recommenders that say something, and learns a tilt, squeezed to at most `most`.

    Args:
        num_algorithms: A, how many recommenders there are.
        feature_dim: F, features of each; context_dim: C, context features.
        most: how far a prediction may be from the mean, on the unit scale.
    """

    # What `adapted: head` changes for a user.
    last_layers: ClassVar[tuple[str, ...]] = ("tilt",)
    # What a study searches beside what it searches of every network; an option that is not here keeps its default.
    searched: ClassVar[Mapping[str, Any]] = {
        "most": Parameter(0.3, RealRange(low=0.05, high=0.5, log=True), "how far from the mean"),
    }

    def __init__(self, num_algorithms: int, feature_dim: int, context_dim: int, *, most: float = 0.3) -> None:
        super().__init__()
        self.most = most
        self.tilt = nn.Linear(num_algorithms * feature_dim + context_dim, 1)
        nn.init.zeros_(self.tilt.weight)
        nn.init.zeros_(self.tilt.bias)

    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        """One prediction per row, whatever the leading axes."""
        says = inputs.predictions.isfinite()
        weights = says / says.sum(-1, keepdim=True).clamp(min=1)
        # NaN has to go before it is multiplied: 0 * NaN is NaN, and so is its gradient.
        mean = (weights * torch.where(says, inputs.predictions, 0.0)).sum(-1)
        features = torch.cat([inputs.algorithm_features.flatten(-2), inputs.context], dim=-1)
        return FusionOutput(mean + self.most * torch.tanh(self.tilt(features).squeeze(-1)), weights)
