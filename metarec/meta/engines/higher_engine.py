"""Task by task with higher's differentiable optimizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.errors import InputError
from metarec.fusion.losses import masked_mean
from metarec.meta._base import AdaptedNetwork
from metarec.meta._calls import RowLosses, take_inner_modes
from metarec.meta._inner_optimizers import ADAM_BETAS, ADAM_EPSILON, MOMENTUM
from metarec.meta.engines._taskwise import TaskwiseMetaLearner, inner_step

__all__ = ["HigherMetaLearner"]

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=MOMENTUM),
    "adam": partial(torch.optim.Adam, betas=ADAM_BETAS, eps=ADAM_EPSILON),
}
"""The optimizers that higher makes differentiable."""


class HigherMetaLearner(TaskwiseMetaLearner):
    """MAML as higher (Grefenstette et al. 2019) computes it: ``innerloop_ctx`` around one of torch's optimizers.

    Raises:
        ImportError: higher is not installed.
        InputError: as for every engine; or, when it is used, the network has hooks.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        try:
            import higher
        except ImportError as error:
            raise ImportError(
                f"the higher engine needs higher, which cannot be imported ({error}); install it with "
                "pip install higher==0.2.1, or use the engine batched"
            ) from error
        self._innerloop = higher.innerloop_ctx
        self._make_optimizer = OPTIMIZERS[self.inner_optimizer]

    def meta_loss(self, batch: EpisodeBatch) -> Tensor:
        self._check_hooks()
        return super().meta_loss(batch)

    def adapt(self, support: FusionInputs) -> AdaptedNetwork:
        self._check_hooks()
        return super().adapt(support)

    def _check_hooks(self) -> None:
        """higher does not call hooks, and would compute with the weight that a hook left behind."""
        for name, part in self.network.named_modules():
            if part._forward_pre_hooks or part._forward_hooks:
                raise InputError(
                    f"{name or 'the network'} has a hook, such as that of torch.nn.utils.weight_norm or prune, which "
                    "the engine higher does not call; use torch.nn.utils.parametrizations, or the engine batched"
                )

    def _adapt_task(self, losses: RowLosses, support: FusionInputs, steps: int, *, keep_graph: bool) -> nn.Module:
        parameters = dict(losses.named_parameters())
        names = self._adapted_names()
        # A group for each parameter, because a rate belongs to a group; a parameter in no group is not adapted.
        groups = [{"params": [parameters[name]]} for name in names]
        optimizer = self._make_optimizer(groups, lr=self.inner_lr)
        override = {"lr": [self._rate(name) for name in names]} if self.learn_rates else None
        # With copied initial weights the graph would end at the copies and not reach the network.
        with self._innerloop(
            losses, optimizer, copy_initial_weights=False, override=override, track_higher_grads=keep_graph
        ) as (adapted, descent):
            take_inner_modes(adapted, losses)
            for step in range(steps):
                loss = masked_mean(adapted(support), support.mask)
                with inner_step("higher", step, support):
                    descent.step(loss, grad_callback=_constant if self.first_order else None)
        patched: nn.Module = adapted
        return patched

    def _fast_parameters(self, adapted: Any) -> Mapping[str, Tensor]:
        names = [name for name, _ in self._row_losses.named_parameters()]
        return dict(zip(names, adapted.fast_params, strict=True))


def _constant(gradients: list[Tensor | None]) -> list[Tensor | None]:
    return [None if gradient is None else gradient.detach() for gradient in gradients]
