"""Fast weights that are never built: inner steps on linear layers, for all tasks of a batch at once.

A step of gradient descent on a linear layer adds to its weight ``-rate * D^T X``, with X the layer's inputs on the
task's support rows and D the gradient of the task's loss at its outputs. So a task's own weight is the shared one plus
a product of thin matrices, and the layer answers rows x with ``x W^T - rate * (x X^T) D``: one large product that all
tasks share, and two thin ones. X and D are kept in place of weights. Where a gradient is to flow through the steps, D
is taken with its graph: the gradient is then exact.

Shapes: T tasks, R rows of a task in a layer, M rows that earlier steps saw there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from metarec.episodes import FusionInputs
from metarec.fusion import ParallelLinear
from metarec.fusion.losses import task_means
from metarec.meta._base import RowLosses, evaluating

__all__ = ["InnerSteps", "why_not"]

Rate = Tensor | float


def why_not(losses: RowLosses, rates: Mapping[str, Rate]) -> str | None:
    """Why the steps cannot be kept this way: an adapted parameter of another kind. None where they can be.

    Adapted parameters must belong to linear layers, or to the fusion network itself, which then must use them in a way
    that broadcasts over leading axes. That, and that a layer's weight is not used behind the layer's back, cannot be
    seen here: it must be tried.
    """
    modules = dict(losses.named_modules())
    for name in rates:
        owner, _, own = name.rpartition(".")
        module = modules[owner]
        if not (type(module) in _KINDS or module is losses.network):
            return f"{own} of {owner.removeprefix('network.')}, a {type(module).__name__}, is adapted"
    return None


class InnerSteps:
    """The inner steps that T tasks have taken from one start.

    Args:
        losses: the network and its loss.
        start: name -> every trainable parameter.
        rates: name -> the inner rate of every adapted parameter.
        keep_graph: whether a gradient is to flow through the steps; without it they are constants, all but the rates.
    """

    def __init__(
        self, losses: RowLosses, start: Mapping[str, Tensor], rates: Mapping[str, Rate], *, keep_graph: bool
    ) -> None:
        self._losses = losses
        self._start = dict(start)
        self._rates = dict(rates)
        self._keep_graph = keep_graph
        self._layers: dict[str, _Layer] = {}
        in_layers = set()
        for name, module in losses.named_modules():
            weight, bias = f"{name}.weight", f"{name}.bias"
            if type(module) in _KINDS and (weight in rates or bias in rates):
                self._layers[name] = _KINDS[type(module)](module, rates.get(weight), rates.get(bias))
                in_layers |= {weight, bias}
        # What is in no layer is small. It is built: name -> [T, 1, ...] what the steps added, for all rows of a task.
        self._added: dict[str, Tensor | None] = {name: None for name in rates if name not in in_layers}

    def descend(self, support: FusionInputs, steps: int) -> InnerSteps:
        """Take steps on the mean loss of each task's unmasked rows, dropout off."""
        with evaluating(self._losses), torch.enable_grad():
            for _ in range(steps):
                self._step(support)
        for layer in self._layers.values():
            layer.forget()
        return self

    def __call__(self, module: nn.Module, inputs: FusionInputs) -> Any:
        """What a module around the network says of each task's rows after the steps."""
        own = {name: self._value(name, inputs.mask.shape[0]) for name in self._added}
        with self._in_place(learning=False):
            return functional_call(module, {**self._start, **own}, (inputs,))

    def fast_weights(self, tasks: int) -> dict[str, Tensor]:
        """name -> [T, ...] each adapted parameter, built after all."""
        built = {name: self._value(name, tasks).squeeze(1) for name in self._added}
        for name, layer in self._layers.items():
            start = {own: self._start[f"{name}.{own}"] for own in ("weight", "bias") if f"{name}.{own}" in self._start}
            built |= {f"{name}.{own}": value for own, value in layer.built(start, tasks).items()}
        return {name: built[name] for name in self._rates}

    def _value(self, name: str, tasks: int) -> Tensor:
        start, added = self._start[name], self._added[name]
        value = start.expand(tasks, 1, *start.shape)
        return value if added is None else value + added

    def _step(self, support: FusionInputs) -> None:
        parameters = self._start | {name: self._value(name, support.mask.shape[0]) for name in self._added}
        if not self._keep_graph:
            parameters = {name: value.detach() for name, value in parameters.items()}
        own = {name: parameters[name].requires_grad_() for name in self._added}
        with self._in_place(learning=True):
            losses = functional_call(self._losses, parameters, (support,))
        total = task_means(losses, support.mask).sum()
        points = [*(output for layer in self._layers.values() for output in layer.outputs), *own.values()]
        if not total.requires_grad or not points:
            return
        found = torch.autograd.grad(total, points, create_graph=self._keep_graph, allow_unused=True)
        gradients = iter(found)
        for layer in self._layers.values():
            layer.step(gradients, keep_graph=self._keep_graph)
        for name, gradient in zip(own, gradients, strict=True):
            if gradient is not None:
                before = self._added[name]
                step = -self._rates[name] * gradient
                self._added[name] = step if before is None else before + step

    @contextmanager
    def _in_place(self, *, learning: bool) -> Iterator[None]:
        """The network's layers answer with what the steps have added to them."""
        for layer in self._layers.values():
            layer.start_pass(learning=learning, constant=learning and not self._keep_graph)
            layer.module.forward = layer
        try:
            yield
        finally:
            for layer in self._layers.values():
                del layer.module.forward


