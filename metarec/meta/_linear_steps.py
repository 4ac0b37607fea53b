"""Linear layers after inner steps, for T tasks at once: with a weight built for each task, or with the steps kept.

A step of gradient descent adds ``-rate * D^T X`` to a weight: X is the layer's input, D the gradient at its output. The
output for rows x is then ``x W^T + (x X^T) G`` with G = -rate * D, and a step on the bias adds a constant to ``x X^T``.

Shapes: A copies of the layer (1 of ``torch.nn.Linear``), T tasks, B = A * T, R rows of a task, M rows of its steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarec.fusion import ParallelLinear

__all__ = ["LAYERS", "BuiltSteps", "Descent", "KeptSteps", "Layer", "Rate", "Rates"]

Rate = Tensor | float


class Rates(NamedTuple):
    """The inner rates of a layer's weight and bias; None for a parameter that is not adapted."""

    weight: Rate | None
    bias: Rate | None

    def constant(self) -> Rates:
        return Rates(*(rate.detach() if isinstance(rate, Tensor) else rate for rate in self))


class Start(NamedTuple):
    """The weight [A, out, in] and, if there is one, the bias [A, 1, out] that all tasks start from."""

    weight: Tensor
    bias: Tensor | None

    def output(self, rows: Tensor) -> Tensor:
        """[B, R, out] for [B, R, in]."""
        by_copy = _by_copy(rows, self.weight)
        if self.bias is None:
            found = torch.bmm(by_copy, self.weight.mT)
        else:
            found = torch.baddbmm(self.bias, by_copy, self.weight.mT)
        return found.view(*rows.shape[:2], self.weight.shape[1])


class Descent:
    """A context in which an inner gradient is taken. Of a layer's gradients only that of its input is needed then."""

    running = False

    def __enter__(self) -> None:
        self.running = True

    def __exit__(self, *_: object) -> None:
        self.running = False


