"""A network under other parameters than its own, for one task or for each of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase

from metarec.episodes import FusionInputs
from metarec.fusion import FusionNetwork, FusionOutput, call_with, copy_with
from metarec.fusion.losses import PREDICTION_LOSSES
from metarec.threads import SharedSetting

__all__ = [
    "Fuse",
    "Loss",
    "Outside",
    "RowLosses",
    "Rows",
    "TaskBuffers",
    "each_task",
    "inner_copy",
    "outputs_by_name",
    "plain_attention",
    "take_inner_modes",
    "take_modes",
]

Loss = Literal["mse", "mae", "huber", "fusion"] | Callable[[FusionOutput, FusionInputs], Tensor]


class Rows(Protocol):
    """A NamedTuple of tensors [T, N, ...] such as FusionInputs; `mask` [T, N] is true for the rows that count."""

    def __init__(self, *tensors: Tensor) -> None: ...
    def __iter__(self) -> Iterator[Tensor]: ...
    @property
    def mask(self) -> Tensor: ...


class Outside(NamedTuple):
    """A function that copies of a module share, even if it is a module.

    So its parameters are none of the module's: the inner loop does not adapt a learned loss.
    """

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


class RowLosses(nn.Module):
    """A fusion network and a loss as one module, inputs -> losses [...].

    Engines call a module because learn2learn, higher and :func:`~metarec.fusion.copy_with` replace the parameters of
    a module.
    """

    def __init__(self, network: FusionNetwork, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self.loss = loss if isinstance(loss, str) else Outside(loss)

    def forward(self, inputs: FusionInputs) -> Tensor:
        if self.loss == "fusion":
            return self.network.row_losses(inputs)
        output = self.network.fuse(inputs)
        if isinstance(self.loss, Outside):
            losses: Tensor = self.loss(output, inputs)
            return losses
        return PREDICTION_LOSSES[self.loss](output.prediction, inputs.targets)

    @property
    def list_wise(self) -> bool:
        """Whether rows of different tasks must stay apart, because the loss judges the order of a task's rows."""
        return self.loss == "fusion" and self.network.list_wise


class Fuse(nn.Module):
    """:meth:`FusionNetwork.fuse` as a module with the parameter names of :class:`RowLosses`."""

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: FusionInputs) -> FusionOutput:
        return self.network.fuse(inputs)


@contextmanager
def _plain_attention() -> Iterator[None]:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


plain_attention = SharedSetting(_plain_attention)
"""Inside, attention is computed by the plain kernel, the only one of torch's that has a second derivative.

The layers of attention have a kernel for inference too, which has no derivative, and which they take in eval mode under
``vmap``. Torch chooses a kernel for the whole process. What needs no second derivative is computed in such blocks as
well: it would otherwise be rounded differently whenever another thread is in one.
"""


def inner_copy(module: nn.Module) -> nn.Module:
    """A copy of a module in the mode of inner steps; it shares all tensors."""
    twin = copy_with(module)
    take_inner_modes(twin, module)
    return twin


def take_inner_modes(twin: nn.Module, module: nn.Module) -> None:
    """Put a copy of a module into the mode of inner steps: eval mode, so that dropout and the like are off.

    Only torch's layers with statistics, batch norm and spectral norm, keep their mode: in training they use the rows of
    the task in the inner steps as in the query rows.
    """
    for part, original in zip(twin.modules(), module.modules(), strict=True):
        statistics = isinstance(original, _NormBase) or _is_carried(original)
        part.training = original.training and statistics


def _is_carried(part: nn.Module) -> bool:
    """Whether a layer's buffers, such as the vectors of spectral norm, are estimates that go on from task to task."""
    return type(part).__module__.startswith("torch.") and bool(part._buffers) and not isinstance(part, _NormBase)


def take_modes(twin: nn.Module, module: nn.Module) -> None:
    """Put each part of a copy of a module into the mode that it has in the module."""
    for part, original in zip(twin.modules(), module.modules(), strict=True):
        part.training = original.training


class TaskBuffers:
    """What tasks make of a module's buffers, such as the running statistics of batch norm.

    Every task begins with the buffers of the module, so that the order of tasks does not matter. :meth:`settle` then
    gives the module the mean over tasks; of what is no floating-point number, that of the last task. Only the vectors
    of torch's spectral norm go on from one task to the next one, because they approach the same limit in all of them.
    """

    def __init__(self, module: nn.Module) -> None:
        self._own = dict(module.named_buffers())
        self._next = dict(self._own)
        carrying = [name for name, part in module.named_modules() if _is_carried(part)] if self._own else []
        self._carried = {name for name in self._own if name.rpartition(".")[0] in carrying}
        self._before: dict[str, Tensor] = {}
        self._changed: set[str] = set()
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def new(self) -> dict[int, Tensor]:
        """id of each of the module's buffers -> one for the next task in its place."""
        self._before = self._next
        return {id(own): self._next[name].clone() for name, own in self._own.items()}

    def again(self, twin: nn.Module) -> dict[int, Tensor]:
        """The same for a copy of the module, so that the graph of its earlier passes stays as it is."""
        self._before = self._current(twin)
        return {id(value): value.clone() for value in self._before.values()}

    def add(self, twin: nn.Module) -> None:
        """Take the buffers that the module's copy has after its task."""
        current = self._current(twin)
        for name in self._changed:
            after = current[name].detach()
            total, number = self._sums.get(name, (None, 0))
            if name in self._carried:
                self._next[name] = after
            elif total is not None and after.is_floating_point():
                after, number = total + after, number + 1
            self._sums[name] = after, max(number, 1)

    def _current(self, twin: nn.Module) -> dict[str, Tensor]:
        """The copy's buffers; notes which of them have changed."""
        current = {name: value for name, value in twin.named_buffers() if name in self._before}
        # By value, because batch norm changes its statistics without a new version of the tensor.
        self._changed |= {name for name, value in current.items() if not torch.equal(value, self._before[name])}
        return current

    @property
    def changed(self) -> list[str]:
        """The names of the buffers that the tasks so far have changed."""
        return sorted(self._changed)

    def settle(self) -> None:
        """Change the module's buffers, which no graph of a task refers to."""
        with torch.no_grad():
            for name, (total, number) in self._sums.items():
                self._own[name].copy_(total / number if number > 1 else total)


def each_task(
    module: nn.Module,
    fast: Mapping[str, Tensor],
    inputs: Rows,
    *,
    training: bool | None = None,
    randomness: str = "error",
    chunk_size: int | None = None,
) -> Any:
    """A module's outputs for each task's rows with that task's parameters; the tasks share the others.

    Args:
        fast: name -> [T, ...] parameters. training: as in :func:`~metarec.fusion.copy_with`.
        randomness, chunk_size: of ``vmap``.
    """

    def one_task(parameters: dict[str, Tensor], rows: Rows) -> Any:
        return outputs_by_name(call_with(module, parameters, rows, training=training))

    return vmap(one_task, randomness=randomness, chunk_size=chunk_size)(dict(fast), inputs)


def outputs_by_name(output: FusionOutput | Tensor) -> dict[str, Tensor] | Tensor:
    """The tensors of a FusionOutput by name, because vmap returns tensors only; losses are returned as they are."""
    if isinstance(output, Tensor):
        return output
    return {name: value for name, value in output._asdict().items() if value is not None}
