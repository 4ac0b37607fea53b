"""MAML around any module, with learn2learn's interface, for many tasks at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from metarec.errors import InputError, check_at_least, check_positive
from metarec.fusion import copy_with
from metarec.meta._calls import Outside, plain_attention
from metarec.meta._inner_loop import InnerLoop, Path
from metarec.meta._paths import MetaLoss

__all__ = ["BatchedMAML"]

logger = logging.getLogger(__name__)

RowLoss = Callable[[Any, Tensor], Tensor]


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
        for name, part in model.named_modules():
            if isinstance(part, torch.jit.ScriptModule) or "_orig_mod" in part._modules:
                where = f"{name} of the model" if name else "the model"
                raise InputError(
                    f"{where} is compiled or scripted, so that its parameters are fixed; give it as it was"
                )
        self.module = model
        self.lr = float(lr)
        self.first_order = first_order
        self.allow_nograd = allow_nograd
        self.allow_unused = allow_nograd if allow_unused is None else allow_unused
        self._meta_loss = MetaLoss()

    @property
    def path(self) -> Path | None:
        """The path that :meth:`meta_loss` took, "low-rank", "vmap" or "one-by-one"; None before its first batch."""
        return self._meta_loss.path

    @property
    def why(self) -> str | None:
        """The reason against a faster path, None if there is none."""
        return self._meta_loss.why

    def __getattr__(self, name: str) -> Any:
        """What only the model has, such as a method of its own."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = vars(self).get("_modules", {})
            # Python looks for some of its own names, such as __deepcopy__, and would copy the model alone.
            if "module" not in modules or name.startswith("__"):
                raise
            return getattr(modules["module"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with plain_attention:
            return self.module(*args, **kwargs)

    def clone(
        self, first_order: bool | None = None, allow_unused: bool | None = None, allow_nograd: bool | None = None
    ) -> BatchedMAML:
        """A copy to adapt to one task: its parameters have a graph to these. Options default to those of this one.

        Raises:
            InputError: a lazy layer of the model was not called yet.
        """
        self._check_initialised()
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

        On a clone the step is kept apart from this start. On the learner itself, as learn2learn has it at test time,
        the learner becomes the adapted one, and the model that it was made of stays as it was.

        Raises:
            InputError: gradients are off, a parameter needs no gradient and that is not allowed, or no parameter has a
                part in the loss.
            RuntimeError: a parameter has no part in the loss and that is not allowed.
        """
        first_order = self.first_order if first_order is None else first_order
        if not torch.is_grad_enabled() or not loss.requires_grad:
            raise InputError(
                "adapt needs a loss with a gradient but gradients are off, by torch.no_grad or inference_mode, here or "
                "where the clone or the loss was made; use torch.enable_grad()"
            )
        learned = self._learned(self.allow_nograd if allow_nograd is None else allow_nograd)
        if any(isinstance(parameter, nn.Parameter) for parameter in learned.values()) and not first_order:
            logger.warning("adapt changes the learner itself, which can no longer be trained; in training, use clone()")
        gradients = torch.autograd.grad(
            loss,
            list(learned.values()),
            create_graph=not first_order,
            allow_unused=self.allow_unused if allow_unused is None else allow_unused,
        )
        if all(gradient is None for gradient in gradients):
            raise InputError("the loss must depend on the parameters of the clone but depends on none of them")
        self.module = copy_with(
            self.module,
            {
                id(parameter): parameter if gradient is None else parameter - self.lr * gradient
                for parameter, gradient in zip(learned.values(), gradients, strict=True)
            },
        )

    def meta_loss(
        self, support: tuple[Tensor, ...], query: tuple[Tensor, ...], *, loss: RowLoss, steps: int = 1
    ) -> Tensor:
        """The mean loss of each task's query rows after `steps` inner steps on its support rows; then over tasks.

        The inner steps are taken in eval mode, so that dropout and the like are off; only torch's batch norm and
        spectral norm keep their mode. In the query rows the model has its own mode. Every task begins with the model's
        buffers, and those that change, such as running statistics, become the mean over tasks. The graph reaches
        everything behind the rows and the loss. Parameters of the loss are not adapted, nor are those without a part in
        the inner loss.

        Args:
            support: inputs [T, N, ...] and targets [T, N, ...] of T tasks with N rows each, and, where tasks have
                different numbers of rows, a mask [T, N] of the rows that count. The model gets the rows of its tasks as
                a batch [rows, ...].
            query: the same for the query rows.
            loss: of predictions and targets, one number for each row (or several, which are averaged), such as
                ``torch.nn.MSELoss(reduction="none")``. Pass the same object every time: for a new one the path is
                chosen anew.

        Raises:
            InputError: the tensors do not fit each other, the loss is not one of each row or reaches no parameter,
                `steps` is no integer >= 0, a parameter needs no gradient and that is not allowed, or the model has no
                second derivative and `first_order` is False.
        """
        check_at_least(0, steps=steps)
        if torch.is_inference_mode_enabled():
            raise InputError("meta_loss takes gradients, which torch.inference_mode rules out; use torch.no_grad")
        self._check_initialised()
        for name, part in self.module.named_modules():
            if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse:
                raise InputError(
                    f"{name or 'the model'} has sparse gradients, which meta_loss cannot add; set sparse=False"
                )
        before, after = _rows("support", support), _rows("query", query)
        if len(before.mask) != len(after.mask):
            raise InputError(f"query must have the {len(before.mask)} tasks of support but got {len(after.mask)}")
        start = {f"network.{name}": own for name, own in self._learned(self.allow_nograd).items()}
        loop = InnerLoop(start, dict.fromkeys(start, self.lr), steps, self.first_order)
        return self._meta_loss(_RowLosses(self.module, loss), before, after, loop)

    def _learned(self, allow_nograd: bool) -> dict[str, Tensor]:
        """The parameters that are adapted, by name."""
        learned: dict[str, Tensor] = {name: own for name, own in self.module.named_parameters() if own.requires_grad}
        for name, _ in self.module.named_parameters():
            if name not in learned and not allow_nograd:
                raise InputError(f"{name} must require a gradient, or allow_nograd be True")
        if not learned:
            raise InputError("the model must have a parameter that requires a gradient but has none")
        return learned

    def _check_initialised(self) -> None:
        for name, own in self.module.named_parameters():
            if is_lazy(own):
                raise InputError(f"{name} of the model has no shape yet; call the model once, on some rows")


class _Rows(NamedTuple):
    inputs: Tensor
    targets: Tensor
    mask: Tensor


class _RowLosses(nn.Module):
    """A model and a loss: rows of many tasks [T, N, ...] or of one [N, ...] -> their losses, [T, N] or [N]."""

    def __init__(self, model: nn.Module, loss: RowLoss) -> None:
        super().__init__()
        self.network = model
        self.loss = Outside(loss)
        self.train(model.training)

    def forward(self, rows: _Rows) -> Tensor:
        apart = rows.mask.dim() - 1
        inputs, targets = (tensor.flatten(0, apart) for tensor in (rows.inputs, rows.targets))
        losses: Tensor = self.loss(self.network(inputs), targets)
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
