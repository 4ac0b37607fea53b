"""The two ways of taking inner steps for all tasks of a batch at once, and the choice between them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarec.fusion.losses import task_means
from metarec.meta._calls import Rows, each_task, evaluating
from metarec.meta._inner_optimizers import InnerOptimizer
from metarec.meta.adaptation._inner_steps import Rate
from metarec.meta.adaptation._low_rank import InnerSteps, why_not
from metarec.meta.adaptation._vmapped import fast_weights

__all__ = ["InnerLoop", "MetaLoss", "Path", "in_parts"]

logger = logging.getLogger(__name__)

TASKS_AT_ONCE = 64
"""How many tasks share a graph. More cost memory and gain nothing: they no longer fit a processor's cache."""

TRIED_TASKS = 2
"""On how many tasks the low-rank path is held against the general one before it is used."""

Path = Literal["low-rank", "vmap"]


AnyRows = TypeVar("AnyRows", bound=Rows)


class InnerLoop(NamedTuple):
    """Gradient descent on support rows.

    Attributes:
        start: name -> every trainable parameter; rates: name -> the inner rate of every adapted one.
        steps: how many; first_order: whether their gradients are constants to the outer loop.
        optimizer: how a step follows from the gradients.
    """

    start: Mapping[str, Tensor]
    rates: Mapping[str, Rate]
    steps: int
    first_order: bool
    optimizer: InnerOptimizer = "sgd"

    @property
    def why_not_low_rank(self) -> str | None:
        """A step that is a sum of products of rows and gradients is plain descent; what else there is needs weights."""
        return None if self.optimizer == "sgd" else f"inner_optimizer {self.optimizer} has a state for every weight"


class MetaLoss:
    """The mean loss of each task's query rows after its inner loop, by whichever path serves; then over tasks.

    **low-rank** never builds the weights of wide layers: it serves modules whose adapted parameters belong to linear
    layers or to the module itself. **vmap** serves any module whose operations ``vmap`` knows. Before the low-rank path
    is used for the first time, its loss and gradient are compared with the general path's on two tasks; where they
    differ, the general path is taken.

    Args:
        losses: a module from rows to their losses [T, N], or [N] where one task's rows are given; its attribute
            ``network`` is what is adapted.

    Attributes:
        path: the path taken, None before the first tasks with rows on both sides.
        why: what spoke against low-rank, None if nothing did.
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
            loop: makes the inner loop, with a graph to the parameters that it was made of. A large batch is computed in
                parts, and each part's graph begins there.
        """
        self.choose(support, query, loop, parameters)
        counted = query.mask.any(-1).sum().clamp(min=1)
        if len(query.mask) <= TASKS_AT_ONCE:
            return self._task_losses(support, query, loop(), self.path).sum() / counted
        total: Tensor = _InParts.apply(self, support, query, loop, *parameters)
        return total / counted

    def choose(
        self, support: AnyRows, query: AnyRows, loop: Callable[[], InnerLoop], parameters: Sequence[Tensor]
    ) -> None:
        """Settle on a path, as soon as there is a task to try it on."""
        if self.path is not None:
            return
        tasks = (support.mask.any(-1) & query.mask.any(-1)).nonzero().flatten()[:TRIED_TASKS]
        self.why = loop().why_not_low_rank or why_not(self.losses, loop().rates)
        if self.why is None and len(tasks):
            self.why = self._tried(_some(support, tasks), _some(query, tasks), loop, parameters)
        # Without support rows there is nothing to try, and the next batch decides; the general path serves meanwhile.
        if len(tasks) or self.why:
            self.path = "low-rank" if self.why is None else "vmap"
            # Only the slower path is worth a line where people watch a study.
            level = logging.DEBUG if self.why is None else logging.INFO
            reason = f": {self.why}" if self.why else ""
            logger.log(level, "%s goes the %s path%s", type(self.losses.network).__name__, self.path, reason)

    def _task_losses(self, support: Rows, query: Rows, loop: InnerLoop, path: Path | None) -> Tensor:
        """[T] the mean loss of each task's query rows after its inner steps; 0 for a task without any."""
        start, rates, steps, first_order, optimizer = loop
        if path == "low-rank":
            taken = InnerSteps(self.losses, start, rates, keep_graph=not first_order).descend(support, steps)
            found = taken(self.losses, query)
        else:
            fast = fast_weights(
                self.losses,
                start,
                rates,
                support,
                steps=steps,
                keep_graph=not first_order,
                optimizer=optimizer,
            )
            found = each_task(self.losses, fast, query, randomness="different")
        return task_means(found, query.mask)

    def _tried(
        self, support: Rows, query: Rows, loop: Callable[[], InnerLoop], parameters: Sequence[Tensor]
    ) -> str | None:
        """What is wrong with the low-rank path on these tasks, if anything."""
        found = []
        with evaluating(self.losses), torch.enable_grad():
            for path in ("vmap", "low-rank"):
                try:
                    loss = self._task_losses(support, query, loop(), path).sum()
                except RuntimeError as error:
                    if path == "vmap":
                        raise
                    return f"its parameters do not broadcast over rows: {error}"
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                found.append(_flat([loss, *gradients], [loss, *parameters]))
        expected, actual = found
        apart = float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
        # A layer that is used in another way than it seems is wrong by far more than rounding is.
        if not apart <= torch.finfo(expected.dtype).eps ** 0.5:
            return f"its loss and gradient differ by {apart:.1e} from those of the general path"
        return None


class _InParts(torch.autograd.Function):
    """The sum of all tasks' losses, part by part: a part's graph is gone when the next one's is made.

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
                loss = losses._task_losses(*part, loop(), losses.path).sum()
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
    """These tasks. Of a single one a second is made: only then it shows if something looks at another task's rows."""
    some = [tensor[tasks] for tensor in rows]
    if len(tasks) == 1:
        some = [torch.cat([one, 0.9 * one if one.is_floating_point() else one]) for one in some]
    return type(rows)(*some)


def _flat(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    dense = [torch.zeros_like(one) if g is None else g for g, one in zip(gradients, like, strict=True)]
    return torch.cat([tensor.detach().flatten() for tensor in dense])
