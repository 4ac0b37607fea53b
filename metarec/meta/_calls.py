"""A network under other parameters than its own, for one task or for each of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any, Literal, Protocol

from torch import Tensor, nn
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarec.episodes import FusionInputs
from metarec.fusion import FusionNetwork, FusionOutput
from metarec.fusion.losses import PREDICTION_LOSSES
from metarec.threads import SharedSetting

__all__ = [
    "Fuse",
    "Loss",
    "RowLosses",
    "Rows",
    "call_with",
    "copy_with",
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

    Engines call a module because learn2learn, higher and :func:`copy_with` replace the parameters of a module.
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
        fast: name -> [T, ...] parameters. training: as in :func:`copy_with`.
        randomness, chunk_size: of ``vmap``.
    """

    def one_task(parameters: dict[str, Tensor], rows: Rows) -> Any:
        return outputs_by_name(call_with(module, parameters, rows, training=training))

    return vmap(one_task, randomness=randomness, chunk_size=chunk_size)(dict(fast), inputs)


def call_with(module: nn.Module, parameters: Mapping[str, Tensor], inputs: Any, *, training: bool | None = None) -> Any:
    """A module's output with other tensors in the place of its parameters; see :func:`copy_with`."""
    own = dict(module.named_parameters())
    return copy_with(module, {id(own[name]): value for name, value in parameters.items()}, training=training)(inputs)


def copy_with(
    module: nn.Module, parameters: Mapping[int, Tensor] | None = None, *, training: bool | None = None
) -> nn.Module:
    """A copy of a module with other tensors in the place of parameters, wherever each of these is used.

    All other tensors are shared, and buffers too. The module itself is left as it is, so that several threads can call
    it; ``torch.func.functional_call`` changes it while it runs.

    Args:
        parameters: id of a parameter -> the tensor in its place, which need not be a leaf and may have a graph.
        training: the mode of the copy and its parts; None leaves each part in its mode.
    """
    twins: dict[int, nn.Module] = {}
    values = parameters or {}

    def copied(own: nn.Module) -> nn.Module:
        twin = twins.get(id(own))
        if twin is None:
            twin = twins[id(own)] = nn.Module.__new__(type(own))
            vars(twin).update(
                (name, value if name in _OF_TORCH else replaced(value)) for name, value in vars(own).items()
            )
            vars(twin).update(
                _parameters={name: values.get(id(p), p) for name, p in own._parameters.items()},
                _modules={name: None if child is None else copied(child) for name, child in own._modules.items()},
            )
            if training is not None:
                vars(twin)["training"] = training
        return twin

    def replaced(value: Any) -> Any:
        """An attribute of a copied module: what it refers to may be copied or replaced, too."""
        if isinstance(value, nn.Module):
            return copied(value)
        if isinstance(value, Tensor):
            return values.get(id(value), value)
        if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
            return MethodType(value.__func__, copied(value.__self__))
        if type(value) in (list, tuple):
            return type(value)(replaced(one) for one in value)
        if type(value) is dict:
            return {key: replaced(one) for key, one in value.items()}
        return value

    return copied(module)


_OF_TORCH = frozenset(vars(nn.Module()))
"""The attributes of every module."""


def outputs_by_name(output: FusionOutput | Tensor) -> dict[str, Tensor] | Tensor:
    """The tensors of a FusionOutput by name, because vmap returns tensors only; losses are returned as they are."""
    if isinstance(output, Tensor):
        return output
    return {name: value for name, value in output._asdict().items() if value is not None}
