"""The interface of fusion networks, and the functions and checks that they share."""

from __future__ import annotations

import inspect
import math
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from metarec.episodes import FusionInputs
from metarec.errors import InputError, check_at_least, check_positive
from metarec.fusion.losses import LIST_LOSSES, PREDICTION_LOSSES, confidence_loss, negative_entropy
from metarec.fusion.space import Choice, Parameter, RealRange
from metarec.registry import suggest

__all__ = [
    "CORRECTED_LOSS",
    "LOSS_TERMS",
    "MIDDLE",
    "PREDICTION_LOSS",
    "TEMPERATURE",
    "WEIGHTED_LOSS",
    "FusionNetwork",
    "FusionOutput",
    "ParallelLinear",
    "RowNetwork",
    "Task",
    "all_features",
    "available_mean",
    "check_ends",
    "equal_weights",
    "filled",
    "masked_softmax",
    "weighted_sum",
    "zeroed",
]

Task = Literal["rating", "ranking"]
"""What is predicted: a user's rating of an item, or the order of a user's candidates."""


class FusionOutput(NamedTuple):
    """The output of a fusion network for rows of any leading shape.

    Attributes:
        prediction: [...] on the unit scale, not clipped.
        weights: [..., A] the ensemble weights; exactly 0 for a base that predicts NaN. None if the network has none.
        confidences: [..., A] in [0, 1], the network's confidence in each base, or None.
    """

    prediction: Tensor
    weights: Tensor | None = None
    confidences: Tensor | None = None


def _correction(output: FusionOutput, inputs: FusionInputs) -> Tensor:
    """[...] the square of what the network adds to the weighted mean of the bases; without weights, to their mean."""
    weights = equal_weights(inputs.predictions) if output.weights is None else output.weights
    return (output.prediction - weighted_sum(weights, inputs.predictions)).square()


def _diversity(output: FusionOutput, inputs: FusionInputs) -> Tensor:
    assert output.weights is not None, "only networks with weights have this term"
    return negative_entropy(output.weights)


def _confidence(output: FusionOutput, inputs: FusionInputs) -> Tensor:
    assert output.confidences is not None, "only networks with confidences have this term"
    return confidence_loss(output.confidences, inputs.predictions, inputs.targets)


LOSS_TERMS: Mapping[str, Callable[[FusionOutput, FusionInputs], Tensor]] = MappingProxyType(
    {"diversity": _diversity, "confidence": _confidence, "correction": _correction}
)
"""Terms beside the prediction error in a network's own loss: name -> (output, inputs) -> [...] of each row.

*diversity* is the negative entropy of positive weights over the bases, *confidence* the error of the confidences
(:func:`~metarec.fusion.losses.confidence_loss`), and *correction* the squared size of the correction.
"""

PREDICTION_LOSS = Parameter("mse", Choice(choices=list(PREDICTION_LOSSES)), "the error of the predictions in the loss")
LIST_LOSS = Parameter("softmax", Choice(choices=["softmax", "lambda", "bpr"]), "the loss of a user's ranked candidates")
TEMPERATURE = 0.05
"""The default temperature of list-wise losses, on the unit scale: 0.6 standard deviations of a base's scores."""
LIST_TEMPERATURE = Parameter(
    TEMPERATURE, RealRange(low=0.01, high=0.5, log=True), "the difference of scores that a list-wise loss reads as one"
)
DIVERSITY_WEIGHT = Parameter(1e-4, RealRange(low=1e-5, high=1e-2, log=True), "weight of the weights' negative entropy")
CORRECTION_WEIGHT = Parameter(1e-2, RealRange(low=1e-3, high=1.0, log=True), "weight of the squared correction")

CORRECTED_LOSS: Mapping[str, Parameter] = MappingProxyType(
    {"prediction_loss": PREDICTION_LOSS, "correction_weight": CORRECTION_WEIGHT}
)
"""The searched parameters of the loss of a network without positive weights over the bases."""

WEIGHTED_LOSS: Mapping[str, Parameter] = MappingProxyType(
    {
        "prediction_loss": PREDICTION_LOSS,
        "diversity_weight": DIVERSITY_WEIGHT,
        "correction_weight": CORRECTION_WEIGHT,
    }
)
"""The searched parameters of the loss of a network with positive weights over the bases."""


