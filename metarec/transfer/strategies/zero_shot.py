"""A control: what the sources model, and nothing of the target but each user's own support ratings."""

from __future__ import annotations

from typing import ClassVar

from metarec.episodes import Episodes
from metarec.transfer.sources import Sources, TransferredModel
from metarec.transfer.strategies._base import TransferStrategy

__all__ = ["ZeroShot"]


class ZeroShot(TransferStrategy):
    """A control: what the sources model, and nothing of the target but each user's own support ratings."""

    name: ClassVar[str] = "zero_shot"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        return sources.model(self.settings, self.seed)
