"""A gate over the bases and a correction, both from one small network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from metarec.episodes import FusionInputs
from metarec.errors import InputError, check_at_least
from metarec.fusion.networks._base import (
    TEMPERATURE,
    WEIGHTED_LOSS,
    FusionOutput,
    RowNetwork,
    masked_softmax,
    weighted_sum,
    zeroed,
)
from metarec.fusion.space import Choice, Parameter, RealRange

__all__ = ["GatedFusion"]


class GatedFusion(RowNetwork):
    """One small network on all features of a row gives the weights of the bases and a correction.

    The prediction is sum_a w_a p_a + correction: w is the softmax, over the available bases, of a learned number
    per base plus an output of the network; the correction is the network's last output plus a linear map of the
    features. A mixture of experts (Jacobs et al. 1991) whose experts are given. The network's last
    layer and the linear map start at zero, so that the untrained network predicts the mean of the bases.

    It costs a fraction of :class:`~metarec.fusion.MetaRecommenderFusion`, which has one network for each base.

    Args:
        num_algorithms: A, the number of bases.
        feature_dim: F, features per base; context_dim: C, context features.
        hidden_dim: the width of the network's two hidden layers.
        dropout: share of their outputs that is dropped in training; in [0, 1).
        prediction_loss: the loss of the predictions in the network's own loss: "mse", "mae" or "huber" of ratings, or
            "softmax", "bpr" or "lambda" of ranked lists.
        temperature: that of the loss of ranked lists.
        diversity_weight: the weight of the weights' negative entropy in that loss.
        correction_weight: the weight of the squared correction in that loss.

    Raises:
        InputError: an argument breaks its rule.

    >>> network = GatedFusion(num_algorithms=3, feature_dim=4, context_dim=5).eval()
    >>> rows = FusionInputs(torch.tensor([[0.2, 0.6, float("nan")]]), torch.rand(1, 3, 4), torch.rand(1, 5),
    ...                     torch.rand(1), torch.ones(1, dtype=torch.bool))
    >>> network.fuse(rows).prediction.detach()
    tensor([0.4000])
    """

    last_layers: ClassVar[tuple[str, ...]] = ("weight_logits", "head", "correction")
    searched: ClassVar[Mapping[str, Parameter]] = {
        "hidden_dim": Parameter(64, Choice(choices=[16, 32, 64, 128]), "width of the hidden layers"),
        "dropout": Parameter(0.5, RealRange(low=0.0, high=0.7), "share of hidden outputs dropped in training"),
        **WEIGHTED_LOSS,
    }

    def __init__(
        self,
        num_algorithms: int,
        feature_dim: int,
        context_dim: int,
        hidden_dim: int = 64,
        *,
        dropout: float = 0.5,
        prediction_loss: str = "mse",
        temperature: float = TEMPERATURE,
        diversity_weight: float = 0.0,
        correction_weight: float = 0.0,
    ) -> None:
        super().__init__(num_algorithms, feature_dim, context_dim)
        check_at_least(1, hidden_dim=hidden_dim)
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise InputError(f"dropout must be >= 0 and < 1 but got {dropout!r}")
        self._set_loss(
            prediction_loss, temperature=temperature, diversity=diversity_weight, correction=correction_weight
        )
        self.body = nn.Sequential(
            nn.Linear(self.row_width, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.weight_logits = nn.Parameter(torch.zeros(num_algorithms))
        self.head = zeroed(nn.Linear(hidden_dim, num_algorithms + 1))
        self.correction = zeroed(nn.Linear(self.row_width, 1))

    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        """One prediction per row, and the weights that it gives the bases before the correction."""
        features = self.checked_features(inputs)
        outputs = self.head(self.body(features))
        logits = self.weight_logits + outputs[..., :-1]
        weights = masked_softmax(logits, inputs.predictions.isfinite())
        correction = outputs[..., -1] + self.correction(features).squeeze(-1)
        return FusionOutput(weighted_sum(weights, inputs.predictions) + correction, weights)
