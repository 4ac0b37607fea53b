"""The prediction of one base, and a learned correction of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from metarec.episodes import FusionInputs
from metarec.errors import InputError, check_at_least
from metarec.fusion.networks._base import (
    CORRECTED_LOSS,
    TEMPERATURE,
    FusionOutput,
    RowNetwork,
    available_mean,
    equal_weights,
    zeroed,
)
from metarec.fusion.space import Parameter

__all__ = ["ResidualFusion"]


class ResidualFusion(RowNetwork):
    """Starts exactly as one of the bases, the anchor, and learns a correction of it.

    The prediction is p_anchor + sum_a d_a (p_a - p_anchor) + correction: a residual on an identity (He et al. 2016).
    The deviations d_a(features) are linear, so that weights are linear in the features as in feature-weighted linear
    stacking (Sill et al. 2009); the correction is a linear map of all features and a small network beside it. The last
    layer of each starts at zero: the untrained network *is* the anchor, and its gradient does not vanish, as it would
    at a closed sigmoid gate. Where the anchor is NaN, the mean of the finite predictions replaces it.

    The weights of the prediction are 1 - (sum of the others' d_a) for the anchor, d_a for the others.
    They sum to 1, and **may be negative** or exceed 1.

    Args:
        num_algorithms: A, the number of bases, with the anchor.
        feature_dim: F, features per base; context_dim: C, context features.
        hidden_dim: the width of the small network's hidden layer.
        anchor: the position of the base to start from; the last one, where a stacker's prediction is appended.
        prediction_loss: the loss of the predictions in the network's own loss: "mse", "mae" or "huber" of ratings, or
            "softmax", "bpr" or "lambda" of ranked lists.
        temperature: that of the loss of ranked lists.
        correction_weight: the weight of the squared correction in that loss.

    Raises:
        InputError: an argument breaks its rule.

    >>> network = ResidualFusion(num_algorithms=3, feature_dim=4, context_dim=5)
    >>> rows = FusionInputs(torch.tensor([[0.2, 0.6, 0.7]]), torch.rand(1, 3, 4), torch.rand(1, 5),
    ...                     torch.rand(1), torch.ones(1, dtype=torch.bool))
    >>> network.fuse(rows).prediction.detach()
    tensor([0.7000])
    """

    searched: ClassVar[Mapping[str, Parameter]] = CORRECTED_LOSS

    def __init__(
        self,
        num_algorithms: int,
        feature_dim: int,
        context_dim: int,
        hidden_dim: int = 32,
        *,
        anchor: int = -1,
        prediction_loss: str = "mse",
        temperature: float = TEMPERATURE,
        correction_weight: float = 0.0,
    ) -> None:
        super().__init__(num_algorithms, feature_dim, context_dim)
        check_at_least(1, hidden_dim=hidden_dim)
        self._set_loss(prediction_loss, temperature=temperature, correction=correction_weight)
        if isinstance(anchor, bool) or not isinstance(anchor, int) or not -num_algorithms <= anchor < num_algorithms:
            rule = f"the position of one of {num_algorithms} bases, from {-num_algorithms} to {num_algorithms - 1},"
            raise InputError(f"anchor must be {rule} but got {anchor!r}")
        self.anchor = anchor % num_algorithms
        width = self.row_width
        # The anchor has a row too, without effect: its difference from itself is zero.
        self.deviations = zeroed(nn.Linear(width, num_algorithms))
        self.correction = zeroed(nn.Linear(width, 1))
        self.head = nn.Sequential(nn.Linear(width, hidden_dim), nn.ReLU(), zeroed(nn.Linear(hidden_dim, 1)))

    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        """One prediction per row, and the weights that it gives the bases before the correction."""
        predictions = inputs.predictions
        features = self.checked_features(inputs)
        available = predictions.isfinite()
        anchored = available[..., self.anchor]
        anchor = torch.where(anchored, predictions[..., self.anchor], available_mean(predictions))
        deviations = self.deviations(features) * available
        differences = torch.where(available, predictions - anchor.unsqueeze(-1), 0)
        correction = (self.correction(features) + self.head(features)).squeeze(-1)
        prediction = anchor + (deviations * differences).sum(-1) + correction
        # All on the anchor; where it is NaN, equal weights on the available bases.
        one = torch.arange(self.num_algorithms, device=available.device) == self.anchor
        start = torch.where(anchored.unsqueeze(-1), one.to(predictions.dtype), equal_weights(predictions))
        return FusionOutput(prediction, start + deviations - start * deviations.sum(-1, keepdim=True))
