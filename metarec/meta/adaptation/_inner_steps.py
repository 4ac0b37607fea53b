"""What inner steps add to one linear layer, for T tasks at once: built into weights, or kept as they are.

A step of gradient descent adds ``-rate * D^T X`` to a weight: X is what the layer was given, D the gradient at its
outputs. Rows x are then answered by ``x W^T + (x X^T) G`` with G = -rate * D, and a step on the bias adds a constant to
``x X^T``.

Shapes: A copies of the layer (1 of ``torch.nn.Linear``), T tasks, B = A * T, R rows of a task, M rows of its steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["BuiltSteps", "Descent", "KeptSteps", "Rate", "Rates", "Start", "StepsOfLayer", "is_narrow"]

Rate = Tensor | float


class Rates(NamedTuple):
    """The inner rates of a layer's weight and bias; None for what is not adapted."""

    weight: Rate | None
    bias: Rate | None

    def constant(self) -> Rates:
        return Rates(*(rate.detach() if isinstance(rate, Tensor) else rate for rate in self))


class Start(NamedTuple):
    """[A, out, in] the weight and [A, 1, out] the bias, if there is one, that all tasks start from."""

    weight: Tensor
    bias: Tensor | None

    def answer(self, rows: Tensor) -> Tensor:
        """[B, R, out] for [B, R, in]."""
        by_copy = _by_copy(rows, self.weight)
        if self.bias is None:
            found = torch.bmm(by_copy, self.weight.mT)
        else:
            found = torch.baddbmm(self.bias, by_copy, self.weight.mT)
        return found.view(*rows.shape[:2], self.weight.shape[1])


class Descent:
    """Whether an inner gradient is being taken. Of a layer's gradients only that of its inputs is then wanted."""

    running = False

    def __enter__(self) -> None:
        self.running = True

    def __exit__(self, *_: object) -> None:
        self.running = False


class StepsOfLayer(ABC):
    """The steps that T tasks have taken in a layer."""

    @abstractmethod
    def answer(self, rows: Tensor, start: Start, rates: Rates, *, call: int | None = None) -> Tensor:
        """[B, R, out] what the layer answers to [B, R, in] after the steps.

        Args:
            call: which call of a pass this is, where its rows are the same in every pass.
        """

    @abstractmethod
    def take(self, call: int, rows: Tensor, gradient: Tensor, rates: Rates) -> None:
        """Take a step, with the gradient [B, R, out] at what was answered to these rows."""

    @abstractmethod
    def added(self, rates: Rates) -> tuple[Tensor | None, Tensor | None]:
        """[B, out, in] and [B, 1, out] what the steps added to weight and bias."""

    @abstractmethod
    def forget(self) -> None:
        """No more steps will be taken: what was kept only to take them goes."""


class BuiltSteps(StepsOfLayer):
    """Each task has a weight and a bias of its own."""

    def __init__(self) -> None:
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None

    def answer(self, rows: Tensor, start: Start, rates: Rates, *, call: int | None = None) -> Tensor:
        return _answer_with(self._weight, self._bias, rows, start)

    def take(self, call: int, rows: Tensor, gradient: Tensor, rates: Rates) -> None:
        if rates.weight is not None:
            self._weight = _sum(self._weight, -rates.weight * torch.bmm(gradient.mT, rows))
        if rates.bias is not None:
            self._bias = _sum(self._bias, -rates.bias * gradient.sum(1, keepdim=True))

    def added(self, rates: Rates) -> tuple[Tensor | None, Tensor | None]:
        return self._weight, self._bias

    def forget(self) -> None:
        """There is nothing of that kind."""


class KeptSteps(StepsOfLayer):
    """Every step's rows and moves are kept. The weight must be adapted.

    Where what a call is given does not depend on anything that is adapted, it is the same in every step. Then what the
    start answers to it, and its products with itself, are computed once, and its steps are one step with the sum of
    their moves.
    """

    def __init__(self, descent: Descent) -> None:
        self._descent = descent
        self._fixed: dict[int, _Fixed] = {}
        self._fixed_steps: dict[int, _Steps] = {}
        self._steps: _Steps | None = None

    def answer(self, rows: Tensor, start: Start, rates: Rates, *, call: int | None = None) -> Tensor:
        fixed = None if call is None else self._fixed.setdefault(call, _Fixed(rows))
        steps = self._all()
        if fixed is not None and (steps is None or steps.rows is fixed.rows):
            plain = fixed.plain(start)
            return plain if steps is None else torch.baddbmm(plain, fixed.products(_share(rates)), steps.moves)
        if steps is None:
            return start.answer(rows)
        if is_narrow(start.weight, rows):
            # Many rows are worth the weights that they share.
            return _answer_with(*self.added(rates), rows, start)
        answer: Tensor = _AfterSteps.apply(self._descent, rows, start.weight, *steps, _share(rates))
        return answer if start.bias is None else _plus(answer, start.bias)

    def take(self, call: int, rows: Tensor, gradient: Tensor, rates: Rates) -> None:
        assert rates.weight is not None, "where nothing but a bias is adapted, it is built"
        moves = -rates.weight * gradient
        if call in self._fixed:
            before = self._fixed_steps.get(call)
            rows = self._fixed[call].rows
            self._fixed_steps[call] = _Steps(rows, moves if before is None else before.moves + moves)
        elif self._steps is None:
            self._steps = _Steps(rows, moves)
        else:
            # A chain: a step's gradient goes back through the next one, not through each of those that follow.
            self._steps = _Steps(torch.cat([self._steps.rows, rows], 1), torch.cat([self._steps.moves, moves], 1))

    def added(self, rates: Rates) -> tuple[Tensor | None, Tensor | None]:
        steps, share = self._all(), _share(rates)
        if steps is None:
            return None, None
        return steps.moves.mT @ steps.rows, None if share is None else steps.moves.sum(1, keepdim=True) * share

    def forget(self) -> None:
        self._fixed = {}

    def _all(self) -> _Steps | None:
        steps = [*self._fixed_steps.values(), *([] if self._steps is None else [self._steps])]
        if len(steps) < 2:
            return steps[0] if steps else None
        return _Steps(*(torch.cat(parts, 1) for parts in zip(*steps, strict=True)))


