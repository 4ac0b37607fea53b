"""A control: the target's few users are more users among those of the sources."""

from __future__ import annotations

from typing import ClassVar

from metarec.episodes import Episodes
from metarec.transfer.sources import SourceModel, Sources, TransferredModel
from metarec.transfer.strategies._base import TransferStrategy

__all__ = ["Pooled"]


class Pooled(TransferStrategy):
    """A control: all domains are one, and the target's few users are more users among those of the sources."""

    name: ClassVar[str] = "pooled"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        return SourceModel.learn(list(sources.values()), self.settings.fusion, self.seed, beside=[target])