class Layer(ABC):
    """One linear layer, and the steps that T tasks have taken in it. A pass may call it several times.

    A weight that is no larger than what a single step would keep is built for each task; of others the steps are kept.
    """

    module: Any

    def __init__(self, rates: Rates, descent: Descent) -> None:
        self.outputs: list[Tensor] = []
        self._rates = self._rates_now = rates
        self._descent = descent
        self._steps: StepsOfLayer | None = None
        self._tasks = 0
        self._learning = False
        self._calls = 0
        self._inputs: list[Tensor] = []

    def __call__(self, inputs: Tensor) -> Tensor:
        """The layer's output for [T, ..., in]; the leading axes may be flattened, task by task."""
        call, self._calls = self._calls, self._calls + 1
        rows, start = self._as_rows(inputs), self._start()
        if not self._learning:
            output = start.output(rows) if self._steps is None else self._steps.output(rows, start, self._rates_now)
            return self._as_inputs(output, inputs)
        if self._steps is None:
            narrow = _is_narrow(start.weight, rows)
            self._steps = BuiltSteps() if narrow or self._rates.weight is None else KeptSteps(self._descent)
        same = None if inputs.requires_grad else call
        output = self._steps.output(rows, start, self._rates_now, call=same)
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        self._inputs.append(rows)
        self.outputs.append(output)
        return self._as_inputs(output, inputs)

    def start_pass(self, module: nn.Module, tasks: int, *, learning: bool, constant: bool) -> None:
        """Begin a pass in the place of a module, which has the layer's start.

        Args:
            learning: the pass is on the support rows. constant: the rates are constants in it.
        """
        self.module, self._tasks, self._learning, self._calls = module, tasks, learning, 0
        self._inputs, self.outputs = [], []
        self._rates_now = self._rates.constant() if constant else self._rates

    def step(self, gradients: Iterator[Tensor | None], *, keep_graph: bool) -> None:
        """Take one step, with the gradient at the output of each call of the last pass."""
        for call, (rows, gradient) in enumerate(zip(self._inputs, gradients, strict=False)):
            if gradient is not None:
                assert self._steps is not None, "there is a gradient, so there was a pass"
                self._steps.take(call, rows if keep_graph else rows.detach(), gradient, self._rates)
        self._inputs, self.outputs = [], []

    def forget(self) -> None:
        """Drop what was kept only for further inner steps."""
        self._inputs, self.outputs = [], []
        if isinstance(self._steps, KeptSteps):
            self._steps.forget()

    def built(self, start: Mapping[str, Tensor], tasks: int) -> dict[str, Tensor]:
        """The adapted ones of "weight" and "bias", [T, ...], from those of the start."""
        added = (None, None) if self._steps is None else self._steps.added(self._rates)
        built = {}
        for own, moved, rate in zip(("weight", "bias"), added, self._rates, strict=True):
            if rate is not None:
                value = start[own].expand(tasks, *start[own].shape)
                if moved is not None:
                    by_task = moved.unflatten(0, (len(moved) // max(tasks, 1), tasks)).transpose(0, 1)
                    value = value + by_task.reshape(value.shape)
                built[own] = value
        return built

    @abstractmethod
    def _start(self) -> Start: ...

    @abstractmethod
    def _as_rows(self, inputs: Tensor) -> Tensor:
        """[B, R, in] from the inputs."""

    @abstractmethod
    def _as_inputs(self, rows: Tensor, inputs: Tensor) -> Tensor:
        """[B, R, out] in the shape and order of the inputs."""


class _LinearLayer(Layer):
    """A ``torch.nn.Linear``: B is T."""

    def _start(self) -> Start:
        weight, bias = self.module.weight, self.module.bias
        return Start(weight.unsqueeze(0), None if bias is None else bias.view(1, 1, -1))

    def _as_rows(self, inputs: Tensor) -> Tensor:
        return inputs.reshape(self._tasks, inputs.shape[:-1].numel() // max(self._tasks, 1), inputs.shape[-1])

    def _as_inputs(self, rows: Tensor, inputs: Tensor) -> Tensor:
        return rows.reshape(*inputs.shape[:-1], rows.shape[-1])


class _ParallelLayer(Layer):
    """A :class:`~metarec.fusion.ParallelLinear` with A copies: B is A * T, so the rows of a copy are contiguous."""

    def _start(self) -> Start:
        return Start(self.module.weight, self.module.bias.unsqueeze(1))

    def _as_rows(self, inputs: Tensor) -> Tensor:
        copies, width = inputs.shape[-2:]
        rows = inputs.shape[:-2].numel() // max(self._tasks, 1)
        return inputs.movedim(-2, 0).reshape(copies * self._tasks, rows, width)

    def _as_inputs(self, rows: Tensor, inputs: Tensor) -> Tensor:
        by_copy = rows.reshape(inputs.shape[-2], *inputs.shape[:-2], rows.shape[-1])
        return by_copy.movedim(0, -2)


LAYERS: Mapping[type[nn.Module], type[Layer]] = {nn.Linear: _LinearLayer, ParallelLinear: _ParallelLayer}
"""The module types that can be adapted without a weight for each task."""


class StepsOfLayer(ABC):
    """The steps that T tasks have taken in a layer."""

    @abstractmethod
    def output(self, rows: Tensor, start: Start, rates: Rates, *, call: int | None = None) -> Tensor:
        """[B, R, out] the layer's output for [B, R, in] after the steps.

        Args:
            call: the number of the call in its pass, where its rows are the same in every pass.
        """

    @abstractmethod
    def take(self, call: int, rows: Tensor, gradient: Tensor, rates: Rates) -> None:
        """Take a step, with the gradient [B, R, out] at the output for these rows."""

    @abstractmethod
    def added(self, rates: Rates) -> tuple[Tensor | None, Tensor | None]:
        """[B, out, in] and [B, 1, out], the sum of all steps on the weight and on the bias."""


class BuiltSteps(StepsOfLayer):
    """Each task has a weight and a bias of its own."""

    def __init__(self) -> None:
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None

    def output(self, rows: Tensor, start: Start, rates: Rates, *, call: int | None = None) -> Tensor:
        return _output_with(self._weight, self._bias, rows, start)

    def take(self, call: int, rows: Tensor, gradient: Tensor, rates: Rates) -> None:
        if rates.weight is not None:
            self._weight = _sum(self._weight, -rates.weight * torch.bmm(gradient.mT, rows))
        if rates.bias is not None:
            self._bias = _sum(self._bias, -rates.bias * gradient.sum(1, keepdim=True))

    def added(self, rates: Rates) -> tuple[Tensor | None, Tensor | None]:
        return self._weight, self._bias


class KeptSteps(StepsOfLayer):
    """Every step's rows and moves are kept. The weight must be adapted.

    An input that does not depend on adapted parameters is the same in every step. Its output at the start and its
    products with itself are then computed once, and its steps are one step with the sum of their moves.
    """

    def __init__(self, descent: Descent) -> None:
        self._descent = descent
        self._fixed: dict[int, _Fixed] = {}
        self._fixed_steps: dict[int, _Steps] = {}
        self._steps: _Steps | None = None

    def output(self, rows: Tensor, start: Start, rates: Rates, *, call: int | None = None) -> Tensor:
        fixed = None if call is None else self._fixed.setdefault(call, _Fixed(rows))
        steps = self._all()
        if fixed is not None and (steps is None or steps.rows is fixed.rows):
            plain = fixed.plain(start)
            return plain if steps is None else torch.baddbmm(plain, fixed.products(_share(rates)), steps.moves)
        if steps is None:
            return start.output(rows)
        if _is_narrow(start.weight, rows):
            # With this many rows the built weights are cheaper.
            return _output_with(*self.added(rates), rows, start)
        output: Tensor = _AfterSteps.apply(self._descent, rows, start.weight, *steps, _share(rates))
        return output if start.bias is None else (_by_copy(output, start.bias) + start.bias).view_as(output)

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
        """Drop what is the same in every step: no more steps will be taken."""
        self._fixed = {}

    def _all(self) -> _Steps | None:
        steps = [*self._fixed_steps.values(), *([] if self._steps is None else [self._steps])]
        if len(steps) < 2:
            return steps[0] if steps else None
        return _Steps(*(torch.cat(parts, 1) for parts in zip(*steps, strict=True)))


class _Steps(NamedTuple):
    """X [B, M, in], the layer's inputs in its steps, and G [B, M, out], the moves of its outputs."""

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
            self._plain = start.output(self.rows)
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
        return Start(weight, None).output(rows).baddbmm_(products, moves)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, weight, seen, moves, share, products = ctx.saved_tensors
        if ctx.descent.running:
            back = _AfterSteps.apply(ctx.descent, gradient, weight.mT, moves, seen, None)
            return None, back, None, None, None, None
        if torch.is_grad_enabled():
            # This gradient is to be differentiated as well, and `products` was computed outside of the graph.
            products = _products(rows, seen, ctx.share if share is None else share)
        _, of_rows, of_weight, of_seen, of_moves, of_share = ctx.needs_input_grad
        along = torch.bmm(gradient, moves.mT)
        return (
            None,
            Start(weight.mT, None).output(gradient).baddbmm_(along, seen) if of_rows else None,
            torch.bmm(_by_copy(gradient, weight).mT, _by_copy(rows, weight)) if of_weight else None,
            torch.bmm(along.mT, rows) if of_seen else None,
            torch.bmm(products.mT, gradient) if of_moves else None,
            along.sum() if of_share else None,
        )


def _is_narrow(weight: Tensor, rows: Tensor) -> bool:
    """Whether a task's weight has no more entries than its rows [B, R, in] and the gradients at their outputs.

    Then it is cheaper built than kept as steps.
    """
    outputs, inputs = weight.shape[1:]
    return outputs * inputs <= rows.shape[1] * (outputs + inputs)


def _output_with(weight: Tensor | None, bias: Tensor | None, rows: Tensor, start: Start) -> Tensor:
    """[B, R, out] for [B, R, in], by the start and the sums of the steps, [B, out, in] and [B, 1, out]."""
    if weight is None:
        plain = start.output(rows)
        return plain if bias is None else plain + bias
    tasks = len(rows) // len(start.weight)
    own = (start.weight.repeat_interleave(tasks, 0) + weight).mT
    if start.bias is not None:
        bias = _sum(bias, start.bias.repeat_interleave(tasks, 0))
    return torch.bmm(rows, own) if bias is None else torch.baddbmm(bias, rows, own)


def _products(rows: Tensor, seen: Tensor, share: Rate | None) -> Tensor:
    """[B, R, M] the product of each row with each earlier one, x X^T, plus the bias's share."""
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


def _sum(before: Tensor | None, more: Tensor) -> Tensor:
    return more if before is None else before + more
