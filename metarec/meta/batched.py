"""All tasks of a batch at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.fusion.losses import task_means
from metarec.meta._base import TASK_CHUNK, AdaptedNetwork, MetaLearner, RowLosses, each_task, evaluating, said
from metarec.meta._low_rank import InnerSteps, why_not
from metarec.meta._vmapped import fast_weights

__all__ = ["BatchedMetaLearner"]

logger = logging.getLogger(__name__)

TASKS_AT_ONCE = 64
"""How many tasks share a graph. More cost memory and gain nothing: they no longer fit a processor's cache."""

TRIED_TASKS = 2
"""On how many tasks the low-rank path is held against the general one before it is used."""

Path = Literal["low-rank", "vmap"]


class BatchedMetaLearner(MetaLearner):
    """A few large products instead of many small ones. Exact second order, unless `first_order`.

    There are two paths, and the learner chooses by itself. **low-rank** never builds fast weights
    (:mod:`metarec.meta._low_rank`): it serves networks whose adapted parameters belong to linear layers or to the
    network itself. **vmap** maps the inner loop over the tasks with ``torch.func``, and serves any network whose
    operations ``vmap`` knows. Before the low-rank path is used for the first time, its loss and gradient are held
    against the general path's on two tasks; where they differ, the general path is taken.

    Attributes:
        path: the path taken, None before the first batch; why: what spoke against low-rank, None if nothing did.

    >>> import torch
    >>> from metarec.episodes import EpisodeBatch, FusionInputs
    >>> from metarec.fusion import MetaRecommenderFusion
    >>> rows = FusionInputs(torch.rand(2, 6, 3), torch.rand(2, 6, 3, 4), torch.rand(2, 6, 4), torch.rand(2, 6),
    ...                     torch.ones(2, 6, dtype=torch.bool))
    >>> network = MetaRecommenderFusion(num_algorithms=3, feature_dim=4, hidden_dim=8, meta_hidden_dim=8)
    >>> learner = BatchedMetaLearner(network, inner_lr=0.1, inner_steps=2)
    >>> learner.meta_loss(EpisodeBatch(support=rows, query=rows)).backward()
    >>> learner.path
    'low-rank'
    >>> learner.adapt(rows).predict(rows).shape
    torch.Size([2, 6])
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.path: Path | None = None
        self.why: str | None = None

    def meta_loss(self, batch: EpisodeBatch) -> Tensor:
        if self.inner_steps == 0:
            return self._unadapted_loss(batch.query)
        self._choose(batch)
        counted = batch.query.mask.any(-1).sum().clamp(min=1)
        if batch.num_tasks <= TASKS_AT_ONCE:
            return self._task_losses(batch).sum() / counted
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        total: Tensor = _InParts.apply(self, batch, *parameters)
        return total / counted

    def adapt(self, support: FusionInputs) -> AdaptedNetwork:
        start, rates = self._start(), self._all_rates(constant=True)
        tasks = support.mask.shape[0]
        if self.inner_steps == 0:
            same = {name: start[name].expand(tasks, *start[name].shape) for name in rates}
            return AdaptedNetwork(self._row_losses, same, tasks, shared=True)
        self._choose(EpisodeBatch(support, support))
        # Without a gradient to ask for, there is no graph beyond that of one inner gradient. A copy, for the network
        # may be trained on.
        start = {name: value.detach().clone() for name, value in start.items()}
        parts = _parts(support, TASK_CHUNK)
        if self.path == "low-rank":
            steps = [InnerSteps(self._row_losses, start, rates, keep_graph=False) for _ in range(0, tasks, TASK_CHUNK)]
            taken = [own.descend(part, self.inner_steps) for own, part in zip(steps, parts, strict=True)]
            return _LowRankNetwork(self._row_losses, taken, tasks)
        built = [
            fast_weights(self._row_losses, start, rates, part, steps=self.inner_steps, keep_graph=False)
            for part in parts
        ]
        fast = {name: torch.cat([part[name] for part in built]) for name in rates}
        return AdaptedNetwork(self._row_losses, fast, tasks)

    def _task_losses(self, batch: EpisodeBatch, path: Path | None = None) -> Tensor:
        """[T] the mean loss of each task's query rows after its inner steps; 0 for a task without any."""
        start, rates = self._start(), self._all_rates()
        if (path or self.path) == "low-rank":
            steps = InnerSteps(self._row_losses, start, rates, keep_graph=not self.first_order)
            losses = steps.descend(batch.support, self.inner_steps)(self._row_losses, batch.query)
        else:
            fast = fast_weights(
                self._row_losses, start, rates, batch.support, steps=self.inner_steps, keep_graph=not self.first_order
            )
            losses = each_task(self._row_losses, fast, batch.query, randomness="different")
        return task_means(losses, batch.query.mask)

    def _unadapted_loss(self, query: FusionInputs) -> Tensor:
        """The meta-loss where all tasks share one network: their rows go through it together, without padding."""
        rows = FusionInputs(*(values[query.mask] for values in query))
        losses: Tensor = self._row_losses(rows)
        counts = query.mask.sum(-1, keepdim=True)
        of_row = counts.expand_as(query.mask)[query.mask].to(losses.dtype)
        return (losses / of_row).sum() / (counts > 0).sum().clamp(min=1)

    def _choose(self, batch: EpisodeBatch) -> None:
        """Settle on a path, as soon as there is a task to try it on."""
        if self.path is not None:
            return
        tasks = (batch.support.mask.any(-1) & batch.query.mask.any(-1)).nonzero().flatten()[:TRIED_TASKS]
        self.why = why_not(self._row_losses, self._all_rates())
        if self.why is None and len(tasks):
            self.why = self._tried(batch.select(tasks))
        # Without support rows there is nothing to try, and the next batch decides; the general path serves meanwhile.
        path: Path = "low-rank" if self.why is None else "vmap"
        if len(tasks) or self.why:
            # Only the slower path is worth a line where people watch a study.
            level = logging.DEBUG if self.why is None else logging.INFO
            reason = f": {self.why}" if self.why else ""
            logger.log(level, "%s goes the %s path%s", type(self.network).__name__, path, reason)
            self.path = path

    def _tried(self, batch: EpisodeBatch) -> str | None:
        """What is wrong with the low-rank path on these tasks, if anything."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        found = []
        with evaluating(self), torch.enable_grad():
            for path in ("vmap", "low-rank"):
                try:
                    loss = self._task_losses(batch, path).sum()
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

    def _start(self) -> dict[str, Tensor]:
        return {name: p for name, p in self._row_losses.named_parameters() if p.requires_grad}

    def _all_rates(self, *, constant: bool = False) -> dict[str, Tensor | float]:
        rates = {name: self._rate(name) for name in self._adapted_names()}
        if not constant:
            return rates
        return {name: rate.detach() if isinstance(rate, Tensor) else rate for name, rate in rates.items()}


class _LowRankNetwork(AdaptedNetwork):
    """Networks adapted by steps that were never built into weights."""

    def __init__(self, losses: RowLosses, parts: Sequence[InnerSteps], num_tasks: int) -> None:
        super().__init__(losses, {}, num_tasks)
        self._parts = parts

    @property
    def fast_weights(self) -> dict[str, Tensor]:
        sizes = [min(TASK_CHUNK, self.num_tasks - first) for first in range(0, self.num_tasks, TASK_CHUNK)]
        with torch.no_grad():
            built = [part.fast_weights(size) for part, size in zip(self._parts, sizes, strict=True)]
        return {name.removeprefix("network."): torch.cat([part[name] for part in built]) for name in built[0]}

    def _answer(self, module: nn.Module, query: FusionInputs) -> Any:
        rows = _parts(query, TASK_CHUNK)
        answers: list[Any] = [said(part(module, own)) for part, own in zip(self._parts, rows, strict=True)]
        if isinstance(answers[0], Tensor):
            return torch.cat(answers)
        return {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}


class _InParts(torch.autograd.Function):
    """The sum of all tasks' losses, part by part: a part's graph is gone when the next one's is made.

    The gradient is computed together with the loss, so that memory does not grow with the number of tasks.
    """

    @staticmethod
    def forward(ctx: Any, learner: BatchedMetaLearner, batch: EpisodeBatch, *parameters: Tensor) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        sums: list[Tensor | None] = [None] * len(parameters)
        total = torch.zeros((), dtype=batch.query.targets.dtype, device=batch.query.targets.device)
        for support, query in zip(*(_parts(side, TASKS_AT_ONCE) for side in batch), strict=True):
            with torch.set_grad_enabled(wanted):
                loss = learner._task_losses(EpisodeBatch(support, query)).sum()
            total += loss.detach()
            if wanted and loss.requires_grad:
                for place, gradient in enumerate(torch.autograd.grad(loss, parameters, allow_unused=True)):
                    if gradient is not None:
                        before = sums[place]
                        sums[place] = gradient if before is None else before.add_(gradient)
        ctx.sums = sums
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, *(None if own is None else gradient * own for own in ctx.sums)


def _parts(inputs: FusionInputs, size: int) -> Iterator[FusionInputs]:
    """The tasks, `size` at a time; one part without tasks where there are none."""
    return (FusionInputs(*part) for part in zip(*(tensor.split(size) for tensor in inputs), strict=True))


def _flat(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    dense = [torch.zeros_like(one) if g is None else g for g, one in zip(gradients, like, strict=True)]
    return torch.cat([tensor.detach().flatten() for tensor in dense])
