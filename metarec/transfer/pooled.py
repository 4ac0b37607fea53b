"""A control: the target's few users are more users among those of the sources."""

from __future__ import annotations

from typing import ClassVar

from metarec.episodes import Episodes
from metarec.transfer._base import TransferStrategy
from metarec.transfer._models import TransferredModel
from metarec.transfer._taught import Sources, learn

__all__ = ["Pooled"]


class Pooled(TransferStrategy):
    """A control: all domains are one, and the target's few users are more users among those of the sources."""

    name: ClassVar[str] = "pooled"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        return learn(list(sources.values()), self.settings, self.seed, beside=[target])
