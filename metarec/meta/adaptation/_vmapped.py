"""Inner steps on fast weights of every task: the general path, for any network whose operations ``vmap`` knows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metarec.fusion.losses import task_means
from metarec.meta._calls import Rows, each_task, evaluating, twice_differentiable
from metarec.meta._inner_optimizers import InnerOptimizer, descent_direction

__all__ = ["fast_weights"]


def fast_weights(
    losses: nn.Module,
    start: Mapping[str, Tensor],
    rates: Mapping[str, Tensor | float],
    support: Rows,
    *,
    steps: int,
    keep_graph: bool,
    optimizer: InnerOptimizer = "sgd",
) -> dict[str, Tensor]:
    """name -> [T, ...] the adapted parameters after each task's inner steps, dropout off.

    Only the forward pass is mapped over the tasks. The gradient is taken outside of the map, as that of the operations
    that were really done: inside of it (``vmap`` of ``grad``), second derivatives were measured to be wrong by several
    percent where weights of a layer norm or of an attention layer are adapted (torch 2.14).

    Args:
        start: name -> every trainable parameter. rates: name -> the inner rate of every adapted parameter.
        keep_graph: whether a gradient is to flow through the steps; without it they are constants, all but the rates.
    """
    tasks = support.mask.shape[0]
    fast = {name: start[name].expand(tasks, *start[name].shape) for name in rates}
    direction = descent_direction(optimizer)
    with evaluating(losses), torch.enable_grad(), twice_differentiable():
        for _ in range(steps):
            point = fast if keep_graph else {name: value.detach() for name, value in fast.items()}
            for value in point.values():
                value.requires_grad_()
            total = task_means(each_task(losses, point, support), support.mask).sum()
            gradients = torch.autograd.grad(
                total, list(point.values()), create_graph=keep_graph, allow_unused=True, materialize_grads=True
            )
            moves = direction(dict(zip(fast, gradients, strict=True)))
            fast = {name: value - rates[name] * moves[name] for name, value in fast.items()}
    return fast
