"""The inner steps of all tasks of a batch, by one of three paths.

**low-rank** builds no fast weights of wide layers. A step of gradient descent on a linear layer adds to its weight
``-rate * D^T X``: X is the layer's input on the task's support rows, D the gradient of the task's loss at its output.
So the output for rows x is ``x W^T - rate * (x X^T) D``: one large product that all tasks share, and two thin ones. X
and D are kept in place of weights. Where a gradient is to flow through the steps, D is taken with its graph, so that
the gradient is exact.

**vmap** maps the forward pass over the tasks' fast weights; it serves any network whose operations ``vmap`` supports.

**one-by-one** adapts a copy of the network to one task after the other; it serves every network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from metarec.errors import InputError
from metarec.fusion import copy_with
from metarec.fusion.losses import task_means
from metarec.meta._calls import Rows, TaskBuffers, each_task, inner_copy, take_inner_modes, take_modes
from metarec.meta._inner_optimizers import InnerOptimizer, descent_direction
from metarec.meta._linear_steps import LAYERS, Descent, Layer, Rate, Rates

__all__ = ["InnerLoop", "LowRankSteps", "Path", "StepsAlone", "each_of", "fast_weights", "in_parts", "task_losses"]

Path = Literal["low-rank", "vmap", "one-by-one"]

AnyRows = TypeVar("AnyRows", bound=Rows)


class InnerLoop(NamedTuple):
    """Gradient descent on support rows.

    Attributes:
        start: name -> every trainable parameter; rates: name -> the inner rate of every adapted one.
        steps: their number; first_order: whether their gradients are constants to the outer loop.
        optimizer: the rule from gradients to a step.
    """

    start: Mapping[str, Tensor]
    rates: Mapping[str, Rate]
    steps: int
    first_order: bool
    optimizer: InnerOptimizer = "sgd"


def task_losses(path: Path, losses: Any, support: Rows, query: Rows, loop: InnerLoop, buffers: TaskBuffers) -> Tensor:
    """[T] the mean loss of each task's query rows after its inner steps; 0 for a task without any.

    Args:
        losses: a module from rows to their losses [T, N], or [N] for the rows of one task; its attribute ``network`` is
            adapted.
        buffers: takes what tasks make of the module's buffers, on the path one-by-one.
    """
    if path == "one-by-one":
        tasks = zip(each_of(support), each_of(query), strict=True)
        return torch.stack([_loss_alone(losses, *task, loop, buffers) for task in tasks])
    start, rates, steps, first_order, optimizer = loop
    if path == "low-rank":
        taken = LowRankSteps(losses, start, rates, keep_graph=not first_order).descend(support, steps)
        found = taken(losses, query)
    else:
        fast = fast_weights(losses, start, rates, support, steps=steps, keep_graph=not first_order, optimizer=optimizer)
        found = each_task(losses, fast, query, randomness="different")
    return task_means(found, query.mask)


def _loss_alone(losses: Any, support: Rows, query: Rows, loop: InnerLoop, buffers: TaskBuffers) -> Tensor:
    """The mean loss of one task's query rows, a scalar."""
    if not len(query.mask):
        # Zero, with a graph.
        return next(iter(loop.start.values())).flatten()[:0].sum()
    steps = StepsAlone(losses, loop, buffers, keep_graph=not loop.first_order)
    adapted = steps.descend(support).adapted()
    take_modes(adapted, losses)
    loss: Tensor = adapted(query).mean()
    buffers.add(adapted)
    return loss


class StepsAlone:
    """The inner steps of one task. Each step works on a copy of the module, with the buffers of the copy before.

    Args:
        losses: a module from rows [N, ...] to their losses [N].
        buffers: gives the first copy its buffers. keep_graph: whether a gradient flows through the steps.

    Attributes:
        fast: name -> each adapted parameter after the steps.
    """

    def __init__(self, losses: Any, loop: InnerLoop, buffers: TaskBuffers, *, keep_graph: bool) -> None:
        self._loop = loop
        self._keep_graph = keep_graph
        # Views, because a loss may use the start itself, which is no part of a task's own parameters.
        self.fast = {name: loop.start[name].view_as(loop.start[name]) for name in loop.rates}
        self._held = self._point()
        self._buffers = buffers
        named = dict(losses.named_parameters())
        values = {id(named[name]): value for name, value in {**loop.start, **self._held}.items()}
        self._twin = copy_with(losses, values | buffers.new())
        take_inner_modes(self._twin, losses)

    def descend(self, support: Rows) -> StepsAlone:
        """Take the steps on the mean loss of these rows, which all count.

        Raises:
            InputError: the loss reaches none of the adapted parameters.
        """
        direction = descent_direction(self._loop.optimizer)
        with torch.enable_grad():
            for step in range(self._loop.steps if len(support.mask) else 0):
                if step:
                    self._hold(self._point())
                for value in self._held.values():
                    value.requires_grad_()
                gradients = _inner_gradients(self._twin(support).mean(), self._held, keep_graph=self._keep_graph)
                moves = direction(gradients)
                self.fast = {name: value - self._loop.rates[name] * moves[name] for name, value in self.fast.items()}
        return self

    def adapted(self) -> nn.Module:
        """The copy with the parameters after the steps."""
        self._hold(self.fast)
        return self._twin

    def _point(self) -> dict[str, Tensor]:
        return self.fast if self._keep_graph else {name: value.detach() for name, value in self.fast.items()}

    def _hold(self, values: dict[str, Tensor]) -> None:
        moved = {id(self._held[name]): value for name, value in values.items()}
        self._twin = copy_with(self._twin, moved | self._buffers.again(self._twin))
        self._held = values


