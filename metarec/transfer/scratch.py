"""A control: no transfer. The same network, on the target's few users alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from metarec.episodes import DomainEpisodes, Episodes
from metarec.transfer._base import AdaptingModel, TransferredModel, TransferStrategy
from metarec.transfer._training import fine_tune

__all__ = ["Scratch"]


class Scratch(TransferStrategy):
    """A control: no transfer. The same network, on the target's few users alone."""

    name: ClassVar[str] = "scratch"
    needs_sources: ClassVar[bool] = False

    def _fit(self, sources: Mapping[str, DomainEpisodes], target: Episodes) -> TransferredModel:
        learner = self.settings.start(target, self.seed)
        return AdaptingModel(fine_tune(learner, target, self.settings, self.seed))
