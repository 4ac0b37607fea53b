"""A fusion network: the mean of the recommenders plus a bounded linear map of all features."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from metarec.episodes import FusionInputs
from metarec.fusion import FusionNetwork, FusionOutput, Parameter, RealRange

__all__ = ["TiltedMean"]


class TiltedMean(FusionNetwork):
    """Starts as the mean of the available predictions, and learns a correction of at most `most`.

    Args:
        num_algorithms: A, the number of recommenders.
        feature_dim: F, features of each; context_dim: C, context features.
        most: the largest distance of a prediction from the mean, on the unit scale.
    """

    # The layers that `adapted: head` adapts.
    last_layers: ClassVar[tuple[str, ...]] = ("tilt",)
    # The options that a study searches; an option that is not here keeps its default.
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
        """One prediction per row, for any leading axes."""
        available = inputs.predictions.isfinite()
        weights = available / available.sum(-1, keepdim=True).clamp(min=1)
        # NaN is replaced before the product, because 0 * NaN and its gradient are NaN.
        mean = (weights * torch.where(available, inputs.predictions, 0.0)).sum(-1)
        features = torch.cat([inputs.algorithm_features.flatten(-2), inputs.context], dim=-1)
        return FusionOutput(mean + self.most * torch.tanh(self.tilt(features).squeeze(-1)), weights)