# Not a base class ABC: higher makes a class of each module's class and its own (ABC, Module), whose order would clash.
class FusionNetwork(nn.Module, metaclass=ABCMeta):
    """Maps the outputs of A bases and a context to one prediction per row.

    The leading axes of the inputs are free: [T, N] for a batch of tasks, [N] for one task, [] for one row. A base that
    predicts NaN gets a weight of exactly 0, and no NaN reaches the output or the gradients; a row without any finite
    base (padding) still gives a finite output.

    Engines call a network through :meth:`fuse`, not through ``forward``.

    Attributes:
        last_layers: names of the submodules and parameters at the end of the network, which are adapted where only the
            head is. Names that a network with these options lacks are ignored. Empty: all parameters are the head.
        searched: the options of its constructor that a study of ratings searches: name ->
            :class:`metarec.fusion.Parameter`; :meth:`searched_for` has those of each task.
        prediction_loss: the loss of the predictions in the network's own loss: the error of a rating, "mse", "mae" or
            "huber"; or list-wise, "softmax", "bpr" or "lambda".
        temperature: that of a list-wise loss, on the unit scale.
        loss_weights: the weights of the other terms of that loss, by their names in :data:`LOSS_TERMS`.
    """

    last_layers: ClassVar[tuple[str, ...]] = ()
    searched: ClassVar[Mapping[str, Parameter]] = {}
    prediction_loss: str = "mse"
    temperature: float = TEMPERATURE
    loss_weights: Mapping[str, float] = MappingProxyType({})

    @abstractmethod
    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        """One prediction per row. Must not use the targets.

        Raises:
            ValueError: the shapes do not fit each other, or the network.
        """

    @classmethod
    def searched_for(cls, task: Task) -> Mapping[str, Parameter]:
        """The options that a study of this task searches.

        In ranking `prediction_loss` is one of the list-wise losses and has a `temperature`. There is no confidence term
        and no weight of it.
        """
        if task == "rating" or "prediction_loss" not in cls.searched:
            return cls.searched
        lists = {"prediction_loss": LIST_LOSS, "temperature": LIST_TEMPERATURE}
        return {name: own for name, own in cls.searched.items() if name != "confidence_weight"} | lists

    @property
    def list_wise(self) -> bool:
        """Whether the network's own loss sees the rows of a task as a list, whose order it judges."""
        return self.prediction_loss in LIST_LOSSES

    def row_losses(self, inputs: FusionInputs) -> Tensor:
        """[...] the network's own loss of each row, named "fusion": that of the predictions, and the weighted terms.

        It takes the inputs, not the output, so that the loss may depend on intermediate results. Where it is
        :attr:`list_wise`, the last axis is a task's list, [..., N], and the mean over its unmasked rows is its loss.
        """
        output = self.fuse(inputs)
        losses = self.prediction_losses(output.prediction, inputs.targets, inputs.mask)
        for name, weight in self.loss_weights.items():
            losses = losses + weight * LOSS_TERMS[name](output, inputs)
        return losses

    def prediction_losses(self, prediction: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """[...] the part of the network's own loss that depends on the predictions alone, for each row."""
        if self.list_wise:
            return LIST_LOSSES[self.prediction_loss](prediction, targets, mask, self.temperature)
        return PREDICTION_LOSSES[self.prediction_loss](prediction, targets)

    def _set_loss(self, prediction_loss: str, *, temperature: float, **weights: float) -> None:
        """Check and keep the network's own loss. Terms of weight 0 are left out.

        A list-wise loss has no confidence term, whose target is an error relative to a rating.

        Args:
            temperature: that of a list-wise loss.
            weights: the weight of each term, by its name in :data:`LOSS_TERMS`.
        """
        losses = [*PREDICTION_LOSSES, *LIST_LOSSES]
        if prediction_loss not in losses:
            raise InputError(f'unknown prediction_loss "{prediction_loss}"; {suggest(str(prediction_loss), losses)}')
        check_positive(temperature=temperature)
        for name, weight in weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise InputError(f"{name}_weight must be >= 0 and finite but got {weight!r}")
        self.prediction_loss = prediction_loss
        self.temperature = float(temperature)
        if self.list_wise:
            weights.pop("confidence", None)
        self.loss_weights = {name: float(weight) for name, weight in weights.items() if weight > 0}

    def head_names(self) -> list[str]:
        """The names of the parameters in :attr:`last_layers`; of all parameters where it is empty."""
        names = [name for name, _ in self.named_parameters()]
        if not self.last_layers:
            return names
        return [name for name in names if any(f"{name}.".startswith(f"{layer}.") for layer in self.last_layers)]

    @classmethod
    def for_episodes(cls, num_algorithms: int, feature_dim: int, context_dim: int, **options: Any) -> Self:
        """Build the network from the shape of the data, and options by name.

        Args:
            num_algorithms: A, the number of bases.
            feature_dim: F, features per base; context_dim: C, context features.
            options: keyword arguments of the network.

        Raises:
            InputError: the network has no such option.
        """
        taken = list(inspect.signature(cls).parameters)
        shape = {"num_algorithms": num_algorithms, "feature_dim": feature_dim, "context_dim": context_dim}
        own = [name for name in taken if name not in shape]
        for name in options:
            if name not in own:
                raise InputError(f'{cls.__name__} has no option "{name}"; {suggest(name, own)}')
        return cls(**{name: value for name, value in shape.items() if name in taken}, **options)


class RowNetwork(FusionNetwork):
    """A network on all features of a row, which checks its own shape and that of its inputs.

    Attributes:
        row_width: A * F + C, the length of :func:`all_features`.
    """

    def __init__(self, num_algorithms: int, feature_dim: int, context_dim: int) -> None:
        super().__init__()
        check_at_least(1, num_algorithms=num_algorithms, feature_dim=feature_dim)
        check_at_least(0, context_dim=context_dim)
        self.num_algorithms = num_algorithms
        self.feature_dim = feature_dim
        self.context_dim = context_dim
        self.row_width = num_algorithms * feature_dim + context_dim

    def checked_features(self, inputs: FusionInputs) -> Tensor:
        """[..., A * F + C] all features of the rows, where the inputs end in the network's shape."""
        check_ends("predictions", inputs.predictions, self.num_algorithms)
        check_ends("algorithm_features", inputs.algorithm_features, self.num_algorithms, self.feature_dim)
        check_ends("context", inputs.context, self.context_dim)
        return all_features(inputs.algorithm_features, inputs.context)


class ParallelLinear(nn.Module):
    """A linear layer for each of `copies` inputs, as one batched product: [..., copies, in] -> [..., copies, out].

    Every copy is initialised as a ``torch.nn.Linear``. It costs one call, many small layers one call each.
    """

    def __init__(self, copies: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(copies, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(copies, out_features).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.einsum("...ai,aoi->...ao", inputs, self.weight) + self.bias

    def extra_repr(self) -> str:
        copies, out_features, in_features = self.weight.shape
        return f"copies={copies}, in_features={in_features}, out_features={out_features}"


MIDDLE = 0.5
"""The middle of the unit scale: the prediction of a row without finite bases."""


def masked_softmax(logits: Tensor, available: Tensor | None) -> Tensor:
    """Softmax over the available entries; exactly 0 for the others, also where none is available.

    The mask is the lowest finite number, because the gradient of -inf is NaN where all are masked.
    """
    if available is None:
        return torch.softmax(logits, dim=-1)
    lowest = torch.finfo(logits.dtype).min
    return torch.softmax(logits.masked_fill(~available, lowest), dim=-1) * available


def weighted_sum(weights: Tensor, predictions: Tensor) -> Tensor:
    """[...] the weighted mean of the predictions; the middle of the scale where all are NaN.

    Args:
        weights: [..., A] that sum to 1, and are 0 where a base predicts NaN; predictions: [..., A].
    """
    # Centred, so that a row without weights gives the middle. NaN is replaced before the product, because 0 * NaN is
    # NaN, in the gradient too.
    centred = torch.where(predictions.isfinite(), predictions - MIDDLE, 0)
    return MIDDLE + (weights * centred).sum(-1)


def equal_weights(predictions: Tensor) -> Tensor:
    """[..., A] equal weights on the bases with a finite prediction, 0 on the others."""
    available = predictions.isfinite().to(predictions.dtype)
    return available / available.sum(-1, keepdim=True).clamp(min=1)


def available_mean(predictions: Tensor) -> Tensor:
    """[...] the mean of the finite predictions; the middle of the scale where there is none."""
    return weighted_sum(equal_weights(predictions), predictions)


def filled(predictions: Tensor) -> Tensor:
    """[..., A] predictions with every NaN replaced by the mean of the finite ones."""
    return torch.where(predictions.isfinite(), predictions, available_mean(predictions).unsqueeze(-1))


def all_features(algorithm_features: Tensor, context: Tensor) -> Tensor:
    """[..., A * F + C] all features of a row: those of each base in turn, then the context."""
    return torch.cat([algorithm_features.flatten(-2), context], dim=-1)


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with all parameters set to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def check_ends(name: str, tensor: Tensor, *expected: int) -> None:
    """Raise ValueError where the last axes of a tensor are not as expected."""
    if tensor.shape[-len(expected) :] != expected:
        raise ValueError(f"{name} must end in {list(expected)} but got {list(tensor.shape)}")
