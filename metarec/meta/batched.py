"""All tasks of a batch at once, by ``torch.func``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.func import functional_call, grad, vmap

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.fusion.losses import masked_mean
from metarec.meta._base import TASK_CHUNK, AdaptedNetwork, MetaLearner, evaluating

__all__ = ["BatchedMetaLearner"]


class BatchedMetaLearner(MetaLearner):
    """Maps the inner loop over the tasks with ``vmap``: a few large products instead of many small ones.

    It works with any network whose operations ``vmap`` knows. Exact second order, unless `first_order`.

    >>> import torch
    >>> from metarec.episodes import EpisodeBatch, FusionInputs
    >>> from metarec.fusion import MetaRecommenderFusion
    >>> rows = FusionInputs(torch.rand(2, 6, 3), torch.rand(2, 6, 3, 4), torch.rand(2, 6, 4), torch.rand(2, 6),
    ...                     torch.ones(2, 6, dtype=torch.bool))
    >>> network = MetaRecommenderFusion(num_algorithms=3, feature_dim=4, hidden_dim=8, meta_hidden_dim=8)
    >>> learner = BatchedMetaLearner(network, inner_lr=0.1, inner_steps=2)
    >>> learner.meta_loss(EpisodeBatch(support=rows, query=rows)).backward()
    >>> learner.adapt(rows).predict(rows).shape
    torch.Size([2, 6])
    """

    def meta_loss(self, batch: EpisodeBatch) -> Tensor:
        if self.inner_steps == 0:
            return self._unadapted_loss(batch.query)

        def query_losses(support: FusionInputs, query: FusionInputs) -> Tensor:
            return self._losses(self._descend(start, support, rates), query)

        start = self._start()
        rates = {name: self._rate(name) for name in self._adapted_names()}
        losses = vmap(query_losses, randomness="different")(batch.support, batch.query)
        return masked_mean(losses, batch.query.mask)

    def adapt(self, support: FusionInputs) -> AdaptedNetwork:
        # Without a gradient to ask for, there is no graph beyond that of the inner gradient itself.
        start = _detached(self._start())
        rates = _detached({name: self._rate(name) for name in self._adapted_names()})
        tasks = support.mask.shape[0]
        if self.inner_steps == 0:
            same = {name: start[name].expand(tasks, *start[name].shape) for name in rates}
            return AdaptedNetwork(self._row_losses, same, tasks, shared=True)

        def descend(support: FusionInputs) -> dict[str, Tensor]:
            parameters = self._descend(start, support, rates)
            return {name: parameters[name] for name in rates}

        fast = vmap(descend, chunk_size=TASK_CHUNK)(support)
        return AdaptedNetwork(self._row_losses, fast, tasks)

    def _unadapted_loss(self, query: FusionInputs) -> Tensor:
        """The meta-loss where all tasks share one network: their rows go through it together, without padding."""
        rows = FusionInputs(*(values[query.mask] for values in query))
        losses: Tensor = self._row_losses(rows)
        counts = query.mask.sum(-1, keepdim=True)
        of_row = counts.expand_as(query.mask)[query.mask].to(losses.dtype)
        return (losses / of_row).sum() / (counts > 0).sum().clamp(min=1)

    def _start(self) -> dict[str, Tensor]:
        return {name: p for name, p in self._row_losses.named_parameters() if p.requires_grad}

    def _losses(self, parameters: dict[str, Tensor], inputs: FusionInputs) -> Tensor:
        return functional_call(self._row_losses, parameters, (inputs,))

    def _descend(
        self, start: dict[str, Tensor], support: FusionInputs, rates: Mapping[str, Tensor | float]
    ) -> dict[str, Tensor]:
        """One task's parameters after its inner steps; those without a rate stay as they are."""

        def support_loss(adapted: dict[str, Tensor], others: dict[str, Tensor]) -> Tensor:
            return masked_mean(self._losses({**others, **adapted}, support), support.mask)

        others = {name: p for name, p in start.items() if name not in rates}
        adapted = {name: start[name] for name in rates}
        with evaluating(self._row_losses):
            for _ in range(self.inner_steps):
                point = (_detached(adapted), _detached(others)) if self.first_order else (adapted, others)
                gradients = grad(support_loss)(*point)
                adapted = {name: p - rates[name] * gradients[name] for name, p in adapted.items()}
        return {**others, **adapted}


def _detached(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.detach() if isinstance(value, Tensor) else value for name, value in values.items()}
