"""Task by task with learn2learn's MAML."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from metarec.episodes import FusionInputs
from metarec.fusion.losses import masked_mean
from metarec.meta._taskwise import TaskwiseMetaLearner

__all__ = ["Learn2LearnMetaLearner"]

logger = logging.getLogger(__name__)


class Learn2LearnMetaLearner(TaskwiseMetaLearner):
    """MAML as learn2learn (Arnold et al. 2020) computes it: ``clone()``, ``adapt(loss)``, the clone's query loss.

    Raises:
        ImportError: learn2learn is not installed.
    """

    _maml: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        maml = _import_maml()
        # Frozen and unused parameters are allowed, as in the other engines; this is also the way through MAML.adapt
        # that lets its errors out, where the usual way prints them and fails on a name that it never bound.
        # Not a submodule: the network's parameters would appear in the state twice.
        object.__setattr__(
            self,
            "_maml",
            maml(self._row_losses, self.inner_lr, self.first_order, allow_unused=True, allow_nograd=True),
        )

    def _adapt_task(self, support: FusionInputs, steps: int, *, keep_graph: bool) -> nn.Module:
        clone = self._maml.clone(first_order=self.first_order or not keep_graph)
        clone.eval()
        for step in range(steps):
            loss = masked_mean(clone(support), support.mask)
            try:
                clone.adapt(loss)
            except RuntimeError as error:
                rows = len(support.mask)
                raise RuntimeError(
                    f"learn2learn failed in inner step {step} on {rows} support rows: {error}"
                ) from error
        adapted: nn.Module = clone.module
        return adapted

    def _fast_parameters(self, adapted: nn.Module) -> Mapping[str, Tensor]:
        return dict(adapted.named_parameters())


def _import_maml() -> Any:
    """learn2learn's MAML. The import takes seconds, so it is done when the engine is asked for."""
    # gym, which learn2learn imports, prints on stderr that it is not maintained. That is nothing that a user of this
    # engine can act on, so it goes to the log instead; only while gym itself is imported.
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            import gym  # noqa: F401
        from learn2learn.algorithms import MAML
    except ImportError as error:
        raise ImportError(
            f"the learn2learn engine needs learn2learn, which cannot be imported ({error}); install it with "
            "pip install learn2learn==0.2.0 --config-settings=--build-option=build_ext, or use the engine batched"
        ) from error
    if printed.getvalue():
        logger.debug("gym says: %s", " ".join(printed.getvalue().split()))
    return MAML
