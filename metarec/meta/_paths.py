"""The choice between the paths of the inner loop, and the meta-loss of any number of tasks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metarec.errors import InputError
from metarec.fusion import copy_with
from metarec.meta._calls import Rows, TaskBuffers, plain_attention
from metarec.meta._inner_loop import AnyRows, InnerLoop, Path, in_parts, task_losses
from metarec.meta._linear_steps import LAYERS

__all__ = ["Choice", "MetaLoss"]

logger = logging.getLogger(__name__)

TASKS_AT_ONCE = 64
"""How many tasks share a graph. More cost memory and gain nothing: they no longer fit a processor's cache."""

TRIED_TASKS = 2
"""On how many tasks the paths are compared before one is used."""

ELEMENTWISE_DROPOUT = (nn.Dropout, nn.AlphaDropout)
"""Layers which are off in a comparison of paths, because they cannot tell one row from another."""


class Choice(NamedTuple):
    """A path, and the reason against a faster one, None if there is none."""

    path: Path
    why: str | None


class MetaLoss:
    """The mean loss of each task's query rows after its inner loop, then over tasks.

    The low-rank path serves modules whose adapted parameters belong to linear layers or to the module itself, and the
    vmap path those whose operations ``vmap`` supports. Before its first use, a path's loss and gradient are compared
    with those of one task after the other, on two tasks and in the mode in which it is used. The choice holds as long
    as the parts of the module, their modes and the loss are the same.

    Attributes:
        path: the latest path taken, None before the first tasks with rows on both sides. One that is set is kept.
        why: the reason against a faster one, None if there is none.
    """

    def __init__(self) -> None:
        self._set: Path | None = None
        self._latest: Choice | None = None
        self._structure: tuple[Any, ...] = ()
        self._found: dict[tuple[Any, ...], Choice] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What was tried belongs to this module and this loss, and the loss may be a function that is not pickled."""
        return vars(MetaLoss()) | {"_set": self._set}

    @property
    def path(self) -> Path | None:
        return self._set or (None if self._latest is None else self._latest.path)

    @path.setter
    def path(self, path: Path | None) -> None:
        self._set = path

    @property
    def why(self) -> str | None:
        return None if self._latest is None else self._latest.why

    def __call__(self, losses: Any, support: AnyRows, query: AnyRows, loop: InnerLoop) -> Tensor:
        """The loss, a scalar, 0 where no task has query rows. Its graph reaches everything behind rows and loss.

        Args:
            losses: a module from rows to their losses [T, N], or [N] for the rows of one task; its attribute
                ``network`` is adapted.
        """
        if not torch.is_grad_enabled():
            # The loss is the same, and no graph is needed.
            loop = loop._replace(first_order=True)
        with plain_attention:
            path = self.choose(losses, support, query, loop)
            buffers = TaskBuffers(losses)
            if len(query.mask) <= TASKS_AT_ONCE:
                total = task_losses(path, losses, support, query, loop, buffers).sum()
            else:
                total = _sum_in_parts(path, losses, support, query, loop, buffers)
            buffers.settle()
            return total / query.mask.any(-1).sum().clamp(min=1)

    def choose(self, losses: Any, support: Rows, query: Rows, loop: InnerLoop) -> Path:
        """The path for these tasks and the current modes of the module."""
        if self._set is not None:
            return self._set
        structure = _structure(losses)
        if structure != self._structure:
            self._structure, self._found = structure, {}
        several = len(query.mask) > 1
        padded = not bool(support.mask.all() and query.mask.all())
        modes = tuple(module.training for module in losses.modules())
        use = (several, padded, modes, tuple(loop.rates), min(loop.steps, 2), loop.first_order, loop.optimizer)
        choice = self._found.get(use)
        if choice is None:
            choice, certain = _choice(losses, support, query, loop)
            if not certain:
                return choice.path
            self._found[use] = choice
            # Only the slower paths are worth a line in the log of a study.
            level = logging.DEBUG if choice.why is None else logging.INFO
            reason = f": {choice.why}" if choice.why else ""
            logger.log(level, "%s takes the %s path%s", type(losses.network).__name__, choice.path, reason)
        self._latest = choice
        return choice.path


def _structure(losses: Any) -> tuple[Any, ...]:
    """What a choice depends on beside the use: the loss, the parts of the module, and which parameters are trained."""
    network: nn.Module = losses.network
    trained = tuple((name, own.requires_grad) for name, own in network.named_parameters())
    return losses.loss, trained, tuple(network.modules())


def _choice(losses: Any, support: Rows, query: Rows, loop: InnerLoop) -> tuple[Choice, bool]:
    """The path, and whether it is certain: the next batch decides where there is nothing to compare."""
    tasks = _tried(support, query)
    if not bool((support.mask[tasks].any(-1) & query.mask[tasks].any(-1)).any()):
        reason = _why_not_low_rank(losses, loop)
        return Choice("vmap", reason), False
    # The rows' own graph is not for the trial.
    rows = [type(side)(*(tensor.detach()[tasks] for tensor in side)) for side in (support, query)]
    training = any(part.training for part in losses.network.modules())
    random = torch.random.fork_rng(devices=range(torch.cuda.device_count())) if training else nullcontext()
    with random, torch.enable_grad():
        return _compared(losses, rows[0], rows[1], loop)


def _compared(losses: Any, support: Rows, query: Rows, loop: InnerLoop) -> tuple[Choice, bool]:
    # Whether rows mix does not depend on the optimizer, and that of Adam makes much of the smallest difference.
    plain = loop._replace(optimizer="sgd")
    expected, buffers = _expected(losses, support, query, plain)
    if not bool(expected.isfinite().all()):
        return Choice("one-by-one", None), False
    if buffers.changed:
        changed = buffers.changed[0].removeprefix("network.")
        return Choice("one-by-one", f"{changed} changes when the network is called"), True
    why = _why_not_low_rank(losses, loop) or _why_not("low-rank", expected, losses, support, query, plain)
    if why is None:
        return Choice("low-rank", None), True
    why_not_vmap = _why_not("vmap", expected, losses, support, query, plain)
    if why_not_vmap is None:
        return Choice("vmap", why), True
    again, _ = _outcome("one-by-one", losses, support, query, plain)
    if _apart(again, expected) is not None:
        # Random numbers: the paths can be compared only where they are off. Mapped tasks do not mix.
        still = copy_with(losses, training=False)
        expected, _ = _outcome("one-by-one", still, support, query, plain)
        why_not_vmap = _why_not("vmap", expected, still, support, query, plain)
        if why_not_vmap is None:
            return Choice("vmap", "it draws random numbers in training, and not in a layer of torch's for that"), True
    return Choice("one-by-one", f"{why}; vmap: {why_not_vmap}"), True


def _expected(losses: Any, support: Rows, query: Rows, loop: InnerLoop) -> tuple[Tensor, TaskBuffers]:
    """The outcome of one task after the other.

    Raises:
        InputError: it needs a second derivative which torch does not have.
    """
    try:
        return _outcome("one-by-one", losses, support, query, loop)
    except RuntimeError as error:
        if not loop.first_order:
            # What is wrong for another reason raises its error here, too.
            _outcome("one-by-one", losses, support, query, loop._replace(first_order=True))
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"the network has no second derivative ({reason}); use first_order=True") from error
        raise


def _tried(support: Rows, query: Rows) -> Tensor:
    """The tasks to compare the paths on: with rows on both sides, and among these such with padding."""
    full = support.mask.any(-1) & query.mask.any(-1)
    padded = ~(support.mask.all(-1) & query.mask.all(-1))
    return (2 * full.int() + padded.int()).argsort(descending=True, stable=True)[:TRIED_TASKS]


def _outcome(path: Path, losses: Any, support: Rows, query: Rows, loop: InnerLoop) -> tuple[Tensor, TaskBuffers]:
    """The loss of some tasks and its gradients as one vector, and what became of buffers; the module stays as it is."""
    twin: Any = copy_with(losses, TaskBuffers(losses).new())
    for part in twin.modules():
        if type(part) in ELEMENTWISE_DROPOUT:
            part.training = False
    buffers = TaskBuffers(twin)
    loss = task_losses(path, twin, support, query, loop, buffers).sum()
    behind = [value for value in (*loop.start.values(), *loop.rates.values()) if isinstance(value, Tensor)]
    points = [value for value in behind if value.requires_grad and loss.requires_grad]
    found = torch.autograd.grad(loss, points, allow_unused=True, retain_graph=True) if points else []
    gradients = [torch.zeros_like(one) if own is None else own for own, one in zip(found, points, strict=True)]
    return torch.cat([tensor.detach().flatten() for tensor in (loss, *gradients)]), buffers


def _why_not(path: Path, expected: Tensor, losses: Any, support: Rows, query: Rows, loop: InnerLoop) -> str | None:
    """The reason why a path is wrong on these tasks; None if it is right."""
    try:
        actual, _ = _outcome(path, losses, support, query, loop)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        return f"its parameters do not broadcast over rows: {reason}" if path == "low-rank" else reason
    apart = _apart(actual, expected)
    return None if apart is None else f"its loss and gradient differ by {apart:.1e} from those of single tasks"


def _apart(actual: Tensor, expected: Tensor) -> float | None:
    """How far apart they are, relative to the largest; None if no more than by rounding."""
    apart = float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    # A layer that the network uses in an unexpected way is wrong by far more than rounding.
    return None if apart <= torch.finfo(expected.dtype).eps ** 0.5 else apart


def _why_not_low_rank(losses: Any, loop: InnerLoop) -> str | None:
    """The reason why the optimizer or the modules rule out the low-rank path; None if they do not.

    Adapted parameters must belong to linear layers, or to the network itself, which must use them in a way that
    broadcasts over leading axes. Only a trial shows that, and that a layer's weight is used by its layer alone, and
    that rows of different tasks do not mix.
    """
    if loop.optimizer != "sgd":
        # Only a step of plain descent is a sum of products of rows and gradients.
        return f"inner_optimizer {loop.optimizer} has a state for every weight"
    modules = dict(losses.named_modules())
    for name in loop.rates:
        owner, _, own = name.rpartition(".")
        module = modules[owner]
        # A weight that is computed from others, as by weight_norm or prune, has its parameters beside it.
        linear = type(module) in LAYERS and own in ("weight", "bias")
        if not (linear or module is losses.network):
            return f"{own} of {owner.removeprefix('network.')}, a {type(module).__name__}, is adapted"
    return None


def _sum_in_parts(
    path: Path, losses: Any, support: AnyRows, query: AnyRows, loop: InnerLoop, buffers: TaskBuffers
) -> Tensor:
    """The sum of all tasks' losses, part by part: a part's graph is freed before the next one's is built.

    The gradient is computed together with the loss, so that memory does not grow with the number of tasks.
    """
    cut = _Cut()
    if torch.is_grad_enabled():
        support, query = (type(side)(*map(cut, side)) for side in (support, query))
        start, rates = ({name: cut(value) for name, value in own.items()} for own in (loop.start, loop.rates))
        loop = loop._replace(start=start, rates=rates)
    total: Tensor | None = None
    for part in zip(in_parts(support, TASKS_AT_ONCE), in_parts(query, TASKS_AT_ONCE), strict=True):
        loss = task_losses(path, losses, *part, loop, buffers).sum()
        if loss.requires_grad:
            cut.add_gradients(loss)
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None, "there is a part even where there are no tasks"
    return cut.joined(total)


class _Cut:
    """A graph in two parts: one that is used up at once, piece by piece, and the one behind it, which remains."""

    def __init__(self) -> None:
        self._behind: dict[int, Tensor] = {}
        self._leaves: dict[int, Tensor] = {}
        self._gradients: dict[int, Tensor] = {}

    def __call__(self, value: Any) -> Any:
        """A leaf in the place of a tensor with a graph behind it; leaves and other values as they are."""
        if not isinstance(value, Tensor) or value.is_leaf:
            return value
        leaf = value.detach().requires_grad_()
        self._behind[id(leaf)], self._leaves[id(leaf)] = value, leaf
        return leaf

    def add_gradients(self, loss: Tensor) -> None:
        """Add a piece's gradients for all leaves, also those that a loss holds without anybody else knowing."""
        leaves = list(_leaves(loss))
        # Pieces may share a graph, such as that of a number which the loss has computed once.
        for leaf, gradient in zip(leaves, torch.autograd.grad(loss, leaves, retain_graph=True), strict=True):
            place = id(leaf)
            self._leaves[place] = leaf
            self._gradients[place] = gradient if place not in self._gradients else self._gradients[place] + gradient

    def joined(self, total: Tensor) -> Tensor:
        """The sum of the pieces' losses with its gradients."""
        points = [self._behind.get(place, self._leaves[place]) for place in self._gradients]
        joined: Tensor = _Known.apply(total, list(self._gradients.values()), *points)
        return joined


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """The leaves of a tensor's graph, each once."""
    waiting = [loss.grad_fn]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            yield node.variable
        following = {after for after, _ in node.next_functions} - seen
        seen |= following
        waiting.extend(following)


class _Known(torch.autograd.Function):
    """A number whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *points: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, *(gradient * own for own in ctx.gradients)
