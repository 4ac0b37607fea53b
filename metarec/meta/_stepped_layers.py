"""Linear layers that answer with what inner steps have added to them, for T tasks at once. See :mod:`._low_rank`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarec.fusion import ParallelLinear

__all__ = ["KINDS", "Layer", "Rate"]

Rate = Tensor | float


class _Steps(NamedTuple):
    """X [B, M, in] and D [B, M, out] of one step or several; B is the tasks, or the copies of the layer times them."""

    rows: Tensor
    gradients: Tensor


class Layer(ABC):
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


class _LinearLayer(Layer):
    """Of ``torch.nn.Linear``. B is T."""

    def _as_rows(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1, -2)

    def _as_inputs(self, rows: Tensor, inputs: Tensor) -> Tensor:
        return rows.reshape(*inputs.shape[:-1], rows.shape[-1])

    def _plain(self, rows: Tensor) -> Tensor:
        return functional.linear(rows, self.module.weight, self.module.bias)

    def _by_task(self, values: Tensor, tasks: int) -> Tensor:
        return values


class _ParallelLayer(Layer):
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


KINDS: Mapping[type[nn.Module], type[Layer]] = {nn.Linear: _LinearLayer, ParallelLinear: _ParallelLayer}
