"""What several networks share: how they read bases that may say NaN, and how they check what they are given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarec.episodes import FusionInputs
from metarec.errors import InputError

__all__ = [
    "MIDDLE",
    "all_features",
    "available_mean",
    "check_at_least",
    "check_ends",
    "check_inputs",
    "equal_weights",
    "filled",
    "masked_softmax",
    "weighted_sum",
    "zeroed",
]

MIDDLE = 0.5
"""The middle of the unit scale: what is predicted where nothing is known."""


def masked_softmax(logits: Tensor, available: Tensor | None) -> Tensor:
    """Softmax over the available ones; exactly 0 for the others, and for all of them where none is available.

    The lowest finite number, not -inf, whose gradient is NaN where all are masked.
    """
    if available is None:
        return torch.softmax(logits, dim=-1)
    lowest = torch.finfo(logits.dtype).min
    return torch.softmax(logits.masked_fill(~available, lowest), dim=-1) * available


def weighted_sum(weights: Tensor, predictions: Tensor) -> Tensor:
    """[...] what the bases predict, weighted; the middle of the scale where no base says anything.

    Args:
        weights: [..., A] that sum to 1, and are 0 where a base says NaN; predictions: [..., A].
    """
    # Around the middle, which is then the sum of a row without weights. The NaN must be replaced before it is
    # multiplied: 0 * NaN is NaN, in the gradient too.
    centred = torch.where(predictions.isfinite(), predictions - MIDDLE, 0)
    return MIDDLE + (weights * centred).sum(-1)


def equal_weights(predictions: Tensor) -> Tensor:
    """[..., A] alike on those bases that say something, 0 on the others."""
    available = predictions.isfinite().to(predictions.dtype)
    return available / available.sum(-1, keepdim=True).clamp(min=1)


def available_mean(predictions: Tensor) -> Tensor:
    """[...] the mean of those bases that say something; the middle of the scale where none does."""
    return weighted_sum(equal_weights(predictions), predictions)


def filled(predictions: Tensor) -> Tensor:
    """[..., A] predictions, with the mean of those that say something in the place of every NaN.

    A base that cannot say then moves a weighted mean no further than the others do.
    """
    return torch.where(predictions.isfinite(), predictions, available_mean(predictions).unsqueeze(-1))


def all_features(algorithm_features: Tensor, context: Tensor) -> Tensor:
    """[..., A * F + C] everything that is known of a row: the features base by base, then the context."""
    return torch.cat([algorithm_features.flatten(-2), context], dim=-1)


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer, starting at zero: what it adds to an anchor must be learned."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def check_at_least(lowest: int, **values: int) -> None:
    """Raise InputError where an argument is no integer, or lower than `lowest`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise InputError(f"{name} must be an integer >= {lowest} but got {value!r}")


def check_ends(name: str, tensor: Tensor, *expected: int) -> None:
    """Raise ValueError where the last axes of a tensor are not as expected."""
    if tensor.shape[-len(expected) :] != expected:
        raise ValueError(f"{name} must end in {list(expected)} but got {list(tensor.shape)}")


def check_inputs(inputs: FusionInputs, num_algorithms: int, feature_dim: int, context_dim: int) -> None:
    """Raise ValueError where the last axes of what a network sees are not those that it was built for."""
    check_ends("predictions", inputs.predictions, num_algorithms)
    check_ends("algorithm_features", inputs.algorithm_features, num_algorithms, feature_dim)
    check_ends("context", inputs.context, context_dim)
