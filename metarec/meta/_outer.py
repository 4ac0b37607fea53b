"""One step of the outer loop."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from metarec.episodes import EpisodeBatch
from metarec.errors import InputError
from metarec.meta._base import MetaLearner

__all__ = ["NonFiniteLossError", "clipped_step", "make_adam", "outer_step"]

MAX_GRADIENT_NORM = 1.0

LOG_RATES_FACTOR = 10
"""How much faster the logarithms of learned inner rates are trained than the weights."""


class NonFiniteLossError(FloatingPointError):
    """Training met a loss or a gradient that is not finite.

    Attributes:
        what: the name of the number; value: what it is.
        epoch: counted from 0; batch: within the epoch, None in validation.
    """

    def __init__(self, what: str, value: float, epoch: int, batch: int | None) -> None:
        # All of them are args, so that the error can be pickled on its way out of a worker process.
        super().__init__(what, value, epoch, batch)
        self.what = what
        self.value = value
        self.epoch = epoch
        self.batch = batch

    def __str__(self) -> str:
        where = "validation" if self.batch is None else f"batch {self.batch}"
        return (
            f"{self.what} must be finite but is {self.value} in epoch {self.epoch}, {where}; "
            "try smaller inner and outer rates"
        )


def outer_step(
    learner: MetaLearner, tasks: EpisodeBatch, optimizer: torch.optim.Optimizer, *, epoch: int, batch: int
) -> float:
    """One step on the meta-loss of these tasks, its gradient's norm clipped at 1; the loss before it.

    Raises:
        NonFiniteLossError: the loss or the gradient is not finite; the step is not taken.
    """
    loss = learner.meta_loss(tasks)
    value = loss.item()
    if not math.isfinite(value):
        raise NonFiniteLossError("the loss", value, epoch=epoch, batch=batch)
    optimizer.zero_grad()
    loss.backward()
    clipped_step(learner, optimizer, epoch=epoch, batch=batch)
    return value


def clipped_step(learner: MetaLearner, optimizer: torch.optim.Optimizer, *, epoch: int, batch: int) -> None:
    """One step along the gradients that the parameters have, their norm clipped at 1.

    Raises:
        NonFiniteLossError: the gradient is not finite; the step is not taken.
    """
    norm = nn.utils.clip_grad_norm_(learner.parameters(), MAX_GRADIENT_NORM).item()
    if not math.isfinite(norm):
        raise NonFiniteLossError("the gradient's norm", norm, epoch=epoch, batch=batch)
    optimizer.step()


def make_adam(learner: MetaLearner, learning_rate: float) -> torch.optim.Optimizer:
    """Adam on everything that the meta-learner trains, or an InputError about the rate."""
    if not 0 < learning_rate < math.inf:
        raise InputError(f"learning_rate must be a finite number > 0 but got {learning_rate!r}")
    weights = [p for p in learner.parameters() if p.requires_grad and p is not learner.log_rates]
    groups: list[dict[str, Any]] = [{"params": weights}]
    if learner.log_rates is not None:
        groups.append({"params": [learner.log_rates], "lr": LOG_RATES_FACTOR * learning_rate})
    return torch.optim.Adam(groups, lr=learning_rate)
