"""The interface of engines: a meta-loss to train on, and networks adapted to users."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.errors import InputError, check_at_least, check_flag, check_positive
from metarec.fusion import FusionNetwork, FusionOutput, call_with, copy_with
from metarec.fusion.losses import PREDICTION_LOSSES
from metarec.meta._calls import Fuse, Loss, RowLosses, each_task, outputs_by_name, plain_attention
from metarec.meta._data import Shape
from metarec.meta._inner_loop import Path
from metarec.meta._inner_optimizers import INNER_OPTIMIZERS, InnerOptimizer
from metarec.meta._ridge_head import COEFFICIENTS, RidgeHead, corrected, solved
from metarec.registry import suggest

__all__ = ["ADAPTED", "ROWS_AT_ONCE", "TASK_CHUNK", "Adapted", "AdaptedNetwork", "MetaLearner", "check_adaptation"]

Adapted = Literal["all", "head", "ridge"]
ADAPTED: tuple[str, ...] = get_args(Adapted)

TASK_CHUNK = 256
"""How many tasks are adapted at once where no gradient is kept: enough to be fast, few enough for memory."""

ROWS_AT_ONCE = 4096
"""About how many rows adapted networks predict at once, for the same reasons."""


class AdaptedNetwork:
    """T copies of a fusion network, each adapted to one task, without a graph. Made by :meth:`MetaLearner.adapt`.

    Parameters that are not adapted are shared with the network itself; where `shared`, that is all of them. With
    `one_by_one` it is called for one task after the other, as ``vmap`` does not support every operation.

    Attributes:
        fast_weights: name -> [T, ...] each task's own parameters, under the network's names.
    """

    def __init__(
        self,
        losses: RowLosses,
        parameters: Mapping[str, Tensor],
        num_tasks: int,
        *,
        shared: bool = False,
        one_by_one: bool = False,
    ) -> None:
        self.num_tasks = num_tasks
        self._losses = losses
        self._shared = shared
        self._one_by_one = one_by_one
        self._fast = {name: tensor.detach() for name, tensor in parameters.items()}

    @property
    def fast_weights(self) -> dict[str, Tensor]:
        return {name.removeprefix("network."): tensor for name, tensor in self._fast.items()}

    def fuse(self, query: FusionInputs) -> FusionOutput:
        """The output of each task's network for the rows [T, N] of that task; predictions are not clipped."""
        return FusionOutput(**self._each_task(Fuse(self._losses.network), query))

    def predict(self, query: FusionInputs) -> Tensor:
        """[T, N] ratings on the unit scale, clipped to [0, 1]."""
        return self.fuse(query).prediction.clamp(0, 1)

    def row_losses(self, query: FusionInputs) -> Tensor:
        """[T, N] the meta-learner's loss of each row."""
        losses: Tensor = self._each_task(self._losses, query)
        return losses

    def _each_task(self, module: nn.Module, query: FusionInputs) -> Any:
        if query.mask.shape[0] != self.num_tasks:
            raise InputError(f"query must have the {self.num_tasks} tasks of the support but got {query.mask.shape[0]}")
        with torch.no_grad(), plain_attention:
            return self._outputs(module, query)

    def _outputs(self, module: nn.Module, query: FusionInputs) -> Any:
        """The output of a module around the network, dropout off; that of a FusionOutput by name."""
        if self._shared:
            # No task has parameters of its own, and the network takes the rows of all tasks as they are.
            return outputs_by_name(copy_with(module, training=False)(query))
        if self._one_by_one:
            found = [self._output_of(task, module, query) for task in range(self.num_tasks)]
            if isinstance(found[0], Tensor):
                return torch.stack(found)
            return {name: torch.stack([output[name] for output in found]) for name in found[0]}
        # A chunk should fit a processor's cache.
        chunk_size = max(1, ROWS_AT_ONCE // max(1, query.mask.shape[1]))
        return each_task(module, self._fast, query, training=False, chunk_size=chunk_size)

    def _output_of(self, task: int, module: nn.Module, query: FusionInputs) -> Any:
        """The output of one task's network for its rows."""
        own = {name: tensor[task] for name, tensor in self._fast.items()}
        rows = FusionInputs(*(tensor[task] for tensor in query))
        return outputs_by_name(call_with(module, own, rows, training=False))


def check_adaptation(*, inner_lr: float, inner_steps: int, first_order: bool, loss: Loss) -> None:
    """Raise InputError where an argument of an inner loop breaks its rule."""
    check_positive(inner_lr=inner_lr)
    check_at_least(0, inner_steps=inner_steps)
    check_flag(first_order=first_order)
    losses = [*PREDICTION_LOSSES, "fusion"]
    if not callable(loss) and loss not in losses:
        raise InputError(f'unknown loss "{loss}"; {suggest(str(loss), losses)}')


class MetaLearner(nn.Module, ABC):
    """Learns the start from which a fusion network adapts to a user by gradient descent (MAML, Finn et al. 2017).

    The inner loop takes `inner_steps` steps of plain gradient descent at rate `inner_lr` on the mean loss of a task's
    unmasked support rows. The meta-loss is the mean over a task's unmasked query rows, then over the tasks that have
    any, after adaptation. A task without support rows is not adapted. Dropout is off while adapting; in the meta-loss's
    query rows it is on if the network is in training mode. Parameters that need no gradient are not adapted.

    With `learn_rates` every adapted parameter tensor has its own rate, learned with the start (Meta-SGD, Li et al.
    2017, has one for every entry: too many for a few hundred users). The logarithm is learned, so that a rate stays
    positive and an outer step changes a small rate and a large one by the same factor. With adapted="head" only the
    network's last layers are adapted (ANIL, Raghu et al. 2020), and the outer loop trains all layers. With
    inner_optimizer="momentum" or "adam" the inner loop uses that optimizer, started anew for each task, and the
    meta-gradient goes through its state.

    With adapted="ridge" the network is the same for all users, and each user's predictions are corrected by a ridge
    regression of the residuals of the support rows (:class:`~metarec.meta._ridge_head.RidgeHead`; R2-D2, Bertinetto et
    al. 2019). It is solved in closed form, so that there is nothing to step: with `inner_steps` > 0 it is there, and
    with 0 there is only the network, as without adaptation. The rate of steps, `learn_rates`, `first_order` and
    `inner_optimizer` have no effect. Rows of all tasks go through the network together.

    It is a module: ``parameters()`` are the network's and those that an engine learns beside them. The arguments are
    those of :func:`make_engine`.

    Attributes:
        network: the fusion network; its parameters are the start.
        log_rates: [P] the logarithms of the inner rates, in the order of :attr:`rates`; None unless `learn_rates`.
        ridge: the head that is solved in closed form; None unless adapted="ridge" and `inner_steps` > 0.
        path: which of its ways the engine computes by; None for an engine with one way, and before the choice.
    """

    path: Path | None = None
    log_rates: nn.Parameter | None
    ridge: RidgeHead | None

    def __init__(
        self,
        network: FusionNetwork,
        *,
        inner_lr: float,
        inner_steps: int,
        first_order: bool = False,
        loss: Loss = "mse",
        learn_rates: bool = False,
        adapted: Adapted = "all",
        inner_optimizer: InnerOptimizer = "sgd",
        shape: Shape | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, FusionNetwork):
            raise InputError(f"network must be a FusionNetwork but got {type(network).__name__}")
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise InputError("network must have parameters that can be trained but got none that requires a gradient")
        check_adaptation(inner_lr=inner_lr, inner_steps=inner_steps, first_order=first_order, loss=loss)
        check_flag(learn_rates=learn_rates)
        if adapted not in ADAPTED:
            raise InputError(f'adapted must be "all", "head" or "ridge" but got {adapted!r}')
        if adapted == "ridge" and shape is None:
            raise InputError('adapted="ridge" needs the shape of the rows but got None; pass shape=Shape.of(batch)')
        if inner_optimizer not in INNER_OPTIMIZERS:
            raise InputError(
                f'unknown inner_optimizer "{inner_optimizer}"; {suggest(str(inner_optimizer), INNER_OPTIMIZERS)}'
            )
        parameters = dict(network.named_parameters())
        rated = network.head_names() if adapted == "head" else list(parameters)
        if not any(parameters[name].requires_grad for name in rated):
            raise InputError(
                f"the last layers of {type(network).__name__} have no parameter that requires a gradient; "
                'use adapted="all"'
            )
        self.network = network
        self.inner_lr = float(inner_lr)
        self.inner_steps = inner_steps
        self.first_order = first_order
        self.loss = loss
        self.learn_rates = learn_rates
        self.adapted = adapted
        self.inner_optimizer = inner_optimizer
        start = parameters[rated[0]]
        self.ridge = RidgeHead(shape).to(start) if adapted == "ridge" and shape and inner_steps else None
        log_rates = start.new_full([len(rated)], math.log(inner_lr))
        self.log_rates = nn.Parameter(log_rates) if learn_rates and self.ridge is None else None

    @property
    def _row_losses(self) -> RowLosses:
        """The network and the loss as one module. Not a submodule: its parameters would be in the state twice."""
        return RowLosses(self.network, self.loss)

    @abstractmethod
    def meta_loss(self, batch: EpisodeBatch) -> Tensor:
        """The outer loss of a batch of tasks: a scalar whose graph reaches the network's parameters."""

    @abstractmethod
    def adapt(self, support: FusionInputs) -> AdaptedNetwork:
        """The network adapted to each of the T tasks of `support`, without a graph, dropout off."""

    @property
    def rates(self) -> dict[str, float]:
        """name -> the current inner rate of each adapted parameter."""
        with torch.no_grad():
            return {name.removeprefix("network."): float(self._rate(name)) for name in self._adapted_names()}

    @property
    def beside_network(self) -> list[nn.Parameter]:
        """What every engine learns beside the network's parameters."""
        return self.logarithms if self.ridge is None else list(self.ridge.parameters())

    @property
    def logarithms(self) -> list[nn.Parameter]:
        """Those of :attr:`beside_network` that are logarithms of positive numbers."""
        if self.ridge is not None:
            return [self.ridge.logarithms]
        return [] if self.log_rates is None else [self.log_rates]

    def extra_repr(self) -> str:
        names = ("inner_lr", "inner_steps", "first_order", "learn_rates", "adapted", "inner_optimizer")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    @property
    def _rated(self) -> list[str]:
        """The parameters that have an inner rate, by the network's names."""
        if self.ridge is not None:
            return []
        if self.adapted == "head":
            return self.network.head_names()
        return [name for name, _ in self.network.named_parameters()]

    def _corrected(self, sides: Sequence[FusionInputs]) -> AdaptedNetwork:
        """The network with the head solved, without a graph, for the tasks of each of these support rows."""
        assert self.ridge is not None, "only this head is solved"
        still: RowLosses = copy_with(self._row_losses, training=False)  # type: ignore[assignment]
        with torch.no_grad(), plain_attention:
            found = [solved(still, self.ridge, support)[1] for support in sides]
        coefficients = torch.cat([own.reshape(-1, own.shape[-1]) for own in found])
        losses = corrected(self._row_losses, self.ridge, coefficients)
        return AdaptedNetwork(losses, {COEFFICIENTS: coefficients}, len(coefficients), shared=True)

    def _adapted_names(self) -> list[str]:
        """The parameters that the inner loop changes, under their names in :class:`RowLosses`."""
        parameters = dict(self.network.named_parameters())
        return [f"network.{name}" for name in self._rated if parameters[name].requires_grad]

    def _rate(self, name: str) -> Tensor | float:
        """The inner rate of a parameter, by its name in :class:`RowLosses`; with a graph where it is learned."""
        if self.log_rates is None:
            return self.inner_lr
        rated = self._rated
        if len(rated) != len(self.log_rates):
            raise InputError(
                f"the network has {len(rated)} parameters to adapt but had {len(self.log_rates)} when its inner rates "
                "were made; make a new engine for it"
            )
        return self.log_rates[rated.index(name.removeprefix("network."))].exp()
