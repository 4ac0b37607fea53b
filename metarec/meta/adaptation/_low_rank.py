"""Fast weights of wide layers that are never built: inner steps for all tasks of a batch at once.

A step of gradient descent on a linear layer adds to its weight ``-rate * D^T X``, with X the layer's inputs on the
task's support rows and D the gradient of the task's loss at its outputs. So a task's own weight is the shared one plus
a product of thin matrices, and the layer answers rows x with ``x W^T - rate * (x X^T) D``: one large product that all
tasks share, and two thin ones. X and D are kept in place of weights. Where a gradient is to flow through the steps, D
is taken with its graph: the gradient is then exact. What a narrow layer would have to keep is more than its weight,
which is then built.

Shapes: T tasks, R rows of a task in a layer, M rows that earlier steps saw there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from metarec.fusion.losses import task_means
from metarec.meta._calls import Rows, call_with, evaluating
from metarec.meta.adaptation._inner_steps import Descent, Rate, Rates
from metarec.meta.adaptation._stepped_layers import KINDS, Layer

__all__ = ["InnerSteps", "why_not"]


def why_not(losses: Any, rates: Mapping[str, Rate]) -> str | None:
    """Why a network cannot be served this way, as far as can be seen from outside; None if nothing speaks against it.

    Adapted parameters must belong to linear layers, or to the network itself, which then must use them in a way that
    broadcasts over leading axes. That, and that a layer's weight is not used behind the layer's back, cannot be seen
    here: it must be tried. Nothing may look at the rows of other tasks; batch normalisation does so in training only,
    where a trial without dropout and the like would not notice.
    """
    modules = dict(losses.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return f"{name.removeprefix('network.')}, a {type(module).__name__}, mixes the rows of different tasks"
    for name in rates:
        owner, _, own = name.rpartition(".")
        module = modules[owner]
        if not (type(module) in KINDS or module is losses.network):
            return f"{own} of {owner.removeprefix('network.')}, a {type(module).__name__}, is adapted"
    return None


class InnerSteps:
    """The inner steps that T tasks have taken from one start.

    Args:
        losses: the network and its loss, which is its attribute ``network``.
        start: name -> every trainable parameter.
        rates: name -> the inner rate of every adapted parameter.
        keep_graph: whether a gradient is to flow through the steps; without it they are constants, all but the rates.
    """

    def __init__(
        self, losses: Any, start: Mapping[str, Tensor], rates: Mapping[str, Rate], *, keep_graph: bool
    ) -> None:
        self._losses = losses
        self._start = dict(start)
        self._rates = dict(rates)
        self._keep_graph = keep_graph
        self._descent = Descent()
        self._layers: dict[str, Layer] = {}
        in_layers = set()
        for name, module in losses.named_modules():
            weight, bias = f"{name}.weight", f"{name}.bias"
            if type(module) in KINDS and (weight in rates or bias in rates):
                self._layers[name] = KINDS[type(module)](
                    module, Rates(rates.get(weight), rates.get(bias)), self._descent
                )
                in_layers |= {weight, bias}
        # What is in no layer is small. It is built: name -> [T, 1, ...] what the steps added, for all rows of a task.
        self._added: dict[str, Tensor | None] = {name: None for name in rates if name not in in_layers}

    def descend(self, support: Rows, steps: int) -> InnerSteps:
        """Take steps on the mean loss of each task's unmasked rows, dropout off."""
        with evaluating(self._losses), torch.enable_grad():
            for _ in range(steps):
                self._step(support)
        for layer in self._layers.values():
            layer.forget()
        return self

    def __call__(self, module: nn.Module, inputs: Rows) -> Any:
        """What a module around the network says of each task's rows after the steps."""
        tasks = len(inputs.mask)
        own = {name: self._value(name, tasks) for name in self._added}
        with self._in_place(tasks, learning=False):
            return call_with(module, {**self._start, **own}, inputs)

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

    def _step(self, support: Rows) -> None:
        tasks = len(support.mask)
        parameters = self._start | {name: self._value(name, tasks) for name in self._added}
        if not self._keep_graph:
            parameters = {name: value.detach() for name, value in parameters.items()}
        own = {name: parameters[name].requires_grad_() for name in self._added}
        with self._in_place(tasks, learning=True):
            losses = call_with(self._losses, parameters, support)
        total = task_means(losses, support.mask).sum()
        points = [*(output for layer in self._layers.values() for output in layer.outputs), *own.values()]
        if not total.requires_grad or not points:
            return
        with self._descent:
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
    def _in_place(self, tasks: int, *, learning: bool) -> Iterator[None]:
        """The network's layers answer with what the steps have added to them."""
        for layer in self._layers.values():
            layer.start_pass(tasks, learning=learning, constant=learning and not self._keep_graph)
            layer.module.forward = layer
        try:
            yield
        finally:
            for layer in self._layers.values():
                del layer.module.forward