class _Steps(NamedTuple):
    """X [B, M, in] and D [B, M, out] of one step or several; B is the tasks, or the copies of the layer times them."""

    rows: Tensor
    gradients: Tensor


class _Layer(ABC):
    """One linear layer, and the steps that T tasks have taken in it.

    It may be called several times in a pass: each call has rows of its own. Where what a call is given does not depend
    on anything that is adapted, it is the same in every step. Then what the shared weight answers to it, and its
    products with itself, are computed once, and its steps are one step with the sum of their gradients.
    """

    def __init__(self, module: Any, weight_rate: Rate | None, bias_rate: Rate | None) -> None:
        self.module = module
        self.outputs: list[Tensor] = []
        self._rates = self._rates_now = (weight_rate, bias_rate)
        self._learning = False
        self._calls = 0
        self._inputs: list[Tensor] = []
        self._fixed: dict[int, _Fixed] = {}
        self._steps: dict[int | tuple[int, int], _Steps] = {}

    def __call__(self, inputs: Tensor) -> Tensor:
        """The layer's answer for [T, ..., in]."""
        call, self._calls = self._calls, self._calls + 1
        if not self._learning:
            rows = self._as_rows(inputs)
            return self._as_inputs(self._corrected(rows, self._plain(rows)), inputs)
        fixed = self._fixed.get(call)
        if fixed is None:
            rows = self._as_rows(inputs)
            plain = self._plain(rows)
            if not inputs.requires_grad:
                fixed = self._fixed[call] = _Fixed(rows, plain)
        else:
            rows, plain = fixed.rows, fixed.plain
        output = self._corrected(rows, plain, fixed)
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        self._inputs.append(rows)
        self.outputs.append(output)
        return self._as_inputs(output, inputs)

    def start_pass(self, *, learning: bool, constant: bool) -> None:
        """Another pass begins. `learning`: it is on the support rows; `constant`: the rates are numbers in it."""
        self._learning, self._calls = learning, 0
        self._inputs, self.outputs = [], []
        weight, bias = self._rates
        self._rates_now = (_constant(weight), _constant(bias)) if constant else self._rates

    def step(self, gradients: Iterator[Tensor | None], *, keep_graph: bool) -> None:
        """Take one step, with the gradient at the output of each call of the pass before."""
        for call, (rows, gradient) in enumerate(zip(self._inputs, gradients, strict=False)):
            if gradient is None:
                continue
            if call in self._fixed:
                before = self._steps.get(call)
                self._steps[call] = _Steps(rows, gradient if before is None else before.gradients + gradient)
            else:
                self._steps[call, len(self._steps)] = _Steps(rows if keep_graph else rows.detach(), gradient)
        self._inputs, self.outputs = [], []

    def forget(self) -> None:
        """The inner steps are over, and with them what was computed once for all of them."""
        self._fixed = {}
        self._inputs, self.outputs = [], []

    def built(self, start: Mapping[str, Tensor], tasks: int) -> dict[str, Tensor]:
        """The adapted ones of "weight" and "bias", [T, ...], from those of the start."""
        steps = self._all_steps()
        built = {}
        for own, rate in zip(("weight", "bias"), self._rates, strict=True):
            if rate is not None:
                value = start[own].expand(tasks, *start[own].shape)
                if steps is not None:
                    moved = steps.gradients.mT @ steps.rows if own == "weight" else steps.gradients.sum(1)
                    value = value - rate * self._by_task(moved, tasks)
                built[own] = value
        return built

    @abstractmethod
    def _by_task(self, values: Tensor, tasks: int) -> Tensor:
        """[T, ...] from [B, ...]."""

    @abstractmethod
    def _as_rows(self, inputs: Tensor) -> Tensor:
        """[B, R, in] from [T, ..., in]."""

    @abstractmethod
    def _as_inputs(self, rows: Tensor, inputs: Tensor) -> Tensor:
        """[T, ..., out] from [B, R, out], in the order of the inputs."""

    @abstractmethod
    def _plain(self, rows: Tensor) -> Tensor:
        """[B, R, out] what the start answers."""

    def _all_steps(self) -> _Steps | None:
        if not self._steps:
            return None
        if len(self._steps) == 1:
            return next(iter(self._steps.values()))
        return _Steps(*(torch.cat(parts, 1) for parts in zip(*self._steps.values(), strict=True)))

    def _corrected(self, rows: Tensor, plain: Tensor, fixed: _Fixed | None = None) -> Tensor:
        steps = self._all_steps()
        if steps is None:
            return plain
        weight, bias = self._rates_now
        if weight is None:
            assert bias is not None, "a layer is here because one of the two is adapted"
            return plain - bias * steps.gradients.sum(1, keepdim=True)
        if fixed is not None and steps.rows is rows:
            if fixed.products is None:
                fixed.products = _products(rows, rows, weight, bias)
            products = fixed.products
        else:
            products = _products(rows, steps.rows, weight, bias)
        # A rate that is a number is taken along by the product; one that is learned is in `products` already.
        scale = -weight if isinstance(weight, float) else -1.0
        return torch.baddbmm(plain, products, steps.gradients, alpha=scale)


