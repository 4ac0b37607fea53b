"""All tasks of a batch at once, by ``torch.func``."""

from __future__ import annotations

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
        def query_losses(support: FusionInputs, query: FusionInputs) -> Tensor:
            return self._losses(self._descend(self._start(), support), query)

        losses = vmap(query_losses, randomness="different")(batch.support, batch.query)
        return masked_mean(losses, batch.query.mask)

    def adapt(self, support: FusionInputs) -> AdaptedNetwork:
        start = {name: parameter.detach() for name, parameter in self._start().items()}
        tasks = support.mask.shape[0]

        def descend(support: FusionInputs) -> dict[str, Tensor]:
            return self._descend(start, support)

        if self.inner_steps == 0:
            fast = {name: parameter.expand(tasks, *parameter.shape) for name, parameter in start.items()}
        else:
            fast = vmap(descend, chunk_size=TASK_CHUNK)(support)
        return AdaptedNetwork(self._row_losses, fast, tasks)

    def _start(self) -> dict[str, Tensor]:
        return {name: p for name, p in self._row_losses.named_parameters() if p.requires_grad}

    def _losses(self, parameters: dict[str, Tensor], inputs: FusionInputs) -> Tensor:
        return functional_call(self._row_losses, parameters, (inputs,))

    def _descend(self, parameters: dict[str, Tensor], support: FusionInputs) -> dict[str, Tensor]:
        """One task's parameters after its inner steps."""

        def support_loss(parameters: dict[str, Tensor]) -> Tensor:
            return masked_mean(self._losses(parameters, support), support.mask)

        with evaluating(self._row_losses):
            for _ in range(self.inner_steps):
                point = {name: p.detach() for name, p in parameters.items()} if self.first_order else parameters
                gradients = grad(support_loss)(point)
                parameters = {name: p - self.inner_lr * gradients[name] for name, p in parameters.items()}
        return parameters
