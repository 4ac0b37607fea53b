"""MAML around any module, with learn2learn's interface, for many tasks at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarec.errors import InputError, check_at_least, check_positive
from metarec.fusion import copy_with
from metarec.meta._inner_loop import InnerLoop, MetaLoss, Path

__all__ = ["BatchedMAML"]

RowLoss = Callable[[Tensor, Tensor], Tensor]


class BatchedMAML(nn.Module):
    """Model-agnostic meta-learning (Finn et al. 2017), a replacement for ``learn2learn.algorithms.MAML``.

    :meth:`clone` and :meth:`adapt` work as learn2learn's, for one task after the other. :meth:`meta_loss` computes the
    same gradient for all tasks of a batch at once, several times faster; see
    :class:`~metarec.meta.engines.batched.BatchedMetaLearner`. :attr:`path` is the path that it takes, :attr:`why` the
    reason against the faster one.

    Args:
        model: the module whose parameters are the start; those that need no gradient are not adapted.
        lr: the rate of the inner gradient descent, > 0.
        first_order: treat the inner gradients as constants.
        allow_unused: whether the inner loss may leave parameters without a gradient; they stay as they are.
            By default as `allow_nograd`.
        allow_nograd: whether the model may have parameters that need no gradient.

    Raises:
        InputError: an argument breaks its rule.

    >>> maml = BatchedMAML(nn.Linear(3, 1), lr=0.1)
    >>> inputs, targets = torch.rand(8, 5, 3), torch.rand(8, 5, 1)
    >>> loss = maml.meta_loss((inputs, targets), (inputs, targets), loss=nn.MSELoss(reduction="none"), steps=2)
    >>> loss.backward()
    >>> task = maml.clone()
    >>> task.adapt((task(inputs[0]) - targets[0]).square().mean())
    >>> task(inputs[0]).shape
    torch.Size([5, 1])
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        first_order: bool = False,
        allow_unused: bool | None = None,
        allow_nograd: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError(f"model must be a torch.nn.Module but got {type(model).__name__}")
        check_positive(lr=lr)
        self.module = model
        self.lr = float(lr)
        self.first_order = first_order
        self.allow_nograd = allow_nograd
        self.allow_unused = allow_nograd if allow_unused is None else allow_unused
        self._meta_loss: MetaLoss | None = None

    @property
    def path(self) -> Path | None:
        """The path that :meth:`meta_loss` takes, "low-rank" or "vmap"; None before its first batch."""
        return None if self._meta_loss is None else self._meta_loss.path

    @property
    def why(self) -> str | None:
        """The reason against the low-rank path, None if there is none."""
        return None if self._meta_loss is None else self._meta_loss.why

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def clone(
        self, first_order: bool | None = None, allow_unused: bool | None = None, allow_nograd: bool | None = None
    ) -> BatchedMAML:
        """A copy to adapt to one task: its parameters have a graph to these. Options default to those of this one."""
        twins: dict[int, Any] = {id(own): own.clone() for own in self.module.parameters()}
        return BatchedMAML(
            copy_with(self.module, twins),
            self.lr,
            self.first_order if first_order is None else first_order,
            self.allow_unused if allow_unused is None else allow_unused,
            self.allow_nograd if allow_nograd is None else allow_nograd,
        )

    def adapt(
        self,
        loss: Tensor,
        first_order: bool | None = None,
        allow_unused: bool | None = None,
        allow_nograd: bool | None = None,
    ) -> None:
        """Take a step of gradient descent on a loss, a scalar, in place.

        Raises:
            InputError: this is no clone, or a parameter needs no gradient and that is not allowed.
            RuntimeError: a parameter has no part in the loss and that is not allowed.
        """
        first_order = self.first_order if first_order is None else first_order
        allow_nograd = self.allow_nograd if allow_nograd is None else allow_nograd
        learned: dict[int, Tensor] = {}
        for name, parameter in self.module.named_parameters():
            if isinstance(parameter, nn.Parameter):
                raise InputError("adapt must be called on a clone: it would leave no start to learn; use clone()")
            if parameter.requires_grad:
                learned[id(parameter)] = parameter
            elif not allow_nograd:
                raise InputError(f"{name} must require a gradient, or allow_nograd be True")
        gradients = torch.autograd.grad(
            loss,
            list(learned.values()),
            create_graph=not first_order,
            allow_unused=self.allow_unused if allow_unused is None else allow_unused,
        )
        self.module = copy_with(
            self.module,
            {
                place: parameter if gradient is None else parameter - self.lr * gradient
                for (place, parameter), gradient in zip(learned.items(), gradients, strict=True)
            },
        )

    def meta_loss(
        self, support: tuple[Tensor, ...], query: tuple[Tensor, ...], *, loss: RowLoss, steps: int = 1
    ) -> Tensor:
        """The mean loss of each task's query rows after `steps` inner steps on its support rows; then over tasks.

        Dropout and the like are off in the inner steps; in the query rows they are on if the model is training.

        Args:
            support: inputs [T, N, ...] and targets [T, N, ...] of T tasks with N rows each, and, where tasks have
                different numbers of rows, a mask [T, N] of the rows that count. The model gets the rows of its tasks as
                a batch [rows, ...].
            query: the same for the query rows.
            loss: of predictions and targets, one number for each row (or several, which are averaged), such as
                ``torch.nn.MSELoss(reduction="none")``. Pass the same object every time: for a new one the path is
                chosen anew.

        Raises:
            InputError: the tensors do not fit each other, or `steps` is no integer >= 0.
            RuntimeError: the model cannot be mapped over tasks; or the loss is not one of each row.
        """
        check_at_least(0, steps=steps)
        before, after = _rows("support", support), _rows("query", query)
        if len(before.mask) != len(after.mask):
            raise InputError(f"query must have the {len(before.mask)} tasks of support but got {len(after.mask)}")
        if self._meta_loss is None or self._meta_loss.losses.loss is not loss:
            # The choice of a path holds for one loss.
            self._meta_loss = MetaLoss(_RowLosses(self.module, loss))
        start = {name: own for name, own in self._meta_loss.losses.named_parameters() if own.requires_grad}
        loop = InnerLoop(start, dict.fromkeys(start, self.lr), steps, self.first_order)
        return self._meta_loss(before, after, lambda: loop, list(start.values()))


