"""Losses of single rows, and their means over rows and tasks. Pure functions on tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

__all__ = [
    "HUBER_DELTA",
    "PREDICTION_LOSSES",
    "absolute_error",
    "confidence_loss",
    "confidence_target",
    "huber_error",
    "masked_mean",
    "negative_entropy",
    "squared_error",
    "task_means",
]

HUBER_DELTA = 0.1
"""The error at which :func:`huber_error` becomes linear: a tenth of the unit scale, half of a usual rating error."""


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """[...] the squared error of each row."""
    return (prediction - target).square()


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """[...] the absolute error of each row."""
    return (prediction - target).abs()


def huber_error(prediction: Tensor, target: Tensor, delta: float = HUBER_DELTA) -> Tensor:
    """[...] half the square of an error up to `delta`, and a line from there on (Huber 1964).

    >>> huber_error(torch.tensor([0.5, 0.9]), torch.tensor([0.4, 0.0]))
    tensor([0.0050, 0.0850])
    """
    size = (prediction - target).abs()
    return torch.where(size <= delta, 0.5 * size.square(), delta * (size - 0.5 * delta))


PREDICTION_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"mse": squared_error, "mae": absolute_error, "huber": huber_error}
)
"""name -> loss of the predictions: (prediction[...], target[...]) -> [...]."""


def negative_entropy(weights: Tensor) -> Tensor:
    """[...] minus the entropy of weights[..., A] that sum to 1, in nats: lowest for equal weights.

    A weight of 0 adds nothing, and its gradient is finite.
    """
    return (weights * weights.clamp(min=torch.finfo(weights.dtype).tiny).log()).sum(-1)


def confidence_target(predictions: Tensor, targets: Tensor) -> Tensor:
    """[..., A] the target of a confidence: 1 - |that base's error| / the largest base error of the row.

    It is 1 for every base where all of them are right, and 0 for a base that predicts NaN, which no loss should count.

    Args:
        predictions: [..., A] of the bases, or NaN.
        targets: [...] the true ratings.
    """
    finite = predictions.isfinite()
    target = targets.unsqueeze(-1)
    errors = (torch.where(finite, predictions, target) - target).abs()
    largest = errors.amax(-1, keepdim=True)
    goal = 1 - errors / torch.where(largest > 0, largest, 1)
    return goal * finite


def confidence_loss(confidences: Tensor, predictions: Tensor, targets: Tensor) -> Tensor:
    """[...] squared error between each confidence and its goal, averaged over the available bases.

    Args:
        confidences: [..., A] in [0, 1].
        predictions: [..., A] of the bases, or NaN; targets: [...] the true ratings.
    """
    finite = predictions.isfinite()
    errors = (confidences - confidence_target(predictions, targets)).square() * finite
    return errors.sum(-1) / finite.sum(-1).clamp(min=1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over each task's unmasked rows, then over the tasks, as a scalar.

    A task without rows is left out of the mean over tasks; a zero in its place would shrink the loss of the others. If
    no task has a row, it is 0, with a graph to `values`.

    Args:
        values: [..., N] one value per row; finite everywhere, in padding too.
        mask: [..., N] bool, true where the row counts.

    >>> masked_mean(torch.tensor([[1.0, 3.0], [5.0, 9.0]]), torch.tensor([[True, True], [True, False]]))
    tensor(3.5000)
    """
    return task_means(values, mask).sum() / mask.any(-1).sum().clamp(min=1)


def task_means(values: Tensor, mask: Tensor) -> Tensor:
    """[...] the mean over each task's unmasked rows; 0 for a task without any. See :func:`masked_mean`."""
    return (values * mask).sum(-1) / mask.sum(-1).clamp(min=1)
