"""What every fusion network can do."""

from __future__ import annotations

import inspect
from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from metarec.episodes import FusionInputs
from metarec.errors import InputError
from metarec.fusion.losses import squared_error
from metarec.fusion.space import Parameter
from metarec.registry import suggest

__all__ = ["FusionNetwork", "FusionOutput"]


class FusionOutput(NamedTuple):
    """What a fusion network says about rows of any leading shape.

    Attributes:
        prediction: [...] on the unit scale, not clipped.
        weights: [..., A] how far each base was trusted; exactly 0 for a base that could not say. None if the network
            has no such weights.
        confidences: [..., A] in [0, 1], how sure the network is of each base, or None.
    """

    prediction: Tensor
    weights: Tensor | None = None
    confidences: Tensor | None = None


# Not a base class ABC: higher makes a class of each module's class and its own (ABC, Module), whose order would clash.
class FusionNetwork(nn.Module, metaclass=ABCMeta):
    """Maps the outputs of A bases and a context to one prediction per row.

    The leading axes of the inputs are free: [T, N] for a batch of tasks, [N] for one task, [] for one row. A base that
    says NaN gets a weight of exactly 0, and neither its NaN nor a NaN gradient comes out; a row without any finite base
    (padding) still gives a finite output.

    A network is called through :meth:`fuse` by engines. Its ``forward`` is its own affair.

    Attributes:
        last_layers: names of the submodules and parameters that turn what the rest computes into a prediction. They are
            what is adapted where only the head is. A name that a network of these options does not have is passed over.
            Empty for a network that makes no such difference.
        searched: the options of its constructor that a study searches: name -> :class:`metarec.fusion.Parameter`.
    """

    last_layers: ClassVar[tuple[str, ...]] = ()
    searched: ClassVar[Mapping[str, Parameter]] = {}

    @abstractmethod
    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        """One prediction per row, from the pieces of `inputs` that this network needs. Never looks at the targets."""

    def row_losses(self, inputs: FusionInputs) -> Tensor:
        """[...] the network's own loss of each row, which is what the loss called "fusion" means.

        It takes the inputs, not the output, so that a network's loss may look at anything that it computes on the way.
        Unless a network says otherwise, it is the squared error.
        """
        return squared_error(self.fuse(inputs).prediction, inputs.targets)

    def head_names(self) -> list[str]:
        """The names of the parameters in :attr:`last_layers`; of all parameters where it is empty."""
        names = [name for name, _ in self.named_parameters()]
        if not self.last_layers:
            return names
        return [name for name in names if any(f"{name}.".startswith(f"{layer}.") for layer in self.last_layers)]

    @classmethod
    def for_episodes(cls, num_algorithms: int, feature_dim: int, context_dim: int, **options: Any) -> Self:
        """Build the network from the shape of the data, and options by name.

        Args:
            num_algorithms: A, how many bases there are.
            feature_dim: F, features per base; context_dim: C, context features.
            options: keyword arguments of the network.

        Raises:
            InputError: the network has no such option.
        """
        taken = list(inspect.signature(cls).parameters)
        shape = {"num_algorithms": num_algorithms, "feature_dim": feature_dim, "context_dim": context_dim}
        known = [name for name in taken if name not in shape]
        for name in options:
            if name not in known:
                raise InputError(f'{cls.__name__} has no option "{name}"; {suggest(name, known)}')
        return cls(**{name: value for name, value in shape.items() if name in taken}, **options)
