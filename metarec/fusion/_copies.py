"""Modules under other parameters than their own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any

from torch import Tensor, nn

__all__ = ["call_with", "copy_with"]


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
