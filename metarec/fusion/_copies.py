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
    module: nn.Module, tensors: Mapping[int, Tensor] | None = None, *, training: bool | None = None
) -> nn.Module:
    """A copy of a module with other tensors in the place of parameters and buffers, wherever each of these is used.

    All other tensors are shared. The module itself is left as it is, so that several threads can call it;
    ``torch.func.functional_call`` changes it while it runs.

    Args:
        tensors: id of a parameter or a buffer -> the tensor in its place, which need not be a leaf and may have a
            graph.
        training: the mode of the copy and its parts; None leaves each part in its mode.
    """
    return _Copies(tensors or {}, training).of(module)


class _Copies:
    """The copies that are made of a module's parts. No part of them refers to it, so that memory is free at once."""

    def __init__(self, tensors: Mapping[int, Tensor], training: bool | None) -> None:
        self._tensors = tensors
        self._training = training
        self._twins: dict[int, nn.Module] = {}

    def of(self, own: nn.Module) -> nn.Module:
        twin = self._twins.get(id(own))
        if twin is None:
            # Modules such as those with parametrizations refuse copy.copy.
            twin = self._twins[id(own)] = nn.Module.__new__(type(own))
            vars(twin).update(
                (name, value if name in _OF_TORCH else self._replaced(value)) for name, value in vars(own).items()
            )
            vars(twin).update(
                _parameters={name: self._tensor(parameter) for name, parameter in own._parameters.items()},
                _buffers={name: self._tensor(buffer) for name, buffer in own._buffers.items()},
                _modules={name: None if child is None else self.of(child) for name, child in own._modules.items()},
            )
            if self._training is not None:
                vars(twin)["training"] = self._training
        return twin

    def _tensor(self, own: Tensor | None) -> Tensor | None:
        return None if own is None else self._tensors.get(id(own), own)

    def _replaced(self, value: Any) -> Any:
        """An attribute of a copied module: what it refers to may be copied or replaced, too."""
        if isinstance(value, nn.Module):
            return self.of(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
            return MethodType(value.__func__, self.of(value.__self__))
        if type(value) in (list, tuple):
            return type(value)(self._replaced(one) for one in value)
        if type(value) is dict:
            return {key: self._replaced(one) for key, one in value.items()}
        return value


_OF_TORCH = frozenset(vars(nn.Module()))
"""The attributes of every module."""
