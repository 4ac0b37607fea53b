"""A head that is solved for each user in closed form, beside a fusion network that all users share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metarec.episodes import FusionInputs
from metarec.errors import InputError
from metarec.fusion import FusionNetwork, FusionOutput, all_features, available_mean, copy_with
from metarec.meta._calls import RowLosses, inner_copy
from metarec.meta._data import Shape
from metarec.meta._ridge import corrections, list_residuals, ridge_coefficients

__all__ = ["COEFFICIENTS", "RidgeHead", "corrected", "solved"]

COEFFICIENTS = "coefficients"
"""The name of a user's own parameters."""

LEARNED = 8
"""The number of learned features."""

STRENGTH = 30.0
"""The ridge strength at the start: how many support rows weigh as much as the prior of a feature of size 1."""


class RidgeHead(nn.Module):
    """Ridge regression of the residuals of a user's support rows, as a correction of a network's predictions.

    R2-D2 (Bertinetto et al. 2019) around a network whose own prediction is the prior mean: the regression is solved for
    each user in closed form, and its features, their scales and its strength are learned through the loss of the query
    rows. The features of a row are 1, :data:`LEARNED` learned ones (tanh of a linear map), and the deviation of each
    base from the mean of the bases, 0 for a base without a prediction.

    The linear map sees the columns that differ between a user's rows. The others are figures of the user, such as level
    and spread. Query rows have them and support rows have priors in their place, so that they tell the two apart.

    Args:
        shape: of the rows.

    Attributes:
        logarithms: of the numbers that must stay positive: the scales of learned features and of deviations, and the
            strength.
        varying: [W] bool, the columns of :func:`~metarec.fusion.all_features` that the linear map sees: those that
            differed between the query rows of some user while it was trained.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.num_algorithms * shape.feature_dim + shape.context_dim
        self.learned = nn.Linear(width, LEARNED)
        self.varying: Tensor
        self.register_buffer("varying", torch.zeros(width, dtype=torch.bool))
        # The learned features together begin with the scale of the constant.
        self.logarithms = nn.Parameter(torch.tensor([1 / math.sqrt(LEARNED), 2.0, STRENGTH]).log())

    def note(self, query: FusionInputs) -> None:
        """In training, note which columns differ between the rows of a task; rows: [T, N]."""
        if self.training and query.mask.any():
            rows = all_features(query.algorithm_features, query.context).detach()
            first = query.mask.int().argmax(-1)[:, None, None].expand(-1, 1, rows.shape[-1])
            differs = (rows != rows.gather(1, first)) & query.mask.unsqueeze(-1)
            # A new tensor, because a graph may hold the old one.
            self.varying = self.varying | differs.any(1).any(0)

    def features(self, inputs: FusionInputs) -> Tensor:
        """[..., D] the features of each row; finite in padding, too."""
        scale_learned, scale_deviations, _ = self.logarithms.exp()
        columns = all_features(inputs.algorithm_features, inputs.context)
        learned = torch.tanh(self.learned(torch.where(self.varying, columns, 0)))
        predictions, mean = inputs.predictions, available_mean(inputs.predictions).unsqueeze(-1)
        deviations = torch.where(predictions.isfinite(), predictions - mean, 0)
        constant = torch.ones_like(mean)
        return torch.cat([constant, scale_learned * learned, scale_deviations * deviations], dim=-1)

    def solve(self, losses: RowLosses, support: FusionInputs) -> Tensor:
        """[..., D] the coefficients of each task, from its unmasked support rows.

        Args:
            losses: the network, in the mode in which it predicts support rows, and the loss, which says what a residual
                is: the target minus the prediction, or see :func:`list_residuals`.
        """
        prediction = losses.network.fuse(support).prediction
        residuals, weights = support.targets - prediction, support.mask.to(prediction.dtype)
        if losses.list_wise:
            residuals, weights = list_residuals(losses.network, prediction, support.targets, support.mask)
        return ridge_coefficients(self.features(support), residuals, weights, self.logarithms[-1].exp())


class CorrectedNetwork(FusionNetwork):
    """A network with the corrections of a head that is solved.

    Args:
        coefficients: [D], or [..., D] for the tasks of the inputs, which then are [..., N].
    """

    def __init__(self, network: FusionNetwork, head: RidgeHead, coefficients: Tensor) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.coefficients = coefficients

    @property
    def list_wise(self) -> bool:
        return self.network.list_wise

    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        output = self.network.fuse(inputs)
        return output._replace(prediction=output.prediction + self._corrections(inputs))

    def row_losses(self, inputs: FusionInputs) -> Tensor:
        """The network's own loss, whose part that depends on predictions sees the corrected ones.

        Raises:
            InputError: the network's own loss does not use `prediction_losses`.
        """
        correction, calls = self._corrections(inputs), 0
        own: FusionNetwork = copy_with(self.network)  # type: ignore[assignment]

        def prediction_losses(prediction: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return self.network.prediction_losses(prediction + correction, targets, mask)

        own.prediction_losses = prediction_losses  # type: ignore[method-assign]
        losses = own.row_losses(inputs)
        if not calls:
            raise InputError(
                'adapted="ridge" needs a loss that sees the corrected predictions but '
                f'{type(own).__name__}.row_losses does not use prediction_losses; use loss="mse"'
            )
        return losses

    def _corrections(self, inputs: FusionInputs) -> Tensor:
        return corrections(self.head.features(inputs), self.coefficients)


def solved(losses: RowLosses, head: RidgeHead, support: FusionInputs) -> tuple[RowLosses, Tensor]:
    """The losses of the network with the head solved on the support rows of one task or many, and its coefficients.

    The network predicts the support rows in the mode of inner steps, and others in its own mode.
    """
    still: RowLosses = inner_copy(losses)  # type: ignore[assignment]
    coefficients = head.solve(still, support)
    return corrected(losses, head, coefficients), coefficients


def corrected(losses: RowLosses, head: RidgeHead, coefficients: Tensor) -> RowLosses:
    """The losses of the network with a head of these coefficients, see :class:`CorrectedNetwork`."""
    loss = losses.loss if isinstance(losses.loss, str) else losses.loss.function
    return RowLosses(CorrectedNetwork(losses.network, head, coefficients), loss)
