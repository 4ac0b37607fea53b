"""Weights over bases, and a linear correction: the smallest network that can adapt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from metarec.episodes import FusionInputs
from metarec.errors import check_flag
from metarec.fusion.networks._base import (
    TEMPERATURE,
    WEIGHTED_LOSS,
    FusionOutput,
    RowNetwork,
    masked_softmax,
    weighted_sum,
    zeroed,
)
from metarec.fusion.space import Parameter

__all__ = ["LinearFusion"]


class LinearFusion(RowNetwork):
    """The same weights for every row, a bias, and a linear map of all features beside them.

    The prediction is sum_a w_a p_a + bias + correction(features), with w the softmax of one learned number per base
    over the available bases: linear stacking (Breiman 1996, "Stacked regressions") whose weights are positive and sum
    to 1. It starts as the mean of the available bases. Under adaptation, the bias follows the user's mean residual, and
    the weights follow the accuracy of the bases for this user.

    Args:
        num_algorithms: A, the number of bases.
        feature_dim: F, features per base; context_dim: C, context features.
        correction: add the linear map of all features, which starts at zero.
        prediction_loss: the loss of the predictions in the network's own loss: "mse", "mae" or "huber" of ratings, or
            "softmax", "bpr" or "lambda" of ranked lists.
        temperature: that of the loss of ranked lists.
        diversity_weight: the weight of the weights' negative entropy in that loss.
        correction_weight: the weight of the squared correction in that loss.

    Raises:
        InputError: an argument breaks its rule.

    >>> network = LinearFusion(num_algorithms=3, feature_dim=4, context_dim=5)
    >>> rows = FusionInputs(torch.tensor([[0.2, 0.6, torch.nan]]), torch.rand(1, 3, 4), torch.rand(1, 5),
    ...                     torch.rand(1), torch.ones(1, dtype=torch.bool))
    >>> network.fuse(rows).weights.tolist()
    [[0.5, 0.5, 0.0]]
    >>> network.fuse(rows).prediction.detach()
    tensor([0.4000])
    """

    searched: ClassVar[Mapping[str, Parameter]] = WEIGHTED_LOSS

    def __init__(
        self,
        num_algorithms: int,
        feature_dim: int,
        context_dim: int,
        *,
        correction: bool = True,
        prediction_loss: str = "mse",
        temperature: float = TEMPERATURE,
        diversity_weight: float = 0.0,
        correction_weight: float = 0.0,
    ) -> None:
        super().__init__(num_algorithms, feature_dim, context_dim)
        check_flag(correction=correction)
        self._set_loss(
            prediction_loss, temperature=temperature, diversity=diversity_weight, correction=correction_weight
        )
        self.logits = nn.Parameter(torch.zeros(num_algorithms))
        self.bias = nn.Parameter(torch.zeros(()))
        self.correction: nn.Linear | None = None
        if correction:
            self.correction = zeroed(nn.Linear(self.row_width, 1, bias=False))

    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        """One prediction per row; the weights are those of the softmax."""
        features = self.checked_features(inputs)
        available = inputs.predictions.isfinite()
        weights = masked_softmax(self.logits.expand(available.shape), available)
        prediction = weighted_sum(weights, inputs.predictions) + self.bias
        if self.correction is not None:
            prediction = prediction + self.correction(features).squeeze(-1)
        return FusionOutput(prediction, weights)