class _Steps(NamedTuple):
    """X [B, M, in], what the layer was given in its steps, and G [B, M, out], how far its outputs were to move."""

    rows: Tensor
    moves: Tensor


class _Fixed:
    """What is the same in every step for one call of a layer."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self._plain: Tensor | None = None
        self._products: Tensor | None = None

    def plain(self, start: Start) -> Tensor:
        if self._plain is None:
            self._plain = start.answer(self.rows)
        return self._plain

    def products(self, share: Rate | None) -> Tensor:
        if self._products is None:
            self._products = _products(self.rows, self.rows, share)
        return self._products


class _AfterSteps(torch.autograd.Function):
    """x W^T + (x X^T + c) G, for rows x [B, R, in], W [A, out, in], X [B, M, in], G [B, M, out]; c a number or None.

    Its gradient for x is the same function of the gradient, with W transposed and X and G exchanged.
    """

    @staticmethod
    def forward(
        ctx: Any, descent: Descent, rows: Tensor, weight: Tensor, seen: Tensor, moves: Tensor, share: Rate | None
    ) -> Tensor:
        products = _products(rows, seen, share)
        ctx.descent, ctx.share = descent, share if isinstance(share, float) else None
        ctx.save_for_backward(rows, weight, seen, moves, share if isinstance(share, Tensor) else None, products)
        return Start(weight, None).answer(rows).baddbmm_(products, moves)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, weight, seen, moves, share, products = ctx.saved_tensors
        if ctx.descent.running:
            back = _AfterSteps.apply(ctx.descent, gradient, weight.mT, moves, seen, None)
            return None, back, None, None, None, None
        if torch.is_grad_enabled():
            # Somebody wants the derivative of this gradient as well; `products` was computed outside of the graph.
            products = _products(rows, seen, ctx.share if share is None else share)
        _, of_rows, of_weight, of_seen, of_moves, of_share = ctx.needs_input_grad
        along = torch.bmm(gradient, moves.mT)
        return (
            None,
            Start(weight.mT, None).answer(gradient).baddbmm_(along, seen) if of_rows else None,
            torch.bmm(_by_copy(gradient, weight).mT, _by_copy(rows, weight)) if of_weight else None,
            torch.bmm(along.mT, rows) if of_seen else None,
            torch.bmm(products.mT, gradient) if of_moves else None,
            along.sum() if of_share else None,
        )


def is_narrow(weight: Tensor, rows: Tensor) -> bool:
    """Whether a task's weight has no more entries than its rows and the gradients at them, [B, R, in] and [B, R, out].

    Then it is cheaper built than kept as steps.
    """
    outputs, inputs = weight.shape[1:]
    return outputs * inputs <= rows.shape[1] * (outputs + inputs)


def _answer_with(weight: Tensor | None, bias: Tensor | None, rows: Tensor, start: Start) -> Tensor:
    """[B, R, out] for [B, R, in], by the start and what was added to it: [B, out, in] and [B, 1, out]."""
    if weight is None:
        plain = start.answer(rows)
        return plain if bias is None else plain + bias
    tasks = len(rows) // len(start.weight)
    own = (start.weight.repeat_interleave(tasks, 0) + weight).mT
    if start.bias is not None:
        bias = _sum(bias, start.bias.repeat_interleave(tasks, 0))
    return torch.bmm(rows, own) if bias is None else torch.baddbmm(bias, rows, own)


def _products(rows: Tensor, seen: Tensor, share: Rate | None) -> Tensor:
    """[B, R, M] how far each row goes along with each earlier one: x X^T, and the bias's share."""
    products = torch.bmm(rows, seen.mT)
    return products if share is None else products.add_(share)


def _share(rates: Rates) -> Rate | None:
    """What a step on the bias adds, in units of the weight's rate."""
    assert rates.weight is not None, "where nothing but a bias is adapted, it is built"
    return None if rates.bias is None else rates.bias / rates.weight


def _by_copy(rows: Tensor, parameter: Tensor) -> Tensor:
    """[A, T * R, ...] from [B, R, ...], for a parameter [A, ...]."""
    copies = len(parameter)
    return rows.reshape(copies, len(rows) // copies * rows.shape[1], rows.shape[-1])


def _plus(rows: Tensor, bias: Tensor) -> Tensor:
    return (_by_copy(rows, bias) + bias).view_as(rows)


def _sum(before: Tensor | None, more: Tensor) -> Tensor:
    return more if before is None else before + more
