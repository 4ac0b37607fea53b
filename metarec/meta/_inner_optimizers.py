"""Optimizers of the inner loop: from the gradients so far to a step. Differentiable, so nothing changes in place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = [
    "ADAM_BETAS",
    "ADAM_EPSILON",
    "INNER_OPTIMIZERS",
    "MOMENTUM",
    "DescentDirection",
    "InnerOptimizer",
    "descent_direction",
]

InnerOptimizer = Literal["sgd", "momentum", "adam"]
INNER_OPTIMIZERS: tuple[str, ...] = get_args(InnerOptimizer)

MOMENTUM = 0.9
"""The share of the last step's direction that the next one keeps."""

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8
"""Both as Kingma and Ba (2015) recommend."""


class DescentDirection:
    """The direction that is subtracted from parameters, times their rates. Stateful: make one for each descent."""

    def __call__(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """name -> the direction of the next step, in the shape of the gradient; here the gradient itself."""
        return dict(gradients)


class _Momentum(DescentDirection):
    """A sum of the gradients so far, the older the smaller (Polyak 1964), in torch's form."""

    def __init__(self) -> None:
        self._before: dict[str, Tensor] | None = None

    def __call__(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        before = self._before
        if before is None:
            self._before = dict(gradients)
        else:
            self._before = {name: MOMENTUM * before[name] + gradient for name, gradient in gradients.items()}
        return self._before


class _Adam(DescentDirection):
    """Adam (Kingma and Ba 2015, the formula at the end of section 2, which higher uses)."""

    def __init__(self) -> None:
        self._steps = 0
        self._mean: dict[str, Tensor] = {}
        self._square: dict[str, Tensor] = {}

    def __call__(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        first, second = ADAM_BETAS
        self._steps += 1
        correction = math.sqrt(1 - second**self._steps) / (1 - first**self._steps)
        directions = {}
        for name, gradient in gradients.items():
            mean = (1 - first) * gradient
            square = (1 - second) * gradient * gradient
            if name in self._mean:
                mean, square = first * self._mean[name] + mean, second * self._square[name] + square
            self._mean[name], self._square[name] = mean, square
            directions[name] = correction * mean / (_root(square) + ADAM_EPSILON)
        return directions


def _root(square: Tensor) -> Tensor:
    """The square root, with a gradient of 0 at 0 in place of an infinite one: entries without a gradient stay."""
    zero = square == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


_KINDS: Mapping[str, type[DescentDirection]] = {"sgd": DescentDirection, "momentum": _Momentum, "adam": _Adam}


def descent_direction(optimizer: InnerOptimizer) -> DescentDirection:
    """A new descent direction without state."""
    return _KINDS[optimizer]()
