"""A network under other parameters than its own, for one task or for each of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, Protocol

from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarec.episodes import FusionInputs
from metarec.fusion import FusionNetwork, FusionOutput
from metarec.fusion.losses import PREDICTION_LOSSES

__all__ = [
    "Fuse",
    "Loss",
    "RowLosses",
    "Rows",
    "call_with",
    "each_task",
    "evaluating",
    "outputs_by_name",
    "twice_differentiable",
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

    Engines call a module because learn2learn, higher and ``functional_call`` swap the parameters of what they call.
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


class Fuse(nn.Module):
    """:meth:`FusionNetwork.fuse` as a module with the parameter names of :class:`RowLosses`."""

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: FusionInputs) -> FusionOutput:
        return self.network.fuse(inputs)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Turn off dropout and the like inside; afterwards every submodule is in its former mode."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def twice_differentiable() -> AbstractContextManager[None]:
    """Compute attention inside by the plain kernel, the only one of torch's that has a second derivative."""
    kernel: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return kernel


def each_task(
    module: nn.Module,
    fast: Mapping[str, Tensor],
    inputs: Rows,
    *,
    randomness: str = "error",
    chunk_size: int | None = None,
) -> Any:
    """A module's outputs for each task's rows with that task's parameters; the tasks share the others.

    Args:
        fast: name -> [T, ...] parameters. randomness, chunk_size: of ``vmap``.
    """

    def one_task(parameters: dict[str, Tensor], rows: Rows) -> Any:
        return outputs_by_name(call_with(module, parameters, rows))

    return vmap(one_task, randomness=randomness, chunk_size=chunk_size)(dict(fast), inputs)


def call_with(module: nn.Module, parameters: Mapping[str, Tensor], inputs: Any) -> Any:
    """A module's output with other tensors in the place of its parameters, wherever each of these is used.

    ``functional_call`` can tie weights, but where a submodule has two names it leaves the other tensors in the module
    (torch 2.14); so each place is passed once.
    """
    places: dict[int, list[str]] = {}
    for owner, part in module.named_modules():
        for own, parameter in part._parameters.items():
            places.setdefault(id(parameter), []).append(f"{owner}.{own}" if owner else own)
    first = {names[0]: names for names in places.values()}
    everywhere = {place: value for name, value in parameters.items() for place in first[name]}
    return functional_call(module, everywhere, (inputs,), tie_weights=False)


def outputs_by_name(output: FusionOutput | Tensor) -> dict[str, Tensor] | Tensor:
    """The tensors of a FusionOutput by name, because vmap returns tensors only; losses are returned as they are."""
    if isinstance(output, Tensor):
        return output
    return {name: value for name, value in output._asdict().items() if value is not None}
