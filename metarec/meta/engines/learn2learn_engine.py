"""Task by task with learn2learn's MAML, or its GBML for learned rates and an adapted head."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from metarec.episodes import FusionInputs
from metarec.errors import InputError
from metarec.fusion.losses import masked_mean
from metarec.meta._calls import RowLosses, take_inner_modes
from metarec.meta.engines._taskwise import TaskwiseMetaLearner, inner_step

__all__ = ["Learn2LearnMetaLearner"]

logger = logging.getLogger(__name__)


class Learn2LearnMetaLearner(TaskwiseMetaLearner):
    """MAML as learn2learn (Arnold et al. 2020) computes it: ``clone()``, ``adapt(loss)``, the clone's query loss.

    Its MetaSGD has a rate for every entry, and both that and its MAML adapt all parameters. Learned rates and
    adapted="head" therefore use its GBML, which passes each parameter's gradient through a transform.

    Raises:
        InputError: as for every engine; or an inner optimizer other than "sgd".
        ImportError: learn2learn is not installed.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.inner_optimizer != "sgd":
            raise InputError(
                'inner_optimizer must be "sgd" with the engine learn2learn, which takes plain inner steps, but got '
                f'"{self.inner_optimizer}"; use the engine higher or batched'
            )
        self._maml, self._gbml = _import_algorithms()

    def _wrapped(self, losses: RowLosses) -> Any:
        # Frozen and unused parameters are allowed, as in the other engines. With these flags adapt also raises its
        # errors; otherwise it prints them and fails on a name that it never bound.
        common = {"first_order": self.first_order, "allow_unused": True, "allow_nograd": True}
        if self.learn_rates or self.adapted != "all":
            steps = {parameter: self._step_of(name) for name, parameter in losses.network.named_parameters()}
            return self._gbml(losses, transform=steps.__getitem__, lr=1.0, **common)
        return self._maml(losses, lr=self.inner_lr, **common)

    def _step_of(self, name: str) -> nn.Module:
        if name not in self._rated:
            return _Step(None)
        if self.log_rates is None:
            return _Step(self.inner_lr)
        return _LearnedStep(self.log_rates, self._rated.index(name))

    def _adapt_task(self, losses: RowLosses, support: FusionInputs, steps: int, *, keep_graph: bool) -> nn.Module:
        clone = self._wrapped(losses).clone(first_order=self.first_order or not keep_graph)
        take_inner_modes(clone.module, losses)
        for step in range(steps):
            loss = masked_mean(clone(support), support.mask)
            with inner_step("learn2learn", step, support):
                clone.adapt(loss)
        adapted: nn.Module = clone.module
        return adapted

    def _fast_parameters(self, adapted: nn.Module) -> Mapping[str, Tensor]:
        return dict(adapted.named_parameters())


class _Step(nn.Module):
    """From one parameter's gradient to its step at a fixed rate; no step where the rate is None."""

    def __init__(self, rate: float | None) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, gradient: Tensor) -> Tensor | None:
        return None if self.rate is None else self.rate * gradient


class _LearnedStep(nn.Module):
    """The same at a learned rate. learn2learn clones it, with its rates, together with the adapted module."""

    def __init__(self, log_rates: nn.Parameter, position: int) -> None:
        super().__init__()
        self.log_rates = log_rates
        self.position = position

    def forward(self, gradient: Tensor) -> Tensor:
        return self.log_rates[self.position].exp() * gradient


def _import_algorithms() -> tuple[Any, Any]:
    """learn2learn's MAML and GBML. The import takes seconds, so it happens when the engine is made."""
    # gym, which learn2learn imports, prints on stderr that it is not maintained. Users of this engine cannot act on
    # that, so it goes to the log.
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            import gym  # noqa: F401
        from learn2learn.algorithms import GBML, MAML
    except ImportError as error:
        raise ImportError(
            f"the learn2learn engine needs learn2learn, which cannot be imported ({error}); install it with "
            "pip install learn2learn==0.2.0 --config-settings=--build-option=build_ext, or use the engine batched"
        ) from error
    if printed.getvalue():
        logger.debug("gym: %s", " ".join(printed.getvalue().split()))
    return MAML, GBML