class _Fixed:
    """What is the same in every step for one call of a layer."""

    def __init__(self, rows: Tensor, plain: Tensor) -> None:
        self.rows = rows
        self.plain = plain
        self.products: Tensor | None = None


def _products(rows: Tensor, before: Tensor, weight: Rate, bias: Rate | None) -> Tensor:
    """[B, R, M] how far each row goes along with each earlier one: x X^T, and the bias's share.

    In units of the weight's rate where that is a number, else multiplied by the rates.
    """
    other = before.transpose(1, 2)
    if isinstance(weight, float):
        share = None if bias is None else bias / weight
        return torch.bmm(rows, other) if share is None else torch.baddbmm(rows.new_tensor(share), rows, other)
    products = weight * torch.bmm(rows, other)
    return products if bias is None else products + bias


def _constant(rate: Rate | None) -> Rate | None:
    return rate.detach() if isinstance(rate, Tensor) else rate


class _LinearLayer(_Layer):
    """Of ``torch.nn.Linear``. B is T."""

    def _as_rows(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1, -2)

    def _as_inputs(self, rows: Tensor, inputs: Tensor) -> Tensor:
        return rows.reshape(*inputs.shape[:-1], rows.shape[-1])

    def _plain(self, rows: Tensor) -> Tensor:
        return functional.linear(rows, self.module.weight, self.module.bias)

    def _by_task(self, values: Tensor, tasks: int) -> Tensor:
        return values


class _ParallelLayer(_Layer):
    """Of :class:`~metarec.fusion.ParallelLinear` with A copies. B is A * T, so that each copy's rows lie together."""

    def _as_rows(self, inputs: Tensor) -> Tensor:
        return inputs.movedim(-2, 0).flatten(2, -2).flatten(0, 1)

    def _as_inputs(self, rows: Tensor, inputs: Tensor) -> Tensor:
        by_copy = rows.reshape(inputs.shape[-2], *inputs.shape[:-2], rows.shape[-1])
        return by_copy.movedim(0, -2)

    def _plain(self, rows: Tensor) -> Tensor:
        weight, bias = self.module.weight, self.module.bias
        tasks = rows.shape[0] // len(weight)
        by_copy = rows.unflatten(0, (len(weight), tasks)).flatten(1, 2)
        return torch.baddbmm(bias.unsqueeze(1), by_copy, weight.mT).reshape(*rows.shape[:2], weight.shape[1])

    def _by_task(self, values: Tensor, tasks: int) -> Tensor:
        return values.unflatten(0, (values.shape[0] // max(tasks, 1), tasks)).transpose(0, 1)


_KINDS: Mapping[type[nn.Module], type[_Layer]] = {nn.Linear: _LinearLayer, ParallelLinear: _ParallelLayer}
