"""A network whose weights another network writes, from the context of each row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarec.episodes import FusionInputs
from metarec.errors import check_at_least, check_flag
from metarec.fusion.networks._base import (
    CORRECTED_LOSS,
    MIDDLE,
    TEMPERATURE,
    FusionNetwork,
    FusionOutput,
    all_features,
    check_ends,
    filled,
)
from metarec.fusion.space import Parameter

__all__ = ["HyperNetworkFusion"]


class HyperNetworkFusion(FusionNetwork):
    """A hypernetwork (Ha et al. 2017) reads the context and writes, row by row, the network that fuses the bases.

    The written network has a layer A -> target_net_dim (ReLU) and a layer target_net_dim -> 1. The last layers of the
    hypernetwork, the generators, start with zero weights and with a bias that holds a network which outputs the mean of
    its inputs (Beck et al. 2022, "Hypernetworks in meta-reinforcement learning", find this start to be stable): at
    first every context gets that network. Its hidden units come in pairs of opposite sign, r(z) - r(-z) = z for the
    ReLU r, drawn at random and shifted by the least that makes their sum the mean. The generators' input is divided by
    the root of its width, so that steps have a similar size at any width.

    A prediction of NaN is replaced by the mean of the finite ones.

    Args:
        num_algorithms: A, the number of bases.
        context_dim: C, context features.
        target_net_dim: the width of the written network's hidden layer.
        hyper_hidden_dim: the width of the hypernetwork's two hidden layers.
        feature_dim: F, features per base; needed where `use_features`.
        use_features: the hypernetwork reads the features of all bases beside the context.
        prediction_loss: the loss of the predictions in the network's own loss: "mse", "mae" or "huber" of ratings, or
            "softmax", "bpr" or "lambda" of ranked lists.
        temperature: that of the loss of ranked lists.
        correction_weight: the weight of the squared difference from the bases' mean in that loss.

    Raises:
        InputError: an argument breaks its rule.

    >>> network = HyperNetworkFusion(num_algorithms=3, context_dim=4)
    >>> network(torch.tensor([[0.2, 0.6, 0.7], [0.2, 0.4, torch.nan]]), torch.rand(2, 4)).detach()
    tensor([[0.5000],
            [0.3000]])
    """

    searched: ClassVar[Mapping[str, Parameter]] = CORRECTED_LOSS

    def __init__(
        self,
        num_algorithms: int,
        context_dim: int,
        target_net_dim: int = 64,
        hyper_hidden_dim: int = 128,
        *,
        feature_dim: int = 0,
        use_features: bool = False,
        prediction_loss: str = "mse",
        temperature: float = TEMPERATURE,
        correction_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self._set_loss(prediction_loss, temperature=temperature, correction=correction_weight)
        check_at_least(1, num_algorithms=num_algorithms, hyper_hidden_dim=hyper_hidden_dim)
        check_at_least(2, target_net_dim=target_net_dim)
        check_flag(use_features=use_features)
        check_at_least(0 if use_features else 1, context_dim=context_dim)
        check_at_least(1 if use_features else 0, feature_dim=feature_dim)
        self.num_algorithms = num_algorithms
        self.context_dim = context_dim
        self.target_net_dim = target_net_dim
        self.hyper_hidden_dim = hyper_hidden_dim
        self.feature_dim = feature_dim
        self.use_features = use_features
        self.trunk = nn.Sequential(
            nn.Linear(context_dim + use_features * num_algorithms * feature_dim, hyper_hidden_dim),
            nn.ReLU(),
            nn.Linear(hyper_hidden_dim, hyper_hidden_dim),
            nn.ReLU(),
        )
        self.weight_1 = nn.Linear(hyper_hidden_dim, num_algorithms * target_net_dim)
        self.bias_1 = nn.Linear(hyper_hidden_dim, target_net_dim)
        self.weight_2 = nn.Linear(hyper_hidden_dim, target_net_dim)
        self.bias_2 = nn.Linear(hyper_hidden_dim, 1)
        written = _mean_network(num_algorithms, target_net_dim)
        for generator, start in zip((self.weight_1, self.bias_1, self.weight_2, self.bias_2), written, strict=True):
            nn.init.zeros_(generator.weight)
            generator.bias.data.copy_(start.flatten())

    def forward(
        self, algorithm_predictions: Tensor, context: Tensor, algorithm_features: Tensor | None = None
    ) -> Tensor:
        """[..., 1] one prediction per row.

        Args:
            algorithm_predictions: [..., A] NaN where a base has none; context: [..., C].
            algorithm_features: [..., A, F], needed where `use_features`.

        Raises:
            ValueError: the last axes do not fit the network, or the features are not there.
        """
        check_ends("algorithm_predictions", algorithm_predictions, self.num_algorithms)
        check_ends("context", context, self.context_dim)
        features = context
        if self.use_features:
            if algorithm_features is None:
                raise ValueError("algorithm_features must be given to a network with use_features")
            check_ends("algorithm_features", algorithm_features, self.num_algorithms, self.feature_dim)
            features = all_features(algorithm_features, context)
        # Every written weight is a sum over the code: without the scale, the change by a step of a given rate grows
        # with the width, and inner rates of 0.1 overshoot.
        code = self.trunk(features) / math.sqrt(self.hyper_hidden_dim)
        weight_1 = self.weight_1(code).unflatten(-1, (self.num_algorithms, self.target_net_dim))
        inputs = filled(algorithm_predictions) - MIDDLE
        hidden = torch.relu(torch.einsum("...a,...at->...t", inputs, weight_1) + self.bias_1(code))
        return MIDDLE + (hidden * self.weight_2(code)).sum(-1, keepdim=True) + self.bias_2(code)

    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        """One prediction per row. There are no weights: the written network is not linear in the bases."""
        features = inputs.algorithm_features if self.use_features else None
        return FusionOutput(self(inputs.predictions, inputs.context, features).squeeze(-1))


def _mean_network(num_inputs: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight [inputs, width] and bias [width], weight [width] and bias [1] of two layers that output the inputs' mean.

    Where the width is odd, the last unit starts at zero.
    """
    pairs = width // 2
    bound = 1 / math.sqrt(num_inputs)
    first = torch.empty(num_inputs, pairs).uniform_(-bound, bound)
    bias = torch.empty(pairs).uniform_(-bound, bound)
    last = torch.empty(pairs).uniform_(-1, 1) / math.sqrt(width)
    # first @ last must be the mean; of all changes to `first` that make it so, this is the smallest.
    lacking = 1 / num_inputs - first @ last
    first = first + torch.outer(lacking, last) / last.square().sum()
    offset = -(bias @ last).reshape(1)
    odd = (0, width % 2)
    return (
        functional.pad(torch.cat([first, -first], dim=-1), odd),
        functional.pad(torch.cat([bias, -bias]), odd),
        functional.pad(torch.cat([last, -last]), odd),
        offset,
    )
