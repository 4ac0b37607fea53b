"""Inner loops for all tasks of a batch at once, by one of two paths, and the choice between them.

**vmap** maps the forward pass over the tasks' fast weights; it serves any network whose operations ``vmap`` supports.

**low-rank** builds no fast weights of wide layers. A step of gradient descent on a linear layer adds to its weight
``-rate * D^T X``: X is the layer's input on the task's support rows, D the gradient of the task's loss at its output.
So the output for rows x is ``x W^T - rate * (x X^T) D``: one large product that all tasks share, and two thin ones. X
and D are kept in place of weights. Where a gradient is to flow through the steps, D is taken with its graph, so that
the gradient is exact.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metarec.fusion import copy_with
from metarec.fusion.losses import task_means
from metarec.meta._calls import Rows, each_task, plain_attention
from metarec.meta._inner_optimizers import InnerOptimizer, descent_direction
from metarec.meta._linear_steps import LAYERS, Descent, Layer, Rate, Rates

__all__ = ["InnerLoop", "LowRankSteps", "MetaLoss", "Path", "fast_weights", "in_parts"]

logger = logging.getLogger(__name__)

TASKS_AT_ONCE = 64
"""How many tasks share a graph. More cost memory and gain nothing: they no longer fit a processor's cache."""

TRIED_TASKS = 2
"""On how many tasks the low-rank path is compared with the general one before it is used."""

Path = Literal["low-rank", "vmap"]

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

    @property
    def why_not_low_rank(self) -> str | None:
        """Only a step of plain descent is a sum of products of rows and gradients; other optimizers need weights."""
        return None if self.optimizer == "sgd" else f"inner_optimizer {self.optimizer} has a state for every weight"


class MetaLoss:
    """The mean loss of each task's query rows after its inner loop, then over tasks.

    The low-rank path serves modules whose adapted parameters belong to linear layers or to the module itself. Before
    its first use, its loss and gradient are compared with the vmap path's on two tasks; where they differ, the vmap
    path is taken.

    Args:
        losses: a module from rows to their losses [T, N], or [N] for the rows of one task; its attribute ``network`` is
            adapted.

    Attributes:
        path: the path taken, None before the first tasks with rows on both sides.
        why: the reason against low-rank, None if there is none.
    """

    def __init__(self, losses: Any) -> None:
        self.losses = losses
        self.path: Path | None = None
        self.why: str | None = None

    def __call__(
        self, support: AnyRows, query: AnyRows, loop: Callable[[], InnerLoop], parameters: Sequence[Tensor]
    ) -> Tensor:
        """The loss, a scalar, 0 where no task has query rows. Its graph reaches `parameters`.

        Args:
            loop: makes the inner loop, with a graph to `parameters`. A large batch is computed in parts, and each
                part's graph begins there.
        """
        with plain_attention:
            return self._mean(support, query, loop, parameters)

    def _mean(
        self, support: AnyRows, query: AnyRows, loop: Callable[[], InnerLoop], parameters: Sequence[Tensor]
    ) -> Tensor:
        self.choose(support, query, loop, parameters)
        counted = query.mask.any(-1).sum().clamp(min=1)
        if len(query.mask) <= TASKS_AT_ONCE:
            return _task_losses(self.losses, support, query, loop(), self.path).sum() / counted
        total: Tensor = _InParts.apply(self, support, query, loop, *parameters)
        return total / counted

    def choose(
        self, support: AnyRows, query: AnyRows, loop: Callable[[], InnerLoop], parameters: Sequence[Tensor]
    ) -> None:
        """Choose the path, as soon as there is a task to try it on."""
        if self.path is not None:
            return
        tasks = (support.mask.any(-1) & query.mask.any(-1)).nonzero().flatten()[:TRIED_TASKS]
        self.why = loop().why_not_low_rank or _why_not_low_rank(self.losses, loop().rates)
        if self.why is None and len(tasks):
            self.why = self._tried(_some(support, tasks), _some(query, tasks), loop, parameters)
        # Without support rows there is nothing to try, and the next batch decides; the general path serves meanwhile.
        if len(tasks) or self.why:
            self.path = "low-rank" if self.why is None else "vmap"
            # Only the slower path is worth a line in the log of a study.
            level = logging.DEBUG if self.why is None else logging.INFO
            reason = f": {self.why}" if self.why else ""
            logger.log(level, "%s takes the %s path%s", type(self.losses.network).__name__, self.path, reason)

    def _tried(
        self, support: Rows, query: Rows, loop: Callable[[], InnerLoop], parameters: Sequence[Tensor]
    ) -> str | None:
        """The reason why the low-rank path is wrong on these tasks; None if it is right."""
        found = []
        losses = copy_with(self.losses, training=False)
        with torch.enable_grad():
            for path in ("vmap", "low-rank"):
                try:
                    loss = _task_losses(losses, support, query, loop(), path).sum()
                except RuntimeError as error:
                    if path == "vmap":
                        raise
                    return f"its parameters do not broadcast over rows: {error}"
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                found.append(_flat([loss, *gradients], [loss, *parameters]))
        expected, actual = found
        apart = float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
        # A layer that the network uses in an unexpected way is wrong by far more than rounding.
        if not apart <= torch.finfo(expected.dtype).eps ** 0.5:
            return f"its loss and gradient differ by {apart:.1e} from those of the general path"
        return None


