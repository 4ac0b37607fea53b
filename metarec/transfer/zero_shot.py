"""A control: what the sources taught, and nothing of the target but each user's own support ratings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from metarec.episodes import DomainEpisodes, Episodes
from metarec.transfer._base import AdaptingModel, TransferredModel, TransferStrategy
from metarec.transfer._training import train_on_sources

__all__ = ["ZeroShot"]


class ZeroShot(TransferStrategy):
    """A control: what the sources taught, and nothing of the target but each user's own support ratings."""

    name: ClassVar[str] = "zero_shot"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Mapping[str, DomainEpisodes], target: Episodes) -> TransferredModel:
        learner = self.settings.start(target, self.seed)
        return AdaptingModel(train_on_sources(learner, sources.values(), self.settings, self.seed))