def _inner_gradients(loss: Tensor, point: Mapping[str, Tensor], *, keep_graph: bool) -> dict[str, Tensor]:
    """name -> the gradient of the inner loss, 0 where it does not depend on a parameter."""
    found: tuple[Tensor | None, ...] = ()
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(point.values()), create_graph=keep_graph, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise InputError(
            "the loss of the support rows must depend on the adapted parameters but depends on none of them; "
            "give the model itself and not its compiled or scripted form, and a loss with a gradient"
        )
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(point.items(), found, strict=True)
    }


def in_parts(rows: AnyRows, size: int) -> Iterator[AnyRows]:
    """The tasks, `size` at a time; one part without tasks where there are none."""
    return (type(rows)(*part) for part in zip(*(tensor.split(size) for tensor in rows), strict=True))


def each_of(rows: AnyRows) -> Iterator[AnyRows]:
    """Each task's unmasked rows [N, ...]."""
    return (type(rows)(*(tensor[task][mask] for tensor in rows)) for task, mask in enumerate(rows.mask))


class LowRankSteps:
    """The inner steps that T tasks have taken from one start, on the low-rank path.

    Args:
        losses: a network and its loss; its attribute ``network`` is the network.
        start: name -> every trainable parameter.
        rates: name -> the inner rate of every adapted parameter.
        keep_graph: whether a gradient flows through the steps; without it all but the rates are constants.
    """

    def __init__(
        self, losses: Any, start: Mapping[str, Tensor], rates: Mapping[str, Rate], *, keep_graph: bool
    ) -> None:
        self._losses = inner_copy(losses)
        self._start = dict(start)
        self._rates = dict(rates)
        self._keep_graph = keep_graph
        self._descent = Descent()
        self._layers: dict[str, Layer] = {}
        in_layers = set()
        for name, module in losses.named_modules():
            weight, bias = f"{name}.weight", f"{name}.bias"
            if type(module) in LAYERS and (weight in rates or bias in rates):
                self._layers[name] = LAYERS[type(module)](Rates(rates.get(weight), rates.get(bias)), self._descent)
                in_layers |= {weight, bias}
        # Parameters outside of layers are small and are built: name -> [T, 1, ...] the sum of the steps.
        self._added: dict[str, Tensor | None] = {name: None for name in rates if name not in in_layers}

    def descend(self, support: Rows, steps: int) -> LowRankSteps:
        """Take steps on the mean loss of each task's unmasked rows, in the mode of inner steps."""
        with torch.enable_grad():
            for _ in range(steps):
                self._step(support)
        for layer in self._layers.values():
            layer.forget()
        return self

    def __call__(self, module: nn.Module, inputs: Rows) -> Any:
        """The output of a module around the network for each task's rows after the steps."""
        tasks = len(inputs.mask)
        own = {name: self._value(name, tasks) for name in self._added}
        # Copies, because other threads may call the network after the same steps.
        layers = {name: copy.copy(layer) for name, layer in self._layers.items()}
        return self._pass(module, {**self._start, **own}, inputs, layers, learning=False)

    def fast_weights(self, tasks: int) -> dict[str, Tensor]:
        """name -> [T, ...] each adapted parameter, built from the steps."""
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
        losses = self._pass(self._losses, parameters, support, self._layers, learning=True)
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

    def _pass(
        self,
        module: nn.Module,
        parameters: Mapping[str, Tensor],
        inputs: Rows,
        layers: Mapping[str, Layer],
        *,
        learning: bool,
    ) -> Any:
        """The output of a module around the network, with these layers in the place of its own."""
        named = dict(module.named_parameters())
        twin = copy_with(module, {id(named[name]): value for name, value in parameters.items()})
        own = dict(twin.named_modules())
        for name, layer in layers.items():
            constant = learning and not self._keep_graph
            layer.start_pass(own[name], len(inputs.mask), learning=learning, constant=constant)
            own[name].forward = layer
        try:
            return twin(inputs)
        finally:
            # Without the cycle of references, memory is free at once.
            for name in layers:
                del own[name].forward


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
    """name -> [T, ...] the adapted parameters after each task's inner steps.

    Only the forward pass is mapped over the tasks; the gradient is taken outside of the map. Inside of it (``vmap`` of
    ``grad``), second derivatives were measured to be wrong by several percent where weights of a layer norm or of an
    attention layer are adapted (torch 2.14).

    Args:
        start: name -> every trainable parameter. rates: name -> the inner rate of every adapted parameter.
        keep_graph: as in :class:`LowRankSteps`.
    """
    tasks = support.mask.shape[0]
    fast = {name: start[name].expand(tasks, *start[name].shape) for name in rates}
    direction = descent_direction(optimizer)
    losses = inner_copy(losses)
    with torch.enable_grad():
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