def _task_losses(losses: Any, support: Rows, query: Rows, loop: InnerLoop, path: Path | None) -> Tensor:
    """[T] the mean loss of each task's query rows after its inner steps; 0 for a task without any."""
    start, rates, steps, first_order, optimizer = loop
    if path == "low-rank":
        taken = LowRankSteps(losses, start, rates, keep_graph=not first_order).descend(support, steps)
        found = taken(losses, query)
    else:
        fast = fast_weights(losses, start, rates, support, steps=steps, keep_graph=not first_order, optimizer=optimizer)
        found = each_task(losses, fast, query, randomness="different")
    return task_means(found, query.mask)


class _InParts(torch.autograd.Function):
    """The sum of all tasks' losses, part by part: a part's graph is freed before the next one's is built.

    The gradient is computed together with the loss, so that memory does not grow with the number of tasks.
    """

    @staticmethod
    def forward(
        ctx: Any, losses: MetaLoss, support: Any, query: Any, loop: Callable[[], InnerLoop], *parameters: Tensor
    ) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        sums: list[Tensor | None] = [None] * len(parameters)
        totals = []
        for part in zip(in_parts(support, TASKS_AT_ONCE), in_parts(query, TASKS_AT_ONCE), strict=True):
            with torch.set_grad_enabled(wanted):
                loss = _task_losses(losses.losses, *part, loop(), losses.path).sum()
            totals.append(loss.detach())
            if wanted and loss.requires_grad:
                for place, gradient in enumerate(torch.autograd.grad(loss, parameters, allow_unused=True)):
                    if gradient is not None:
                        before = sums[place]
                        sums[place] = gradient if before is None else before.add_(gradient)
        ctx.sums = sums
        return torch.stack(totals).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, None, None, *(None if own is None else gradient * own for own in ctx.sums)


def in_parts(rows: AnyRows, size: int) -> Iterator[AnyRows]:
    """The tasks, `size` at a time; one part without tasks where there are none."""
    return (type(rows)(*part) for part in zip(*(tensor.split(size) for tensor in rows), strict=True))


def _some(rows: AnyRows, tasks: Tensor) -> AnyRows:
    """These tasks. A single one gets a changed copy as a second task, to show whether rows of different tasks mix."""
    some = [tensor[tasks] for tensor in rows]
    if len(tasks) == 1:
        some = [torch.cat([one, 0.9 * one if one.is_floating_point() else one]) for one in some]
    return type(rows)(*some)


def _flat(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    dense = [torch.zeros_like(one) if g is None else g for g, one in zip(gradients, like, strict=True)]
    return torch.cat([tensor.detach().flatten() for tensor in dense])


def _why_not_low_rank(losses: Any, rates: Mapping[str, Rate]) -> str | None:
    """The reason why the modules rule out the low-rank path; None if they do not.

    Adapted parameters must belong to linear layers, or to the network itself, which must use them in a way that
    broadcasts over leading axes. Only a trial shows that, and that a layer's weight is used by its layer alone. Rows of
    different tasks must not mix; batch normalisation mixes them in training only, where a trial in eval mode does not
    notice.
    """
    modules = dict(losses.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return f"{name.removeprefix('network.')}, a {type(module).__name__}, mixes the rows of different tasks"
    for name in rates:
        owner, _, own = name.rpartition(".")
        module = modules[owner]
        if not (type(module) in LAYERS or module is losses.network):
            return f"{own} of {owner.removeprefix('network.')}, a {type(module).__name__}, is adapted"
    return None


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
        self._losses = copy_with(losses, training=False)
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
        """Take steps on the mean loss of each task's unmasked rows, dropout off."""
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
    """name -> [T, ...] the adapted parameters after each task's inner steps, dropout off.

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
    losses = copy_with(losses, training=False)
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
