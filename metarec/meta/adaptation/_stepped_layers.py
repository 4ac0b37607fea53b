"""Linear layers that answer with what inner steps have added to them, for T tasks at once. See :mod:`._low_rank`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from metarec.fusion import ParallelLinear
from metarec.meta.adaptation._inner_steps import BuiltSteps, Descent, KeptSteps, Rates, Start, StepsOfLayer, is_narrow

__all__ = ["KINDS", "Layer"]


class Layer(ABC):
    """One linear layer, and the steps that T tasks have taken in it. It may be called several times in a pass.

    A weight that is no larger than what a single step would keep of it is built for each task; of others the steps are
    kept. A is how many copies the layer has, B = A * T, R the rows of a task in one call.
    """

    def __init__(self, module: Any, rates: Rates, descent: Descent) -> None:
        self.module = module
        self.outputs: list[Tensor] = []
        self._rates = self._rates_now = rates
        self._descent = descent
        self._steps: StepsOfLayer | None = None
        self._tasks = 0
        self._learning = False
        self._calls = 0
        self._inputs: list[Tensor] = []

    def __call__(self, inputs: Tensor) -> Tensor:
        """The layer's answer for [T, ..., in]; the leading axes may be flattened, task by task."""
        call, self._calls = self._calls, self._calls + 1
        rows, start = self._as_rows(inputs), self._start()
        if not self._learning:
            answer = start.answer(rows) if self._steps is None else self._steps.answer(rows, start, self._rates_now)
            return self._as_inputs(answer, inputs)
        if self._steps is None:
            narrow = is_narrow(start.weight, rows)
            self._steps = BuiltSteps() if narrow or self._rates.weight is None else KeptSteps(self._descent)
        same = None if inputs.requires_grad else call
        output = self._steps.answer(rows, start, self._rates_now, call=same)
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        self._inputs.append(rows)
        self.outputs.append(output)
        return self._as_inputs(output, inputs)

    def start_pass(self, tasks: int, *, learning: bool, constant: bool) -> None:
        """Another pass begins. `learning`: it is on the support rows; `constant`: the rates are numbers in it."""
        self._tasks, self._learning, self._calls = tasks, learning, 0
        self._inputs, self.outputs = [], []
        self._rates_now = self._rates.constant() if constant else self._rates

    def step(self, gradients: Iterator[Tensor | None], *, keep_graph: bool) -> None:
        """Take one step, with the gradient at the output of each call of the pass before."""
        for call, (rows, gradient) in enumerate(zip(self._inputs, gradients, strict=False)):
            if gradient is not None:
                assert self._steps is not None, "there is a gradient, so there was a pass"
                self._steps.take(call, rows if keep_graph else rows.detach(), gradient, self._rates)
        self._inputs, self.outputs = [], []

    def forget(self) -> None:
        """The inner steps are over, and with them what was computed once for all of them."""
        self._inputs, self.outputs = [], []
        if self._steps is not None:
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
    def _start(self) -> Start:
        """What all tasks start from."""

    @abstractmethod
    def _as_rows(self, inputs: Tensor) -> Tensor:
        """[B, R, in] from the inputs."""

    @abstractmethod
    def _as_inputs(self, rows: Tensor, inputs: Tensor) -> Tensor:
        """[B, R, out] in the shape and order of the inputs."""


class _LinearLayer(Layer):
    """Of ``torch.nn.Linear``. B is T."""

    def _start(self) -> Start:
        weight, bias = self.module.weight, self.module.bias
        return Start(weight.unsqueeze(0), None if bias is None else bias.view(1, 1, -1))

    def _as_rows(self, inputs: Tensor) -> Tensor:
        return inputs.reshape(self._tasks, inputs.shape[:-1].numel() // max(self._tasks, 1), inputs.shape[-1])

    def _as_inputs(self, rows: Tensor, inputs: Tensor) -> Tensor:
        return rows.reshape(*inputs.shape[:-1], rows.shape[-1])


class _ParallelLayer(Layer):
    """Of :class:`~metarec.fusion.ParallelLinear` with A copies. B is A * T, so that each copy's rows lie together."""

    def _start(self) -> Start:
        return Start(self.module.weight, self.module.bias.unsqueeze(1))

    def _as_rows(self, inputs: Tensor) -> Tensor:
        copies, width = inputs.shape[-2:]
        rows = inputs.shape[:-2].numel() // max(self._tasks, 1)
        return inputs.movedim(-2, 0).reshape(copies * self._tasks, rows, width)

    def _as_inputs(self, rows: Tensor, inputs: Tensor) -> Tensor:
        by_copy = rows.reshape(inputs.shape[-2], *inputs.shape[:-2], rows.shape[-1])
        return by_copy.movedim(0, -2)


KINDS: Mapping[type[nn.Module], type[Layer]] = {nn.Linear: _LinearLayer, ParallelLinear: _ParallelLayer}
