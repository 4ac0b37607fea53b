"""A control: what the sources taught, and nothing of the target but each user's own support ratings."""

from __future__ import annotations

from typing import ClassVar

from metarec.episodes import Episodes
from metarec.transfer._base import TransferStrategy
from metarec.transfer._models import TransferredModel
from metarec.transfer._taught import Sources

__all__ = ["ZeroShot"]


class ZeroShot(TransferStrategy):
    """A control: what the sources taught, and nothing of the target but each user's own support ratings."""

    name: ClassVar[str] = "zero_shot"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        return sources.teach(self.settings, self.seed)
