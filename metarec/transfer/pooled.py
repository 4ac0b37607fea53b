"""A control: all domains as one, the target's few users among the many of the sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from metarec.episodes import DomainEpisodes, Episodes
from metarec.transfer._base import AdaptingModel, TransferredModel, TransferStrategy
from metarec.transfer._training import train_on_sources

__all__ = ["Pooled"]


class Pooled(TransferStrategy):
    """A control: all domains as one, the target's few users among the many of the sources."""

    name: ClassVar[str] = "pooled"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Mapping[str, DomainEpisodes], target: Episodes) -> TransferredModel:
        learner = self.settings.start(target, self.seed)
        return AdaptingModel(train_on_sources(learner, sources.values(), self.settings, self.seed, beside=[target]))
