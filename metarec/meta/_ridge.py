"""Ridge regressions of many tasks at once, differentiable in all their inputs. Pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from metarec.fusion import FusionNetwork
from metarec.fusion.losses import task_means

__all__ = ["corrections", "list_residuals", "ridge_coefficients"]


def ridge_coefficients(features: Tensor, residuals: Tensor, weights: Tensor, strength: Tensor) -> Tensor:
    """[..., D] the w of each task with the smallest sum_k v_k (r_k - f_k w)^2 + strength * |w|^2.

    With D features this is a system of D equations for each task, whatever the number of rows. The kernel form has one
    equation for each row, and the same solution. A row of weight 0 has no influence, and a task without other rows has
    coefficients of exactly 0.

    Args:
        features: [..., K, D] f. residuals: [..., K] r. weights: [..., K] v >= 0 of each row.
        strength: > 0, a scalar.

    >>> rows = torch.tensor([[1.0, 0.0], [1.0, 2.0], [7.0, 7.0]])
    >>> ridge_coefficients(rows, torch.tensor([1.0, 3.0, 9.0]), torch.tensor([1.0, 1.0, 0.0]), torch.tensor(1e-4))
    tensor([1.0000, 1.0000])
    """
    counted = weights > 0
    # What padding holds may be anything but a number that a product with 0 removes.
    features = torch.where(counted.unsqueeze(-1), features, 0)
    weighted = features * weights.unsqueeze(-1)
    moments = weighted.mT @ features + strength * torch.eye(features.shape[-1], dtype=features.dtype).to(features)
    targets = weighted.mT @ torch.where(counted, residuals, 0).unsqueeze(-1)
    solved: Tensor = torch.linalg.solve(moments, targets).squeeze(-1)
    return solved


def corrections(features: Tensor, coefficients: Tensor) -> Tensor:
    """[..., N] the predictions of each task's ridge regression; features: [..., N, D], coefficients: [..., D]."""
    return (features @ coefficients.unsqueeze(-1)).squeeze(-1)


def list_residuals(network: FusionNetwork, scores: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """[..., K] the residuals of lists, and the weight of each row, for :func:`ridge_coefficients`.

    The scores of a list have no targets on their own scale. As in gradient boosting (Friedman 2001), the residual of a
    row is the direction in which its score lowers the loss. The rows of a task weigh together as much as the relevant
    ones among them. For the cross-entropy the regression on these residuals is then the linear discriminant of relevant
    rows against what the scores expect, in units of the scores.

    Args:
        network: its loss of predictions is list-wise.
        scores: [..., K] the network's predictions. targets, mask: of the rows.
    """
    keep_graph = torch.is_grad_enabled() and scores.requires_grad
    with torch.enable_grad():
        points = scores if scores.requires_grad else scores.detach().requires_grad_()
        loss = task_means(network.prediction_losses(points, targets, mask), mask).sum()
        (gradient,) = torch.autograd.grad(loss, points, create_graph=keep_graph)
    rows = mask.sum(-1, keepdim=True)
    relevant = ((targets > 0) & mask).sum(-1, keepdim=True)
    residuals = -(network.temperature**2) * rows * gradient
    return residuals, mask * relevant / rows.clamp(min=1)