class _Rows(NamedTuple):
    inputs: Tensor
    targets: Tensor
    mask: Tensor


class _RowLosses(nn.Module):
    """A model and a loss: rows of many tasks [T, N, ...] or of one [N, ...] -> their losses, [T, N] or [N]."""

    def __init__(self, model: nn.Module, loss: RowLoss) -> None:
        super().__init__()
        self.network = model
        self.loss = loss

    def forward(self, rows: _Rows) -> Tensor:
        apart = rows.mask.dim() - 1
        inputs, targets = (tensor.flatten(0, apart) for tensor in (rows.inputs, rows.targets))
        losses = self.loss(self.network(inputs), targets)
        if losses.shape[:1] != targets.shape[:1]:
            raise InputError(
                f"loss must be one of each row, with {len(targets)} in front, but has the shape {list(losses.shape)}; "
                'use reduction="none"'
            )
        return losses.reshape(*rows.mask.shape, -1).mean(-1)


def _rows(name: str, side: tuple[Tensor, ...]) -> _Rows:
    if len(side) not in (2, 3):
        raise InputError(f"{name} must be (inputs, targets) or (inputs, targets, mask) but has {len(side)} parts")
    inputs, targets = side[:2]
    mask = side[2] if len(side) == 3 else torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    for part, tensor in (("inputs", inputs), ("targets", targets), ("mask", mask)):
        if tensor.dim() < 2 or tensor.shape[:2] != inputs.shape[:2]:
            expected = list(inputs.shape[:2])
            raise InputError(f"{part} of {name} must begin with [tasks, rows] {expected} but got {list(tensor.shape)}")
    if mask.dtype != torch.bool or mask.dim() != 2:
        raise InputError(f"mask of {name} must be [tasks, rows] of bool but got {list(mask.shape)} of {mask.dtype}")
    return _Rows(inputs, targets, mask)
