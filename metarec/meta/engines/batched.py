"""All tasks of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.fusion import copy_with
from metarec.fusion.losses import masked_mean
from metarec.meta._base import TASK_CHUNK, AdaptedNetwork, MetaLearner
from metarec.meta._calls import RowLosses, TaskBuffers, outputs_by_name, plain_attention
from metarec.meta._inner_loop import InnerLoop, LowRankSteps, Path, StepsAlone, each_of, fast_weights, in_parts
from metarec.meta._linear_steps import Rate
from metarec.meta._paths import MetaLoss
from metarec.meta._ridge_head import solved

__all__ = ["BatchedMetaLearner"]

MANY_ROWS = 128
"""Above this number of query rows a task's weights are built, because with kept steps each row costs more."""


class BatchedMetaLearner(MetaLearner):
    """Adapts all tasks of a batch in a few large products. Exact second order, unless `first_order`.

    It chooses between three paths. **low-rank** does not build the fast weights of wide layers: it serves networks
    whose adapted parameters belong to linear layers or to the network itself, with plain descent in the inner loop.
    **vmap** maps the network over the tasks with ``torch.func``, and serves any network whose operations ``vmap``
    supports. **one-by-one** takes one task after the other, and serves every network. Before the first use of one of
    the others, its loss and gradient are compared with those of single tasks, on two tasks and in the mode in which it
    is used. :attr:`path` and :attr:`why` give the latest choice and the reason.

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
        self._after_steps = MetaLoss()

    @property
    def path(self) -> Path | None:
        """The latest path taken, None before the first batch; one that is set is kept."""
        return self._after_steps.path

    @path.setter
    def path(self, path: Path | None) -> None:
        self._after_steps.path = path

    @property
    def why(self) -> str | None:
        """The reason against a faster path, None if there is none."""
        return self._after_steps.why

    def meta_loss(self, batch: EpisodeBatch) -> Tensor:
        if self.ridge is not None:
            self.ridge.note(batch.query)
            with plain_attention:
                losses, _ = solved(self._row_losses, self.ridge, batch.support)
                return masked_mean(losses(batch.query), batch.query.mask)
        if self.inner_steps == 0:
            with plain_attention:
                return self._unadapted_loss(batch.query)
        return self._after_steps(self._row_losses, *batch, self._loop())

    def adapt(self, support: FusionInputs) -> AdaptedNetwork:
        if self.ridge is not None:
            return self._corrected([support])
        with plain_attention:
            return self._adapt(support)

    def _adapt(self, support: FusionInputs) -> AdaptedNetwork:
        start, rates = self._start(), self._all_rates(constant=True)
        tasks = support.mask.shape[0]
        if self.inner_steps == 0:
            same = {name: start[name].expand(tasks, *start[name].shape) for name in rates}
            return AdaptedNetwork(self._row_losses, same, tasks, shared=True)
        losses: Any = self._row_losses
        if any(part.training for part in losses.network.modules()):
            losses = copy_with(losses, training=False)
        loop = self._loop()._replace(first_order=True)
        path = "one-by-one" if tasks == 1 else self._after_steps.choose(losses, support, support, loop)
        # No graph is kept beyond that of one inner gradient. Adapted parameters are copied, because the network may be
        # trained further; the others are shared.
        start = {name: value.detach().clone() if name in rates else value.detach() for name, value in start.items()}
        if path == "one-by-one":
            loop = loop._replace(start=start, rates=rates)
            alone = [
                StepsAlone(losses, loop, TaskBuffers(losses), keep_graph=False).descend(rows).fast
                for rows in each_of(support)
            ]
            fast = {name: torch.stack([task[name] for task in alone]) for name in rates}
            return AdaptedNetwork(self._row_losses, fast, tasks, one_by_one=True)
        parts = in_parts(support, TASK_CHUNK)
        if path == "low-rank":
            taken = [LowRankSteps(losses, start, rates, keep_graph=False).descend(part, loop.steps) for part in parts]
            return _LowRankNetwork(self._row_losses, taken, tasks)
        how: dict[str, Any] = {"steps": loop.steps, "keep_graph": False, "optimizer": loop.optimizer}
        built = [fast_weights(losses, start, rates, part, **how) for part in parts]
        fast = {name: torch.cat([part[name] for part in built]) for name in rates}
        return AdaptedNetwork(self._row_losses, fast, tasks)

    def _unadapted_loss(self, query: FusionInputs) -> Tensor:
        """The meta-loss where all tasks share one network: their rows go through it together, without padding.

        A list-wise loss needs each task's rows apart, with padding.
        """
        if self._row_losses.list_wise:
            return masked_mean(self._row_losses(query), query.mask)
        rows = FusionInputs(*(values[query.mask] for values in query))
        losses: Tensor = self._row_losses(rows)
        counts = query.mask.sum(-1, keepdim=True)
        of_row = counts.expand_as(query.mask)[query.mask].to(losses.dtype)
        return (losses / of_row).sum() / (counts > 0).sum().clamp(min=1)

    def _loop(self) -> InnerLoop:
        return InnerLoop(self._start(), self._all_rates(), self.inner_steps, self.first_order, self.inner_optimizer)

    def _start(self) -> dict[str, Tensor]:
        return {name: p for name, p in self._row_losses.named_parameters() if p.requires_grad}

    def _all_rates(self, *, constant: bool = False) -> dict[str, Rate]:
        rates = {name: self._rate(name) for name in self._adapted_names()}
        if not constant:
            return rates
        return {name: rate.detach() if isinstance(rate, Tensor) else rate for name, rate in rates.items()}


class _LowRankNetwork(AdaptedNetwork):
    """Networks adapted by low-rank steps, whose weights are built only on demand."""

    def __init__(self, losses: RowLosses, parts: Sequence[LowRankSteps], num_tasks: int) -> None:
        super().__init__(losses, {}, num_tasks)
        self._parts = parts

    @property
    def fast_weights(self) -> dict[str, Tensor]:
        return {name.removeprefix("network."): tensor for name, tensor in self._built().items()}

    def _built(self) -> dict[str, Tensor]:
        sizes = [min(TASK_CHUNK, self.num_tasks - first) for first in range(0, self.num_tasks, TASK_CHUNK)]
        with torch.no_grad():
            built = [part.fast_weights(size) for part, size in zip(self._parts, sizes, strict=True)]
        return {name: torch.cat([part[name] for part in built]) for name in built[0]}

    def _outputs(self, module: nn.Module, query: FusionInputs) -> Any:
        if query.mask.shape[1] > MANY_ROWS:
            self._fast = self._fast or self._built()
            return super()._outputs(module, query)
        module, rows = copy_with(module, training=False), in_parts(query, TASK_CHUNK)
        outputs: list[Any] = [outputs_by_name(part(module, own)) for part, own in zip(self._parts, rows, strict=True)]
        if isinstance(outputs[0], Tensor):
            return torch.cat(outputs)
        return {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}
