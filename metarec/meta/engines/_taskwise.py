"""The shared part of the engines that take one task after the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.fusion import copy_with
from metarec.fusion.losses import masked_mean
from metarec.meta._base import AdaptedNetwork, MetaLearner
from metarec.meta._calls import RowLosses, TaskBuffers, plain_attention, take_modes
from metarec.meta._ridge_head import solved

__all__ = ["TaskwiseMetaLearner", "inner_step"]


class TaskwiseMetaLearner(MetaLearner):
    """Adapts task by task, on the task's unmasked rows. A subclass adapts one task."""

    @abstractmethod
    def _adapt_task(self, losses: RowLosses, support: FusionInputs, steps: int, *, keep_graph: bool) -> nn.Module:
        """A copy of the module that computes row losses, after `steps` inner steps on these rows.

        With `keep_graph`, its parameters have a graph to the network's.
        """

    @abstractmethod
    def _fast_parameters(self, adapted: nn.Module) -> Mapping[str, Tensor]:
        """The adapted parameters of that module, under their names in the original."""

    def meta_loss(self, batch: EpisodeBatch) -> Tensor:
        total = torch.zeros((), dtype=batch.query.targets.dtype, device=batch.query.targets.device)
        counted = 0
        losses = self._row_losses
        buffers = TaskBuffers(losses)
        if self.ridge is not None:
            self.ridge.note(batch.query)
        for support, query in zip(_tasks(batch.support), _tasks(batch.query), strict=True):
            with plain_attention:
                own: Any = copy_with(losses, buffers.new())
                if self.ridge is None:
                    own = self._adapt_task(own, support, self._steps(support), keep_graph=True)
                    take_modes(own, losses)
                    adapted = own
                else:
                    adapted, _ = solved(own, self.ridge, support)
                total = total + masked_mean(adapted(query), query.mask)
                buffers.add(own)
            counted += bool(query.mask.any())
        buffers.settle()
        return total / max(counted, 1)

    def adapt(self, support: FusionInputs) -> AdaptedNetwork:
        if self.ridge is not None:
            return self._corrected(_tasks(support))
        tasks = []
        still: Any = copy_with(self._row_losses, training=False)
        for rows in _tasks(support):
            with torch.enable_grad(), plain_attention:
                own: Any = copy_with(still, TaskBuffers(still).new())
                adapted = self._adapt_task(own, rows, self._steps(rows), keep_graph=False)
            tasks.append({name: tensor.detach() for name, tensor in self._fast_parameters(adapted).items()})
        fast = {name: torch.stack([task[name] for task in tasks]) for name in self._adapted_names()}
        return AdaptedNetwork(self._row_losses, fast, len(tasks), one_by_one=True)

    def _steps(self, support: FusionInputs) -> int:
        return self.inner_steps if len(support.mask) else 0


@contextmanager
def inner_step(library: str, step: int, support: FusionInputs) -> Iterator[None]:
    """Raise a library's error inside with the step and the number of rows in front."""
    try:
        yield
    except RuntimeError as error:
        rows = len(support.mask)
        raise RuntimeError(f"{library} failed in inner step {step} on {rows} support rows: {error}") from error


def _tasks(inputs: FusionInputs) -> list[FusionInputs]:
    """Each task's unmasked rows."""
    return [FusionInputs(*(tensor[task][rows] for tensor in inputs)) for task, rows in enumerate(inputs.mask)]
