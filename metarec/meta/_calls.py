"""A network under other parameters than its own, for one task or for each of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

from torch import Tensor, nn
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarec.episodes import FusionInputs
from metarec.fusion import FusionNetwork, FusionOutput, call_with
from metarec.fusion.losses import PREDICTION_LOSSES
from metarec.threads import SharedSetting

__all__ = [
    "Fuse",
    "Loss",
    "RowLosses",
    "Rows",
    "each_task",
    "outputs_by_name",
    "plain_attention",
]

Loss = Literal["mse", "mae", "huber", "fusion"] | Callable[[FusionOutput, FusionInputs], Tensor]


class Rows(Protocol):
    """A NamedTuple of tensors [T, N, ...] such as FusionInputs; `mask` [T, N] is true for the rows that count."""

    def __init__(self, *tensors: Tensor) -> None: ...
    def __iter__(self) -> Iterator[Tensor]: ...
    @property
    def mask(self) -> Tensor: ...


class RowLosses(nn.Module):
    """A fusion network and a loss as one module, inputs -> losses [...].

    Engines call a module because learn2learn, higher and :func:`~metarec.fusion.copy_with` replace the parameters of
    a module.
    """

    def __init__(self, network: FusionNetwork, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self.loss = loss

    def forward(self, inputs: FusionInputs) -> Tensor:
        if self.loss == "fusion":
            return self.network.row_losses(inputs)
        output = self.network.fuse(inputs)
        if callable(self.loss):
            return self.loss(output, inputs)
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


plain_attention = SharedSetting(lambda: sdpa_kernel(SDPBackend.MATH))
"""Inside, attention is computed by the plain kernel, the only one of torch's that has a second derivative.

Torch chooses a kernel for the whole process. What needs no second derivative is computed in such blocks as well: it
would otherwise be rounded differently whenever another thread is in one.
"""


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
