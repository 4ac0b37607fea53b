"""Losses of rows and of ranked lists, and their means over rows and tasks. Pure functions on tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "HUBER_DELTA",
    "LIST_LOSSES",
    "MOST_RELEVANT",
    "PREDICTION_LOSSES",
    "TRUNCATION",
    "absolute_error",
    "bpr_loss",
    "confidence_loss",
    "confidence_target",
    "huber_error",
    "lambda_loss",
    "masked_mean",
    "negative_entropy",
    "softmax_loss",
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

TRUNCATION = 10
"""The k of the nDCG@k that :func:`lambda_loss` weighs pairs by."""

MOST_RELEVANT = 32
"""How many relevant rows of a list :func:`bpr_loss` pairs with the irrelevant ones."""


def softmax_loss(scores: Tensor, targets: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """[..., N] cross-entropy between the targets, divided by their sum, and softmax(scores / temperature).

    A list-wise loss, as are :func:`bpr_loss` and :func:`lambda_loss`: the last axis is the list of one task, and the
    masked mean of the returned rows is the list's loss (:func:`task_means`). How it is shared out among the rows has no
    meaning. A row with a target > 0 is relevant. A list without a relevant row or without an irrelevant one has a loss
    and gradients of 0. Padding gets 0, whatever it holds.

    Args:
        scores: [..., N]; targets: [..., N] >= 0; mask: [..., N] bool, true where the row counts.
        temperature: > 0, the difference of two scores that counts as one unit of a logit.

    >>> scores, targets = torch.tensor([0.2, 0.7, 0.2]), torch.tensor([0.0, 1.0, 0.0])
    >>> softmax_loss(scores, targets, torch.ones(3, dtype=torch.bool), temperature=0.5).mean()
    tensor(0.5514)
    """
    logits, relevant, irrelevant = _list(scores, targets, mask, temperature)
    gains = torch.where(relevant & irrelevant.any(-1, keepdim=True), targets, 0)
    total = gains.sum(-1, keepdim=True)
    # The lowest finite number, because the gradient of -inf is NaN where all are masked.
    masked = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    surprise = torch.logsumexp(masked, -1, keepdim=True) - logits
    return _length(mask) * gains / torch.where(total > 0, total, 1) * surprise


def bpr_loss(scores: Tensor, targets: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """[..., N] Bayesian personalised ranking (Rendle et al. 2009): the mean logistic loss of the pairs of a relevant
    row and an irrelevant one.

    A list-wise loss; see :func:`softmax_loss`. Of more than :data:`MOST_RELEVANT` relevant rows those with the largest
    targets take part, and of equal ones the first, so that memory grows with N and not with its square.
    """
    logits, relevant, irrelevant = _list(scores, targets, mask, temperature)
    gains = torch.where(relevant, targets, 0)
    first = gains.sort(dim=-1, descending=True, stable=True).indices[..., :MOST_RELEVANT]
    pairs = relevant.gather(-1, first).unsqueeze(-1) & irrelevant.unsqueeze(-2)
    ahead = logits.gather(-1, first).unsqueeze(-1) - logits.unsqueeze(-2)
    losses = (functional.softplus(-ahead) * pairs).sum(-2)
    return _length(mask) * losses / pairs.sum((-2, -1)).clamp(min=1).unsqueeze(-1)


def lambda_loss(scores: Tensor, targets: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """[..., N] the logistic loss of pairs, each weighed by how much nDCG@10 changes if the two rows swap ranks.

    LambdaRank's weights (Burges 2010) in a loss (Wang et al. 2018) for binary relevance. A list-wise loss; see
    :func:`softmax_loss`. Ranks come from the scores without a graph; the earlier of equal scores ranks first. A swap
    behind the first :data:`TRUNCATION` ranks changes nothing, so that pairs with one row before it are all there are.
    The ideal DCG is that of the list's relevant rows.
    """
    logits, relevant, irrelevant = _list(scores, targets, mask, temperature)
    lowest = torch.finfo(logits.dtype).min
    order = logits.detach().masked_fill(~mask, lowest).sort(dim=-1, descending=True, stable=True).indices
    ranks = order.argsort(-1)
    by_rank = 1 / torch.log2(torch.arange(mask.shape[-1], dtype=logits.dtype, device=logits.device) + 2)
    by_rank[TRUNCATION:] = 0
    top, discounts = order[..., :TRUNCATION], by_rank[ranks]
    # A pair stands with its row of the higher rank, so that it is counted once.
    found, missed = (rows.gather(-1, top).unsqueeze(-1) for rows in (relevant, irrelevant))
    pairs = (found & irrelevant.unsqueeze(-2)) | (missed & relevant.unsqueeze(-2))
    pairs = pairs & (ranks.gather(-1, top).unsqueeze(-1) < ranks.unsqueeze(-2))
    changes = (discounts.gather(-1, top).unsqueeze(-1) - discounts.unsqueeze(-2)) * pairs
    ahead = logits.gather(-1, top).unsqueeze(-1) - logits.unsqueeze(-2)
    losses = (functional.softplus(torch.where(found, -ahead, ahead)) * changes).sum(-2)
    best = torch.arange(mask.shape[-1], device=mask.device) < relevant.sum(-1, keepdim=True)
    # The ideal is at least the discount of the first rank where there is a pair.
    return _length(mask) * losses / (by_rank * best).sum(-1, keepdim=True).clamp(min=0.5)


LIST_LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = MappingProxyType(
    {"softmax": softmax_loss, "bpr": bpr_loss, "lambda": lambda_loss}
)
"""name -> list-wise loss: (scores[..., N], targets[..., N], mask[..., N], temperature) -> [..., N]."""


def _list(scores: Tensor, targets: Tensor, mask: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """[..., N] the logits, 0 in padding, and which rows are relevant and which are irrelevant."""
    positive = targets > 0
    return torch.where(mask, scores, 0) / temperature, positive & mask, ~positive & mask


def _length(mask: Tensor) -> Tensor:
    """[..., 1] the number of rows of each list."""
    return mask.sum(-1, keepdim=True)


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
