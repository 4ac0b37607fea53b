"""A plain network for adaptation, with the steps of MAML as methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.func import grad
from torch.optim import Adam, Optimizer

from metarec.episodes import FusionInputs
from metarec.errors import InputError, check_at_least
from metarec.fusion._copies import call_with
from metarec.fusion.losses import squared_error
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

__all__ = ["META_LEARNING_RATE", "MAMLRecommenderFusion"]

META_LEARNING_RATE = 0.001
"""The rate of the optimizer that :meth:`MAMLRecommenderFusion.meta_update` makes by default."""


class MAMLRecommenderFusion(FusionNetwork):
    """Two hidden layers from all features to a rating, for adaptation by MAML (Finn et al. 2017).

    Engines adapt it as they adapt any network. :meth:`inner_update` and :meth:`meta_update` do the same on plain
    tensors, one task after another: exact, through the inner steps, unless `first_order`. Both take the mean squared
    error.

    In :meth:`fuse`, x is the features and the prediction of each base, then the context. A prediction of NaN is
    replaced by the mean of the finite ones.

    Args:
        feature_dim: F, the width of x.
        hidden_dim: the width of the hidden layers.
        prediction_loss: the loss of the predictions in the network's own loss: "mse", "mae" or "huber" of ratings, or
            "softmax", "bpr" or "lambda" of ranked lists.
        temperature: that of the loss of ranked lists.
        correction_weight: the weight of the squared difference from the bases' mean in that loss.

    Raises:
        InputError: an argument breaks its rule.

    >>> network = MAMLRecommenderFusion(feature_dim=3)
    >>> support, query = (torch.rand(4, 3), torch.rand(4)), (torch.rand(6, 3), torch.rand(6))
    >>> fast = network.inner_update(*support)
    >>> torch.func.functional_call(network, fast, query[0]).shape
    torch.Size([6, 1])
    >>> network.meta_update([(*support, *query)]).shape
    torch.Size([])
    """

    searched: ClassVar[Mapping[str, Parameter]] = CORRECTED_LOSS

    def __init__(
        self,
        feature_dim: int,
        hidden_dim: int = 64,
        *,
        prediction_loss: str = "mse",
        temperature: float = TEMPERATURE,
        correction_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self._set_loss(prediction_loss, temperature=temperature, correction=correction_weight)
        check_at_least(1, feature_dim=feature_dim, hidden_dim=hidden_dim)
        self.feature_dim = feature_dim
        last = nn.Linear(hidden_dim, 1)
        nn.init.constant_(last.bias, MIDDLE)
        self.layers = nn.Sequential(
            nn.Linear(feature_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU(), last
        )
        self._own_optimizer: Optimizer | None = None

    @classmethod
    def for_episodes(cls, num_algorithms: int, feature_dim: int, context_dim: int, **options: Any) -> Self:
        """Build the network for the x that :meth:`fuse` makes: A * (F + 1) + C numbers."""
        check_at_least(1, num_algorithms=num_algorithms, feature_dim=feature_dim)
        check_at_least(0, context_dim=context_dim)
        width = num_algorithms * (feature_dim + 1) + context_dim
        return super().for_episodes(num_algorithms, width, context_dim, **options)

    def forward(self, x: Tensor) -> Tensor:
        """[..., 1] from x [..., F].

        Raises:
            ValueError: x does not end in F.
        """
        check_ends("x", x, self.feature_dim)
        rating: Tensor = self.layers(x)
        return rating

    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        """One prediction per row. There are no weights: the network is not linear in the bases."""
        predictions, features = inputs.predictions, inputs.algorithm_features
        if predictions.shape != features.shape[:-1]:
            shapes = f"{list(features.shape[:-1])} but got {list(predictions.shape)}"
            raise ValueError(f"predictions must have the shape {shapes}")
        x = all_features(torch.cat([features, filled(predictions).unsqueeze(-1)], dim=-1), inputs.context)
        return FusionOutput(self(x).squeeze(-1))

    def inner_update(
        self,
        support_x: Tensor,
        support_y: Tensor,
        *,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        first_order: bool = False,
    ) -> dict[str, Tensor]:
        """The parameters after some steps of gradient descent on the support set; the network itself stays as it is.

        Their graph reaches the network's parameters, with the second derivatives unless `first_order`. Parameters that
        need no gradient, and all of them where there are no support rows, stay as they are.

        Args:
            support_x: [N, F]; support_y: [N] or [N, 1].
            inner_lr: the rate of a step; inner_steps: how many.
            first_order: take the gradients for constants.

        Returns:
            name -> tensor, for ``torch.func.functional_call(network, fast_weights, x)``.

        Raises:
            InputError: an argument breaks its rule. ValueError: the shapes do not fit.
        """
        check_at_least(0, inner_steps=inner_steps)
        if not 0 < inner_lr < math.inf:
            raise InputError(f"inner_lr must be a finite number > 0 but got {inner_lr!r}")
        fast: dict[str, Tensor] = {name: start for name, start in self.named_parameters() if start.requires_grad}
        if len(support_x) == 0:
            return fast

        def support_loss(parameters: dict[str, Tensor]) -> Tensor:
            return self._loss(parameters, support_x, support_y)

        for _ in range(inner_steps):
            point = {name: tensor.detach() for name, tensor in fast.items()} if first_order else fast
            gradients = grad(support_loss)(point)
            fast = {name: tensor - inner_lr * gradients[name] for name, tensor in fast.items()}
        return fast

    def meta_update(
        self,
        task_batch: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
        optimizer: Optimizer | None = None,
        *,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        first_order: bool = False,
    ) -> Tensor:
        """One step on the mean query loss of the adapted tasks.

        Args:
            task_batch: (support_x, support_y, query_x, query_y) of each task; the support set may be empty.
            optimizer: of the network's parameters. If there is none, the network makes itself an Adam at a rate of
                0.001, and keeps it (outside its state dict) for the next call.
            inner_lr: as in :meth:`inner_update`; so are `inner_steps` and `first_order`.

        Returns:
            the loss before the step, a scalar without a graph.

        Raises:
            InputError: an argument breaks its rule, or there is nothing to learn from.
            ValueError: the shapes do not fit.
        """
        if not task_batch:
            raise InputError("task_batch must have at least one task but got none")
        losses = []
        for position, (support_x, support_y, query_x, query_y) in enumerate(task_batch):
            if len(query_x) == 0:
                raise InputError(f"task_batch[{position}] must have query rows but got none")
            fast = self.inner_update(
                support_x, support_y, inner_lr=inner_lr, inner_steps=inner_steps, first_order=first_order
            )
            losses.append(self._loss(fast, query_x, query_y))
        if optimizer is None:
            if self._own_optimizer is None:
                self._own_optimizer = Adam(self.parameters(), lr=META_LEARNING_RATE)
            optimizer = self._own_optimizer
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def _loss(self, parameters: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        prediction = call_with(self, parameters, x).squeeze(-1)
        # [N] - [N, 1] would quietly become [N, N].
        target = y.squeeze(-1) if y.dim() == x.dim() else y
        if target.shape != prediction.shape:
            raise ValueError(f"y must have the shape {list(prediction.shape)} but got {list(y.shape)}")
        return squared_error(prediction, target).mean()
